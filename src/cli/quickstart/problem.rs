//! The problems that end the quickstart, each in one line for the person in front of it.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

/// Holds one clear line, and the status that the process ends with.
#[derive(Debug)]
pub(super) struct QuickstartProblem {
    message: String,
    status: u8,
}

impl QuickstartProblem {
    /// Reports something that is needed and not there: Python, the network, a free port, MLflow (`EX_UNAVAILABLE`).
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: 69 }
    }

    /// Reports a failure of the disk (`EX_IOERR`).
    pub(super) fn disk(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: 74 }
    }

    /// Reports a file or directory that cannot be made.
    pub(super) fn cannot_write(path: &Path, error: &std::io::Error) -> Self {
        Self::disk(format!("cannot write {}: {error}", path.display()))
    }

    /// Returns the status that the process ends with.
    pub(super) fn status(&self) -> u8 {
        self.status
    }
}

impl Display for QuickstartProblem {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}
