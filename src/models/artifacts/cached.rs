//! A cached version in use.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::manifest::{MODEL, Manifest, VersionIdentity};
use super::partial::lock_in_use;
use super::prune::touch;

/// Name of the file that notes the memory of a version's host.
const MEMORY: &str = "memory";

/// Cached version, whole. While this is held, no process removes it from the cache.
#[derive(Debug)]
pub(crate) struct CachedVersion {
    /// The model's directory, the one that holds `MLmodel`.
    pub directory: PathBuf,
    /// The bytes of all its files together.
    pub bytes: u64,
    entry: PathBuf,
    _lock: File,
}

/// Result of looking for a version in the cache.
pub(super) enum CacheLookup {
    Whole(CachedVersion),
    /// The entry is another version, or no longer all of it.
    Damaged(String),
    Nothing,
}

impl CachedVersion {
    /// Looks for a version, and marks it as used now.
    pub(super) fn find(entry: &Path, identity: &VersionIdentity) -> io::Result<CacheLookup> {
        let Some(lock) = lock_in_use(entry)? else { return Ok(CacheLookup::Nothing) };
        let manifest = match Manifest::read(entry) {
            Ok(manifest) => manifest,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(error) => return Ok(CacheLookup::Damaged(format!("its manifest cannot be read: {error}"))),
        };
        if manifest.identity != *identity {
            return Ok(CacheLookup::Damaged("it is another version of the same hash".to_owned()));
        }
        if let Some(damage) = manifest.damage(entry) {
            return Ok(CacheLookup::Damaged(damage));
        }
        Ok(CacheLookup::Whole(Self::new(entry, &manifest, lock)))
    }

    pub(super) fn new(entry: &Path, manifest: &Manifest, lock: File) -> Self {
        touch(entry);
        Self { directory: entry.join(MODEL), bytes: manifest.bytes(), entry: entry.to_owned(), _lock: lock }
    }

    /// Returns the private bytes of one of its hosts, as noted when one was measured.
    pub(crate) fn remembered_memory(&self) -> Option<u64> {
        fs::read_to_string(self.entry.join(MEMORY)).ok()?.trim().parse().ok()
    }

    /// Notes the private bytes of one of its hosts, if the cache can be written.
    pub(crate) fn remember_memory(&self, bytes: u64) {
        let new = self.entry.join(format!("{MEMORY}.{}", std::process::id()));
        let written = fs::write(&new, bytes.to_string()).and_then(|()| fs::rename(&new, self.entry.join(MEMORY)));
        if let Err(error) = written {
            tracing::debug!(directory = %self.entry.display(), %error, "a model's memory cannot be noted");
        }
    }
}

impl Drop for CachedVersion {
    /// Marks the version as used until now.
    fn drop(&mut self) {
        touch(&self.entry);
    }
}
