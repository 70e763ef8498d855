//! Accounts of memory: the versions that are loaded, the loads and unloads under way, and the bytes of each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::policy::{MemoryClaims, Resident};
use crate::models::loaded_version::LoadedVersion;
use crate::models::version::Version;

/// Time that a request which waited for a load has to take the loaded version, before it may be unloaded for others.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);

/// Window within which two unloads for others' sake mean that memory is short; it counts as short for that long again.
const SHORTAGE: Duration = Duration::from_secs(10);

/// Keeps account of the memory of all hosts.
#[derive(Debug, Default)]
pub(super) struct MemoryAccounts {
    pub(super) entries: BTreeMap<u64, LoadedEntry>,
    /// Bytes of processes that were told to end and have not ended yet.
    pub(super) unloading: u64,
    /// Bytes of loads that are under way.
    pub(super) loading: u64,
    /// Bytes of loads that wait for the end of processes, by the order in which they asked.
    pub(super) promised: BTreeMap<u64, u64>,
    /// Time of the last unload for another's sake.
    pub(super) last_displacement: Option<Duration>,
    /// Time until which memory counts as short.
    pub(super) short_until: Duration,
}

/// Entry of one loaded version.
#[derive(Debug, Clone)]
pub(super) struct LoadedEntry {
    pub(super) version: Arc<Version>,
    pub(super) loaded: Arc<LoadedVersion>,
    /// The number of calls that there had been when its memory was measured.
    pub(super) measured_at: u64,
}

impl MemoryAccounts {
    /// Notes that a version is unloaded for another's sake.
    pub(super) fn record_displacement(&mut self, now: Duration) {
        if self.last_displacement.replace(now).is_some_and(|last| now.saturating_sub(last) < SHORTAGE) {
            self.short_until = now + SHORTAGE;
        }
    }

    /// Lists the loaded versions as the policy sees them, after so many `calls` of all versions together.
    pub(super) fn view(&self, now: Duration, calls: u64) -> Vec<Resident<u64>> {
        self.entries.values().map(|entry| entry.view(now, calls)).collect()
    }

    /// Sums up the claims that count for the request at this position: of the promises, only those made before its own.
    pub(super) fn claims_before(&self, position: u64) -> MemoryClaims {
        let promised = self.promised.range(..position).map(|(_, bytes)| bytes).sum();
        MemoryClaims { unloading: self.unloading, loading: self.loading, promised }
    }
}

impl LoadedEntry {
    /// Returns the private bytes of its hosts, as measured last.
    pub(super) fn memory(&self) -> u64 {
        self.loaded.memory.load(Ordering::Relaxed)
    }

    /// Tells whether the request that the version was loaded for has yet to take it.
    fn is_awaited(&self, now: Duration) -> bool {
        let LoadedVersion { preloaded, was_used, loaded_at, .. } = &*self.loaded;
        !preloaded && !was_used.load(Ordering::Relaxed) && now.saturating_sub(*loaded_at) < TAKEN_WITHIN
    }

    fn view(&self, now: Duration, calls: u64) -> Resident<u64> {
        Resident {
            key: self.version.key,
            memory: self.memory(),
            memory_when_loaded: self.loaded.memory_when_loaded,
            loaded_at: self.loaded.loaded_at,
            load_cost: self.loaded.load_cost,
            habit: self.version.usage.habit(calls),
            preloaded: self.loaded.preloaded,
            in_use: self.loaded.uses.held() > 0 || self.is_awaited(now),
            pinned: self.version.pinned.load(Ordering::Relaxed),
        }
    }
}
