//! Every version that is in use or loaded.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::resolved_model::ResolvedModel;
use super::version::{Hosting, Version};

/// Finds the one [`Version`] for each name, location and hosting, so that all URIs that stand for it share it. Versions
/// are held weakly: one that is neither loaded nor named by a URI is forgotten.
#[derive(Debug, Default)]
pub(super) struct VersionCatalog {
    versions: Mutex<Vec<Weak<Version>>>,
    next_key: AtomicU64,
}

impl VersionCatalog {
    /// Lists every version that takes calls, or is loaded.
    pub(super) fn all(&self) -> Vec<Arc<Version>> {
        alive(&mut self.versions.lock()).collect()
    }

    /// Returns the one version of this name and location that is hosted in this way.
    pub(super) fn version_of(&self, resolved: ResolvedModel, hosting: &Hosting) -> Arc<Version> {
        let mut versions = self.versions.lock();
        let same = |version: &Arc<Version>| {
            version.name == resolved.name && version.location == resolved.location && version.hosting == *hosting
        };
        if let Some(version) = alive(&mut versions).find(same) {
            version.row_independence.tag(resolved.is_tagged);
            return version;
        }
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let version = Version::new(key, resolved.name, resolved.version, resolved.location, hosting.clone());
        let version = Arc::new(version);
        version.row_independence.tag(resolved.is_tagged);
        versions.push(Arc::downgrade(&version));
        version
    }
}

/// Yields the versions that are still held, and drops the others from the list.
fn alive(versions: &mut Vec<Weak<Version>>) -> impl Iterator<Item = Arc<Version>> {
    versions.retain(|version| version.strong_count() > 0);
    versions.iter().filter_map(Weak::upgrade)
}
