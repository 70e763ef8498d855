//! One immutable version of a model: its hosting, its load state and its history.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::artifacts::CachedVersion;
use super::host::WarmUpResult;
use super::load_queue::Priority;
use super::loaded_version::LoadedVersion;
use super::registry::Registration;
use super::resolved_model::ArtifactLocation;
use super::single_flight::SingleFlight;
use super::unload::UnloadReason;
use super::usage::Usage;
use crate::config::{EnvManager, Runtime};
use crate::invocation::row_independence::RowIndependence;

/// Bytes that a host holds for itself, however small its model: 16 MiB, the least that is expected of one.
const SMALLEST_HOST: u64 = 16 << 20;

/// Way in which a version is hosted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Hosting {
    pub(super) python: String,
    pub(super) runtime: Runtime,
    pub(super) env_manager: EnvManager,
    /// The number of hosts that are forked for it.
    pub(super) workers: usize,
    /// The number of calls that each host answers at once.
    pub(super) threads: usize,
    /// The number of calls that run at once, over all hosts.
    pub(super) concurrency: usize,
}

/// One immutable version of a model, hosted in one way. All URIs that stand for it share it.
#[derive(Debug)]
pub(super) struct Version {
    /// The key by which residency knows it.
    pub(super) key: u64,
    /// The name by which operators know it: `sentiment/3`, a logged model's id, or a directory.
    pub(super) name: Arc<str>,
    /// The version as replies state it.
    pub(super) version: Arc<str>,
    pub(super) location: ArtifactLocation,
    pub(super) hosting: Hosting,
    /// The loaded version, if it is loaded now.
    pub(super) loaded: Arc<SingleFlight<LoadedVersion>>,
    pub(super) usage: Usage,
    /// True if an operator pinned the version, so that neither memory nor idleness unloads it.
    pub(super) pinned: AtomicBool,
    pub(super) history: History,
    /// Knowledge of whether it answers each row as if it were alone.
    pub(super) row_independence: Arc<RowIndependence>,
    /// Result of the last full warm-up (example call, requirements), if that was good; lets an urgent reload skip both.
    pub(super) warm_up: OnceLock<WarmUpResult>,
    /// Priority of the load that is under way, if one is.
    pub(super) priority: Mutex<Priority>,
}

/// Counts and measurements of a version over all its loads.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) loads: AtomicU64,
    pub(super) evictions: AtomicU64,
    /// Private bytes of its hosts when it had been loaded, 0 when they were never measured.
    pub(super) memory: AtomicU64,
    /// The reason why it is not loaded any more; none when it is loaded, or never was.
    pub(super) unload_reason: Mutex<Option<UnloadReason>>,
}

impl Version {
    pub(super) fn new(
        key: u64,
        name: Arc<str>,
        version: Arc<str>,
        location: ArtifactLocation,
        hosting: Hosting,
    ) -> Self {
        Self {
            key,
            name,
            version,
            location,
            hosting,
            loaded: SingleFlight::empty(),
            usage: Usage::default(),
            pinned: AtomicBool::new(false),
            history: History::default(),
            row_independence: Arc::default(),
            warm_up: OnceLock::new(),
            priority: Mutex::default(),
        }
    }

    /// Returns its registration in the registry; none for a directory.
    pub(super) fn registration(&self) -> Option<&Registration> {
        match &self.location {
            ArtifactLocation::Registry(entry) => Some(&entry.registration),
            ArtifactLocation::Directory(_) => None,
        }
    }

    /// Returns the labels `model` and `version` of metrics.
    pub(super) fn labels(&self) -> [&str; 2] {
        let model = self.name.strip_suffix(&*self.version).and_then(|name| name.strip_suffix('/'));
        [model.unwrap_or(&self.name), &self.version]
    }

    /// Estimates the bytes that it will hold once loaded: as measured at the last load, else twice the bytes of its
    /// `artifacts` for each host.
    pub(super) fn expected_memory(&self, artifacts: u64) -> u64 {
        match self.history.memory.load(Ordering::Relaxed) {
            0 => artifacts.saturating_mul(2).max(SMALLEST_HOST).saturating_mul(self.hosting.workers as u64),
            measured => measured,
        }
    }

    /// Adopts the memory of one host that an earlier Signalbox noted in the cache, if nothing newer is known.
    pub(super) fn adopt_memory(&self, cached: Option<&CachedVersion>) {
        if self.hosting.runtime == Runtime::Forked
            && self.history.memory.load(Ordering::Relaxed) == 0
            && let Some(one_host) = cached.and_then(CachedVersion::remembered_memory)
        {
            let all = one_host.saturating_mul(self.hosting.workers as u64);
            self.history.memory.store(all, Ordering::Relaxed);
        }
    }

    /// Records the bytes that its hosts hold once loaded, here and for later Signalboxes.
    pub(super) fn record_memory(&self, bytes: u64, cached: Option<&CachedVersion>) {
        self.history.memory.store(bytes, Ordering::Relaxed);
        if self.hosting.runtime == Runtime::Forked
            && let Some(cached) = cached
        {
            cached.remember_memory(bytes / self.hosting.workers as u64);
        }
    }
}
