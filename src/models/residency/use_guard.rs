//! A guard that keeps a version loaded.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::manager::ResidencyManager;
use crate::models::loaded_version::LoadedVersion;

/// Keeps a version loaded while it is held; dropping the last one tells the manager that the version is idle.
#[derive(Debug)]
pub(in crate::models) struct UseGuard {
    loaded: Arc<LoadedVersion>,
    manager: Arc<ResidencyManager>,
}

impl UseGuard {
    /// Takes a use of a loaded version; none when the version is being unloaded.
    pub(in crate::models) fn acquire(loaded: Arc<LoadedVersion>, manager: &Arc<ResidencyManager>) -> Option<Self> {
        loaded.uses.acquire().then(|| {
            loaded.was_used.store(true, Ordering::Relaxed);
            Self { loaded, manager: Arc::clone(manager) }
        })
    }

    /// Returns the version that is kept loaded.
    pub(in crate::models) fn loaded(&self) -> &LoadedVersion {
        &self.loaded
    }
}

impl Drop for UseGuard {
    fn drop(&mut self) {
        if self.loaded.uses.release() {
            self.manager.on_idle();
        }
    }
}
