//! Identity of an instance: the name by which the coordinator and its own next start know its transactions.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::error::BrokerError;
use crate::config::Kafka;

/// Most instances on one host that get names by themselves; more want `kafka.instance_id`.
const SLOTS: usize = 1024;

/// Name that no other running instance has, and that the next start gets again: it closes the transactions that this
/// one leaves open.
#[derive(Debug)]
pub struct Identity {
    name: String,
    /// File that is locked for as long as the process lives, however that ends.
    _slot: Option<File>,
}

impl Identity {
    /// Takes `kafka.instance_id`, else the host's name and the first number that no other instance on the host holds,
    /// after the group's name.
    ///
    /// # Errors
    /// When no number can be reserved.
    pub fn of(config: &Kafka) -> Result<Self, BrokerError> {
        if let Some(instance) = &config.instance_id {
            return Ok(Self { name: format!("{}-{instance}", config.group_id), _slot: None });
        }
        let user = rustix::process::getuid().as_raw();
        let directory = std::env::temp_dir().join(format!("signalbox-{user}"));
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self::first_free(&directory, &format!("{}-{host}", config.group_id))
    }

    fn first_free(directory: &Path, prefix: &str) -> Result<Self, BrokerError> {
        let failed = |path: PathBuf, source| BrokerError::Identity { path: path.display().to_string(), source };
        fs::create_dir_all(directory).map_err(|error| failed(directory.to_owned(), error))?;
        for slot in 0..SLOTS {
            let name = format!("{prefix}-{slot}");
            let path = directory.join(format!("{name}.instance"));
            let file = File::options().create(true).append(true).open(&path);
            let file = file.map_err(|error| failed(path.clone(), error))?;
            match file.try_lock() {
                Ok(()) => return Ok(Self { name, _slot: Some(file) }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed(path, error)),
            }
        }
        let source = std::io::Error::other(format!("all {SLOTS} names are taken"));
        Err(failed(directory.to_owned(), source))
    }

    /// Returns the `transactional.id`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_unique_and_returns_at_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let next = || Identity::first_free(directory.path(), "group-host").unwrap();
        let (first, second) = (next(), next());
        assert_eq!((first.name(), second.name()), ("group-host-0", "group-host-1"));
        drop(first);
        let (again, third) = (next(), next());
        assert_eq!((again.name(), third.name()), ("group-host-0", "group-host-2"));
    }

    #[test]
    fn identity_takes_name_from_config() {
        let config = Kafka { instance_id: Some("a".to_owned()), group_id: "g".to_owned(), ..Kafka::default() };
        assert_eq!(Identity::of(&config).unwrap().name(), "g-a");
    }
}
