//! Artifacts of models: fetched once for each version, kept on disk, shared with other Signalboxes and by restarts.
//!
//! ```text
//! <models.cache.directory>/
//!   sentiment-model-fast-3-9e3779b97f4a7c15/   one version, whole: it was filled elsewhere and then renamed
//!     manifest.json                            what it is and consists of; its time is that of the last use
//!     model/MLmodel …
//!     memory                                   what a host of it took
//!   .partial-…/                                being filled
//!   environments/                              those that MLflow makes for `mlflow models serve`
//! ```

mod cached;
mod manifest;
mod partial;
mod prune;
mod served;

use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use tokio_util::task::TaskTracker;

use super::faults::{not_found, unavailable};
use super::registry::{Registry, RegistryEntry};
use crate::message::Fault;
use manifest::{MLMODEL, MODEL, Manifest, VersionIdentity, files_below};
use partial::{Partial, in_background, sweep};
use served::ServedArtifacts;

pub(super) use cached::CachedVersion;
pub(super) use served::served_file;

/// Attempts to fetch a version that another Signalbox fetches, or removes, at the same moment; then the load fails.
const ATTEMPTS: usize = 4;

/// Artifacts of models, in a cache on disk.
#[derive(Debug)]
pub(super) struct Artifacts {
    /// The directory; none when neither config nor environment names one.
    directory: Option<PathBuf>,
    /// The most bytes that are kept.
    limit: u64,
    /// One lock for each version under way, so that it is downloaded once.
    fetch_locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// Pruning, which no load waits for.
    tasks: TaskTracker,
}

/// Failure to fetch a version's files.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    /// A fault of the registry or the artifact store.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A failure of the disk that holds the cache.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

impl Artifacts {
    /// Opens the cache in this directory, or in `signalbox/models` of the user's cache directory. Nothing is made yet;
    /// leftovers of processes that ended in the middle of a download are removed meanwhile.
    pub(super) fn open(directory: Option<&Path>, limit: u64, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let directory = directory.map(Path::to_owned).or_else(|| usual_directory(env));
        let directory = directory.map(|directory| std::path::absolute(&directory).unwrap_or(directory));
        if let Some(directory) = directory.clone() {
            // Leftovers may be gigabytes. Directories in use are locked, so the sweep can run beside everything else.
            in_background(move || sweep(&directory));
        }
        Self { directory, limit, fetch_locks: Mutex::default(), tasks: TaskTracker::new() }
    }

    /// Returns the directory of the environments that MLflow makes. They do not count towards the limit.
    pub(super) fn environments(&self) -> Option<PathBuf> {
        self.directory.as_ref().map(|directory| directory.join("environments"))
    }

    /// Returns the files of a version: those in the cache if they are whole, else fetched.
    ///
    /// # Errors
    ///
    /// A fault of the registry or the artifact store, or of the disk that holds the cache.
    pub(super) async fn fetch(&self, registry: &Registry, resolved: &RegistryEntry) -> Result<CachedVersion, Fault> {
        let cache = self
            .directory
            .as_deref()
            .ok_or_else(|| unavailable("there is no home directory to keep models in; set models.cache.directory"))?;
        self.fetch_into(cache, registry, resolved).await.map_err(|error| match error {
            FetchError::Fault(fault) => fault,
            FetchError::Disk(error) => unavailable(format!(
                "the files of {} cannot be kept in {}: {error}; {}, or set models.cache.directory to another directory",
                resolved.name,
                cache.display(),
                remedy(&error)
            )),
        })
    }

    async fn fetch_into(
        &self,
        cache: &Path,
        registry: &Registry,
        resolved: &RegistryEntry,
    ) -> Result<CachedVersion, FetchError> {
        let identity = VersionIdentity::new(registry.identity(), resolved);
        let name = identity.directory_name();
        let entry = cache.join(&name);
        let lock = self.fetch_lock(name);
        let _guard = lock.lock().await;
        for _ in 0..ATTEMPTS {
            let sought = identity.clone();
            if let Some(cached) = on_disk(&entry, move |entry| CachedVersion::find(entry, &sought)).await? {
                return Ok(cached);
            }
            // The files go to a directory of their own first, so that no other process sees half a version.
            let partial = on_disk(cache, Partial::create).await?;
            let manifest =
                Manifest { files: download(registry, resolved, &partial).await?, identity: identity.clone() };
            let published = {
                let (entry, manifest) = (entry.clone(), manifest.clone());
                on_disk(cache, move |_| {
                    manifest.write(partial.path())?;
                    Ok(partial.publish(&entry)?.map(|lock| CachedVersion::new(&entry, &manifest, lock)))
                })
            };
            // Another Signalbox may have published the same version first; then the next round finds that.
            if let Some(cached) = published.await? {
                tracing::info!(model = resolved.name, bytes = cached.bytes, "model's files are fetched");
                self.prune(cache);
                return Ok(cached);
            }
        }
        Err(unavailable(format!("the files of {} are fetched and removed by others all the time", resolved.name))
            .into())
    }

    fn fetch_lock(&self, name: String) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.fetch_locks.lock();
        locks.retain(|_, lock| lock.strong_count() > 0);
        let known = locks.get(&name).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let lock = Arc::default();
            locks.insert(name, Arc::downgrade(&lock));
            lock
        })
    }

    /// Prunes the cache to its limit in the background.
    fn prune(&self, cache: &Path) {
        let (cache, limit) = (cache.to_owned(), self.limit);
        self.tasks.spawn_blocking(move || prune::prune(&cache, limit));
    }
}

async fn download(
    registry: &Registry,
    resolved: &RegistryEntry,
    partial: &Partial,
) -> Result<Vec<manifest::CachedFile>, FetchError> {
    let model = partial.path().join(MODEL);
    let server = registry.tracking_server().filter(|_| !resolved.own_way);
    if let Some(served) = server.and_then(|server| ServedArtifacts::at(server, &resolved.artifact_uri)) {
        tokio::fs::create_dir(&model).await?;
        return served.download(&model).await;
    }
    let uri = if resolved.own_way { &resolved.uri } else { &resolved.artifact_uri };
    registry.download_by_client(uri, &model).await?;
    let files = on_disk(&model, files_below).await?;
    let is_model = files.iter().any(|file| file.path == Path::new(MLMODEL));
    if is_model { Ok(files) } else { Err(no_model(&resolved.artifact_uri).into()) }
}

/// Builds the fault of artifacts that hold no model.
fn no_model(place: &str) -> Fault {
    not_found(format!("there is no model in the artifacts at {place}: they have no {MLMODEL}"))
}

/// Runs disk work on a thread that may block.
async fn on_disk<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, FetchError> {
    let path = path.to_owned();
    let outcome = tokio::task::spawn_blocking(move || work(&path)).await;
    outcome.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(FetchError::Disk)
}

fn usual_directory(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let given = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = given("XDG_CACHE_HOME").or_else(|| Some(given("HOME")?.join(".cache")))?;
    Some(caches.join("signalbox/models"))
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room there (models.cache.size says how much is kept)"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "let Signalbox write there",
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "make that directory",
        _ => "see to that",
    }
}

#[cfg(test)]
mod tests;
