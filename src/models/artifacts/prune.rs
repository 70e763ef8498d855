//! Pruning: keeps the cache within its limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::manifest::{MANIFEST, Manifest};
use super::partial::{remove_unused, sweep};
use crate::message::wall_clock;

/// Version in the cache, as pruning sees it.
#[derive(Debug)]
struct CacheEntry {
    path: PathBuf,
    bytes: u64,
    last_used: SystemTime,
}

/// Removes unused versions, the least recently used first, until the rest is within the limit.
pub(super) fn prune(cache: &Path, limit: u64) {
    sweep(cache);
    let mut kept = kept(cache);
    kept.sort_by_key(|version| version.last_used);
    let mut total: u64 = kept.iter().map(|version| version.bytes).sum();
    for version in kept {
        if total <= limit {
            return;
        }
        let directory = version.path.display();
        match remove_unused(&version.path) {
            Ok(true) => {
                total -= version.bytes;
                tracing::info!(%directory, bytes = version.bytes, "a model is removed from the cache, to keep to models.cache.size");
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%directory, %error, "a model cannot be removed from the cache"),
        }
    }
    if total > limit {
        tracing::warn!(
            bytes = total,
            limit,
            "the models in use are larger than models.cache.size, and are kept all the same"
        );
    }
}

/// Marks a version as used now. A cache that Signalbox may only read is not its own to keep in order, so a failure is
/// no error.
pub(super) fn touch(entry: &Path) {
    let touched = fs::File::options()
        .append(true)
        .open(entry.join(MANIFEST))
        .and_then(|manifest| manifest.set_modified(wall_clock()));
    if let Err(error) = touched {
        tracing::debug!(directory = %entry.display(), %error, "the use of a cached model cannot be noted");
    }
}

/// Lists the versions that are whole. Anything else in the directory is not ours.
fn kept(cache: &Path) -> Vec<CacheEntry> {
    let Ok(found) = fs::read_dir(cache) else { return Vec::new() };
    let of = |path: PathBuf| {
        let last_used = fs::metadata(path.join(MANIFEST)).ok()?.modified().ok()?;
        let bytes = Manifest::read(&path).ok()?.bytes();
        Some(CacheEntry { path, bytes, last_used })
    };
    found
        .flatten()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .filter_map(|entry| of(entry.path()))
        .collect()
}
