//! A directory that is being filled, and who may take one away.
//!
//! Whoever uses a directory of the cache holds a shared lock on it (`flock` on the directory itself). The kernel gives
//! it up when a process ends, however that ends; so what can be locked exclusively is used by nobody.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// What is being filled, or was when its process ended.
const PARTIAL: &str = ".partial-";

/// What is being removed, or was when its process ended.
const REMOVED: &str = ".removed-";

/// A directory that is being filled. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    /// Held until it is published and beyond; `None` then.
    lock: Option<File>,
}

impl Partial {
    /// A fresh one in the cache's directory, which is made if it is missing: for our user alone, since what is loaded
    /// from there is code.
    pub(super) fn create(cache: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(cache)?;
        loop {
            let path = fresh_path(cache, PARTIAL);
            fs::create_dir(&path)?;
            // Whoever looks for leftovers at this moment may be faster.
            if let Some(lock) = lock_in_use(&path)? {
                return Ok(Self { path, lock: Some(lock) });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, at once and as a whole. Gives back the lock; `None` when the name is taken.
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
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Locks a directory against removal. `None` when it is gone.
pub(super) fn lock_in_use(path: &Path) -> io::Result<Option<File>> {
    let directory = match File::open(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Waits while it is being removed.
    directory.lock_shared()?;
    Ok(is_at(&directory, path).then_some(directory))
}

/// Takes a directory away that nobody uses. Tells whether it did.
pub(super) fn remove_unused(path: &Path) -> io::Result<bool> {
    let directory = File::open(path)?;
    if directory.try_lock().is_err() || !is_at(&directory, path) {
        return Ok(false);
    }
    remove(path)?;
    Ok(true)
}

/// Takes a directory away, all at once for whoever looks.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = fresh_path(path.parent().unwrap_or(Path::new(".")), REMOVED);
    fs::rename(path, &removed)?;
    fs::remove_dir_all(&removed)
}

/// Removes what processes have left behind that ended in the middle of something.
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
                // Another may have been faster.
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

/// Whether this is still the directory at that path.
fn is_at(directory: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (directory.metadata(), fs::metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}
