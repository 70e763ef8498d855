//! A cached version in use.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::manifest::{MODEL, Manifest, VersionIdentity};
use super::partial::{lock_in_use, remove};
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

impl CachedVersion {
    /// Finds a version that is whole in the cache, and marks it as used now. An entry that is another version, or no
    /// longer all of it, is removed.
    pub(super) fn find(entry: &Path, identity: &VersionIdentity) -> io::Result<Option<Self>> {
        let Some(lock) = lock_in_use(entry)? else { return Ok(None) };
        let damage = match Manifest::read(entry) {
            Ok(manifest) if manifest.identity != *identity => "it is another version of the same hash".to_owned(),
            Ok(manifest) => match manifest.damage(entry) {
                None => return Ok(Some(Self::new(entry, &manifest, lock))),
                Some(damage) => damage,
            },
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(error) => format!("its manifest cannot be read: {error}"),
        };
        // Nobody uses it here, so that it can be removed.
        drop(lock);
        tracing::warn!(directory = %entry.display(), damage, "a cached model is damaged, and fetched again");
        match remove(entry) {
            // Another Signalbox was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            removed => removed.map(|()| None),
        }
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
