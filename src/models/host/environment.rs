//! The environments that MLflow makes for models: which of them are whole.
//!
//! MLflow takes an environment that is there for one that is finished, even if whatever made it was killed in the middle.
//! So each set of requirements has a directory of its own, and what is in there counts once it is marked:
//!
//! ```text
//! <directory>/<hash of the requirements>/
//!   lock     held while they are being made
//!   whole    they were finished
//!   envs/    MLflow's, removed before they are made again
//! ```

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// How often it is looked whether somebody else has finished the same environment.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The files of a model that say what its environment consists of.
const REQUIREMENTS: [&str; 5] = ["python_env.yaml", "conda.yaml", "requirements.txt", "uv.lock", "pyproject.toml"];

/// Where MLflow makes the environment of one server.
#[derive(Debug)]
pub(super) struct Environment {
    entry: PathBuf,
    /// Held until it is whole.
    build_lock: Option<File>,
}

impl Environment {
    /// The place in this directory for an environment that this manager makes for this model. Waits while somebody else
    /// makes the same; what was left behind half-made is removed.
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

    /// What MLflow and conda need to be told, to use this place.
    pub(super) fn variables(&self) -> impl Iterator<Item = (String, String)> {
        let place = self.entry.join("envs").display().to_string();
        ["MLFLOW_ENV_ROOT", "CONDA_ENVS_PATH"].into_iter().map(move |name| (name.to_owned(), place.clone()))
    }

    /// What is in it was finished, and may be used as it is from now on.
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

/// The lock, if it is yet to be made; `None` while somebody else makes it.
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
    // Its maker may have finished just before.
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

/// Models that ask for the same have the same environment, as they have with MLflow.
fn entry_name(env_manager: &str, model: &Path) -> String {
    // A hash of a later release of Rust may differ: then environments are made once more.
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
    async fn what_was_left_half_made_is_removed_and_what_is_whole_stays() {
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
        // Nobody waits for one that is whole.
        drop((open().await.unwrap(), open().await.unwrap(), another));
        assert!(envs.join("mlflow-1").exists());
        fs::write(model.path().join("requirements.txt"), "numpy").unwrap();
        assert_ne!(place(&open().await.unwrap()), envs);
        assert_ne!(place(&Environment::open(cache.path(), "uv", model.path()).await.unwrap()), envs);
    }

    #[tokio::test]
    async fn only_one_makes_it() {
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
