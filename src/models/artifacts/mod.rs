//! The files of models: fetched once for each version, kept on disk, shared with other Signalboxes and by restarts.
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

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio_util::task::TaskTracker;

use super::registry::{Registry, Resolved, not_found, unavailable};
use crate::message::Fault;
use cached::Found;
use manifest::{Identity, MLMODEL, MODEL, Manifest, files_below};
use partial::{Partial, remove, sweep};
use served::Served;

pub(super) use cached::Cached;

/// How often a version is looked for again that another Signalbox fetched, or removed, at the same moment.
const ATTEMPTS: usize = 4;

/// The files of models, on disk.
#[derive(Debug, Clone)]
pub(super) struct Artifacts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `None` when nobody says where.
    directory: Option<PathBuf>,
    /// In bytes.
    limit: u64,
    /// Whoever fetches a version has its turn, so that it is downloaded once.
    turns: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// Pruning, which nobody waits for.
    tasks: TaskTracker,
}

/// Why a version cannot be fetched.
#[derive(Debug)]
enum Trouble {
    /// Where it comes from.
    Fault(Fault),
    /// Where it goes to.
    Disk(io::Error),
}

impl Artifacts {
    /// The cache in this directory, or in `signalbox/models` of the user's cache directory. Nothing is made yet; what
    /// processes have left behind that were ended in the middle of a download is removed meanwhile.
    pub(super) fn open(directory: Option<&Path>, limit: u64, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let directory = directory.map(Path::to_owned).or_else(|| usual_directory(env));
        let directory = directory.map(|directory| std::path::absolute(&directory).unwrap_or(directory));
        if let Some(directory) = directory.clone() {
            // It may be gigabytes. What is in use is locked, so it can be done beside everything else.
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || sweep(&directory))),
                Err(_) => sweep(&directory),
            }
        }
        let inner = Inner { directory, limit, turns: Mutex::default(), tasks: TaskTracker::new() };
        Self { inner: Arc::new(inner) }
    }

    /// Where the environments are kept that MLflow makes. They do not count towards the limit.
    pub(super) fn environments(&self) -> Option<PathBuf> {
        self.inner.directory.as_ref().map(|directory| directory.join("environments"))
    }

    /// The files of a version: those in the cache if they are whole, else fetched.
    pub(super) async fn fetch(&self, registry: &Registry, resolved: &Resolved) -> Result<Cached, Fault> {
        let cache = self.inner.directory.as_deref().ok_or_else(|| {
            unavailable("there is no home directory to keep models in; set models.cache.directory".to_owned())
        })?;
        self.fetch_into(cache, registry, resolved).await.map_err(|trouble| match trouble {
            Trouble::Fault(fault) => fault,
            Trouble::Disk(error) => unavailable(format!(
                "the files of {} cannot be kept in {}: {error}; {}, or set models.cache.directory to another directory",
                resolved.name,
                cache.display(),
                remedy(&error)
            )),
        })
    }

    async fn fetch_into(&self, cache: &Path, registry: &Registry, resolved: &Resolved) -> Result<Cached, Trouble> {
        let identity = Identity::new(registry.identity(), resolved);
        let name = identity.directory_name();
        let entry = cache.join(&name);
        let turn = self.turn(name);
        let _turn = turn.lock().await;
        for _ in 0..ATTEMPTS {
            if let Some(cached) = find(&entry, &identity).await? {
                return Ok(cached);
            }
            let partial = on_disk(cache, Partial::create).await?;
            let manifest =
                Manifest { files: download(registry, resolved, &partial).await?, identity: identity.clone() };
            let published = {
                let (entry, manifest) = (entry.clone(), manifest.clone());
                on_disk(cache, move |_| {
                    manifest.write(partial.path())?;
                    Ok(partial.publish(&entry)?.map(|lock| Cached::new(&entry, &manifest, lock)))
                })
            };
            if let Some(cached) = published.await? {
                tracing::info!(model = resolved.name, bytes = cached.bytes, "model's files are fetched");
                self.prune(cache);
                return Ok(cached);
            }
        }
        Err(unavailable(format!("the files of {} are fetched and removed by others all the time", resolved.name))
            .into())
    }

    fn turn(&self, name: String) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.inner.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let known = turns.get(&name).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::default();
            turns.insert(name, Arc::downgrade(&turn));
            turn
        })
    }

    /// Keeps to the limit, without anyone waiting for that.
    fn prune(&self, cache: &Path) {
        let (cache, limit) = (cache.to_owned(), self.inner.limit);
        self.inner.tasks.spawn_blocking(move || prune::prune(&cache, limit));
    }
}

/// What is in the cache of a version, if that is all of it. What is not is taken away.
async fn find(entry: &Path, identity: &Identity) -> Result<Option<Cached>, Trouble> {
    let identity = identity.clone();
    on_disk(entry, move |entry| match Cached::find(entry, &identity)? {
        Found::Whole(cached) => Ok(Some(cached)),
        Found::Nothing => Ok(None),
        Found::Damaged(damage) => {
            tracing::warn!(directory = %entry.display(), damage, "a cached model is damaged, and fetched again");
            match remove(entry) {
                // Another was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                removed => removed.map(|()| None),
            }
        }
    })
    .await
}

async fn download(
    registry: &Registry,
    resolved: &Resolved,
    partial: &Partial,
) -> Result<Vec<manifest::CachedFile>, Trouble> {
    let model = partial.path().join(MODEL);
    let server = registry.tracking_server().filter(|_| !resolved.own_way);
    if let Some(served) = server.and_then(|server| Served::at(server, &resolved.artifact_uri)) {
        tokio::fs::create_dir(&model).await?;
        return served.download(&model).await;
    }
    let uri = if resolved.own_way { &resolved.uri } else { &resolved.artifact_uri };
    registry.download_by_clerk(uri, &model).await?;
    let files = on_disk(&model, files_below).await?;
    let is_model = files.iter().any(|file| file.path == Path::new(MLMODEL));
    if is_model { Ok(files) } else { Err(no_model(&resolved.artifact_uri).into()) }
}

/// Does what may block.
async fn on_disk<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, Trouble> {
    let path = path.to_owned();
    let outcome = tokio::task::spawn_blocking(move || work(&path)).await;
    outcome.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(Trouble::Disk)
}

fn usual_directory(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let given = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = given("XDG_CACHE_HOME").or_else(|| Some(given("HOME")?.join(".cache")))?;
    Some(caches.join("signalbox/models"))
}

fn no_model(place: &str) -> Fault {
    not_found(format!("there is no model in the artifacts at {place}: they have no {MLMODEL}"))
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

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

#[cfg(test)]
mod tests;
