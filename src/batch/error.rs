//! Errors that end a run.

use std::fmt::Display;
use std::io;
use std::path::Path;

use crate::broker::BrokerError;

/// Tells why a run has ended before its input.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The options, the input or the files that are there do not go together.
    #[error("{0}")]
    Usage(String),
    /// The broker refuses or cannot be reached.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Something that is needed is not there.
    #[error("{0}")]
    Unavailable(String),
    /// A file cannot be read or written.
    #[error("{0}")]
    File(String),
    /// The run has stopped with its checkpoint written; the same command goes on.
    #[error("{0}")]
    Unfinished(String),
}

impl BatchError {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// Reports a file that cannot be read.
    pub(super) fn reading(path: &Path, error: impl Display) -> Self {
        Self::File(format!("cannot read {}: {error}", shown(path)))
    }

    /// Reports a file that cannot be written.
    pub(super) fn writing(path: &Path, error: impl Display) -> Self {
        Self::File(format!("cannot write {}: {error}", shown(path)))
    }

    /// Reports an input that is not there or may not be read as a wrong command line, and else as a failure of the disk.
    pub(super) fn opening(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => {
                Self::Usage(format!("cannot read {}: {error}", shown(path)))
            }
            _ => Self::reading(path, error),
        }
    }
}

/// Returns a path as a person reads it.
pub(super) fn shown(path: &Path) -> String {
    match path.as_os_str() == STANDARD {
        true => "standard input or output".to_owned(),
        false => path.display().to_string(),
    }
}

/// Path that stands for standard input, or for standard output.
pub(super) const STANDARD: &str = "-";
