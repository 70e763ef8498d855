//! Directories of the cache that are being filled, and the locks that protect directories from removal.
//!
//! Each process that uses a directory of the cache holds a shared lock on it (`flock` on the directory itself). The
//! kernel releases the lock when a process ends, however that ends; so a directory that can be locked exclusively is
//! unused.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// Prefix of directories that are being filled, or were when their process ended.
const PARTIAL: &str = ".partial-";

/// Prefix of directories that are being removed, or were when their process ended.
const REMOVED: &str = ".removed-";

/// Directory that is being filled. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    /// The lock, held until the directory is published and beyond; none then.
    lock: Option<File>,
}

impl Partial {
    /// Creates a fresh directory in the cache, which is made if it is missing: for our user alone, since the files
    /// loaded from there are code.
    pub(super) fn create(cache: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(cache)?;
        loop {
            let path = fresh_path(cache, PARTIAL);
            fs::create_dir(&path)?;
            // A sweep at this moment may be faster than the lock.
            if let Some(lock) = lock_in_use(&path)? {
                return Ok(Self { path, lock: Some(lock) });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Publishes the directory under its name, at once and as a whole. Returns its lock; none when the name is taken.
    pub(super) fn publish(mut self, entry: &Path) -> io::Result<Option<File>> {
        match fs::rename(&self.path, entry) {
            Ok(()) => Ok(self.lock.take()),
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let Some(lock) = self.lock.take() else { return };
        let path = std::mem::take(&mut self.path);
        let remove = move || {
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::debug!(directory = %path.display(), %error, "what was not downloaded as a whole is left for later");
            }
            drop(lock);
        };
        in_background(remove);
    }
}

/// Runs disk work beside everything else, where there is a runtime.
pub(super) fn in_background(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

/// Locks a directory against removal. None when it is gone.
pub(super) fn lock_in_use(path: &Path) -> io::Result<Option<File>> {
    let directory = match File::open(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // The lock waits while the directory is being removed.
    directory.lock_shared()?;
    Ok(is_at(&directory, path).then_some(directory))
}

/// Removes a directory that no process uses. Tells whether it did.
pub(super) fn remove_unused(path: &Path) -> io::Result<bool> {
    let directory = File::open(path)?;
    if directory.try_lock().is_err() || !is_at(&directory, path) {
        return Ok(false);
    }
    remove(path)?;
    Ok(true)
}

/// Removes a directory, all at once for other processes.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = fresh_path(path.parent().unwrap_or(Path::new(".")), REMOVED);
    fs::rename(path, &removed)?;
    fs::remove_dir_all(&removed)
}

/// Removes the leftovers of processes that ended in the middle of a download or a removal.
pub(super) fn sweep(cache: &Path) {
    let Ok(found) = fs::read_dir(cache) else { return };
    for entry in found.flatten() {
        let name = entry.file_name();
        let is_ours = |prefix: &str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        if (is_ours(PARTIAL) || is_ours(REMOVED))
            && let Ok(directory) = File::open(entry.path())
            && directory.try_lock().is_ok()
        {
            match fs::remove_dir_all(entry.path()) {
                Ok(()) => {
                    tracing::info!(directory = %entry.path().display(), "a download that was broken off is removed")
                }
                // Another Signalbox may have been faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(directory = %entry.path().display(), %error, "a download that was broken off cannot be removed")
                }
            }
        }
    }
}

fn fresh_path(parent: &Path, prefix: &str) -> PathBuf {
    parent.join(format!("{prefix}{}", Uuid::new_v4().simple()))
}

/// Tells whether an open directory is still the one at that path.
fn is_at(directory: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (directory.metadata(), fs::metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}
