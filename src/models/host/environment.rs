//! Tracks which of the environments that MLflow makes for models are complete.
//!
//! MLflow takes an environment that exists for a finished one, even if its maker was killed in the middle. So each set
//! of requirements has a directory of its own, whose content counts once it is marked:
//!
//! ```text
//! <directory>/<hash of the requirements>/
//!   lock     held while the environments are being made
//!   whole    exists once the environments are finished
//!   envs/    MLflow's environments, removed before they are made again
//! ```

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// Interval between two looks at whether another maker has finished the same environment.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Files of a model that define its environment.
const REQUIREMENTS: [&str; 5] = ["python_env.yaml", "conda.yaml", "requirements.txt", "uv.lock", "pyproject.toml"];

/// A directory in which MLflow makes the environment of one server.
#[derive(Debug)]
pub(super) struct Environment {
    entry: PathBuf,
    /// The lock on the directory, held until the environment is complete.
    build_lock: Option<File>,
}

impl Environment {
    /// Opens the directory, below `directory`, of the environment that `env_manager` makes for this model. Waits while
    /// another maker is at the same environment, and removes what an interrupted maker has left behind.
    pub(super) async fn open(directory: &Path, env_manager: &str, model: &Path) -> io::Result<Self> {
        let (directory, env_manager, model) = (directory.to_owned(), env_manager.to_owned(), model.to_owned());
        let entry = blocking(move || {
            let entry = directory.join(entry_name(&env_manager, &model));
            fs::create_dir_all(&entry)?;
            Ok(entry)
        })
        .await?;
        loop {
            let at = entry.clone();
            if let Some(build_lock) = blocking(move || prepare(&at)).await? {
                return Ok(Self { entry, build_lock });
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns the environment variables that make MLflow and conda use this directory.
    pub(super) fn variables(&self) -> impl Iterator<Item = (String, String)> {
        let place = self.entry.join("envs").display().to_string();
        ["MLFLOW_ENV_ROOT", "CONDA_ENVS_PATH"].into_iter().map(move |name| (name.to_owned(), place.clone()))
    }

    /// Marks the environment as complete, so that later servers use it as it is.
    pub(super) fn finish(&mut self) {
        if self.build_lock.is_some() {
            match fs::write(self.entry.join("whole"), "") {
                Ok(()) => self.build_lock = None,
                Err(error) => {
                    tracing::warn!(directory = %self.entry.display(), %error, "an environment cannot be marked as whole");
                }
            }
        }
    }
}

/// Takes the lock if the environment is yet to be made. Returns `None` while another maker holds it, and `Some(None)`
/// if the environment is complete.
#[expect(clippy::option_option, reason = "whether it is our turn, and whether there is anything to do")]
fn prepare(entry: &Path) -> io::Result<Option<Option<File>>> {
    let is_whole = || entry.join("whole").exists();
    if is_whole() {
        return Ok(Some(None));
    }
    let lock = File::options().create(true).append(true).open(entry.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    // The maker that held the lock before may have finished in the meantime.
    if is_whole() {
        return Ok(Some(None));
    }
    match fs::remove_dir_all(entry.join("envs")) {
        Ok(()) => tracing::info!(directory = %entry.display(), "an environment that was left half-made is removed"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(Some(Some(lock)))
}

/// Names the directory by a hash of the requirements: models with equal requirements share an environment, as they do
/// with MLflow.
fn entry_name(env_manager: &str, model: &Path) -> String {
    // A later release of Rust may hash otherwise: then environments are made once more.
    let mut hasher = DefaultHasher::new();
    env_manager.hash(&mut hasher);
    for name in REQUIREMENTS {
        fs::read(model.join(name)).ok().hash(&mut hasher);
    }
    format!("{env_manager}-{:016x}", hasher.finish())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn place(environment: &Environment) -> PathBuf {
        environment.variables().next().unwrap().1.into()
    }

    #[tokio::test]
    async fn environment_is_removed_when_incomplete_and_kept_when_complete() {
        let (cache, model) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = || Environment::open(cache.path(), "virtualenv", model.path());
        let killed = open().await.unwrap();
        let envs = place(&killed);
        fs::create_dir_all(envs.join("mlflow-1")).unwrap();
        drop(killed);
        let mut another = open().await.unwrap();
        assert!(place(&another) == envs && !envs.exists());
        fs::create_dir_all(envs.join("mlflow-1")).unwrap();
        another.finish();
        // Opening a complete environment never waits.
        drop((open().await.unwrap(), open().await.unwrap(), another));
        assert!(envs.join("mlflow-1").exists());
        fs::write(model.path().join("requirements.txt"), "numpy").unwrap();
        assert_ne!(place(&open().await.unwrap()), envs);
        assert_ne!(place(&Environment::open(cache.path(), "uv", model.path()).await.unwrap()), envs);
    }

    #[tokio::test]
    async fn environment_waits_while_another_maker_holds_the_lock() {
        let (cache, model) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = || Environment::open(cache.path(), "uv", model.path());
        let mut first = open().await.unwrap();
        fs::create_dir_all(place(&first)).unwrap();
        assert!(timeout(Duration::from_millis(50), open()).await.is_err());
        let second = open();
        tokio::pin!(second);
        assert!(timeout(Duration::from_millis(50), &mut second).await.is_err());
        first.finish();
        assert!(place(&second.await.unwrap()).exists());
    }
}
