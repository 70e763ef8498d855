//! One loaded version: its backend, and the measurements of its load.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use super::artifacts::CachedVersion;
use super::backend::Backend;
use super::host::LoadReport;
use super::use_count::UseCount;
use crate::message::Fault;

/// Version that is loaded and answers.
#[derive(Debug)]
pub(super) struct LoadedVersion {
    /// Counts the calls that hold it, or wait for a place.
    pub(super) uses: UseCount,
    pub(super) backend: Backend,
    /// Time of the load, since the start of Signalbox.
    pub(super) loaded_at: Duration,
    pub(super) load_cost: Duration,
    /// True if no request waited for the load.
    pub(super) preloaded: bool,
    /// True if a call or a switch has ever held the version.
    pub(super) was_used: AtomicBool,
    /// Private bytes of its processes, as measured last.
    pub(super) memory: AtomicU64,
    /// Private bytes of its processes once the load had warmed them.
    pub(super) memory_when_loaded: u64,
    pub(super) report: LoadReport,
    /// Keeps the version's artifacts in the cache.
    pub(super) _cached: Option<CachedVersion>,
}

impl LoadedVersion {
    /// Tells whether calls may begin.
    pub(super) fn is_open(&self) -> bool {
        !self.uses.is_closed() && self.broken().is_none()
    }

    /// Returns the reason why it answers no longer, when that is so.
    pub(super) fn broken(&self) -> Option<&Fault> {
        self.backend.broken()
    }
}
