//! Failures of commands, each with a text for the person in front of it, and an exit code by the names of `sysexits.h`.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use crate::app::AppError;
use crate::batch::BatchError;
use crate::config::Report;
use crate::redrive::RedriveError;

/// Exit code for a wrong config or command line.
pub(super) const USAGE: u8 = 64;
/// Exit code for something that is needed and not there: the broker, a port, an interpreter.
const UNAVAILABLE: u8 = 69;
/// Exit code for a defect of Signalbox itself.
const SOFTWARE: u8 = 70;
/// Exit code for a failure of the disk.
const IO: u8 = 74;
/// Exit code for work that is not done yet: the same command goes on with it.
pub(super) const UNFINISHED: u8 = 75;

/// Holds a text, and the code that the process ends with.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    pub(super) code: u8,
}

impl Failure {
    /// Reports a wrong config or command line.
    pub(super) fn usage(message: impl Display) -> Self {
        Self { message: message.to_string(), code: USAGE }
    }

    /// Reports something that is needed and not there.
    pub(super) fn unavailable(message: impl Display) -> Self {
        Self { message: message.to_string(), code: UNAVAILABLE }
    }

    /// Reports a defect of Signalbox itself.
    pub(super) fn software(message: impl Display) -> Self {
        Self { message: message.to_string(), code: SOFTWARE }
    }

    /// Reports a failure of the disk.
    pub(super) fn disk(message: impl Display) -> Self {
        Self { message: message.to_string(), code: IO }
    }

    /// Reports work that is not done yet.
    pub(super) fn unfinished(message: impl Display) -> Self {
        Self { message: message.to_string(), code: UNFINISHED }
    }

    /// Reports a file or directory that cannot be made.
    pub(super) fn cannot_write(path: &Path, error: &std::io::Error) -> Self {
        Self::disk(format_args!("cannot write {}: {error}", path.display()))
    }

    /// Puts before the text what comes of it.
    pub(super) fn because(self, consequence: &str) -> Self {
        Self { message: format!("{consequence}: {}", self.message), ..self }
    }

    /// Puts the name of the command before the text.
    pub(super) fn of(self, command: &str) -> Self {
        Self { message: format!("{command}: {}", self.message), ..self }
    }
}

impl Display for Failure {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Self::usage(report)
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        let failure = match error {
            AppError::Config(_) => Self::usage(error),
            AppError::Broker(_) | AppError::Models(_) | AppError::Shim(_) => Self::unavailable(error),
            AppError::Failed(_) => Self::software(error),
        };
        failure.of("signalbox")
    }
}

impl From<RedriveError> for Failure {
    fn from(error: RedriveError) -> Self {
        let failure = match error {
            RedriveError::Embedded => Self::usage(error),
            _ => Self::unavailable(error),
        };
        failure.of("signalbox")
    }
}

impl From<BatchError> for Failure {
    fn from(error: BatchError) -> Self {
        let failure = match error {
            BatchError::Usage(_) => Self::usage(error),
            BatchError::Broker(_) | BatchError::Unavailable(_) => Self::unavailable(error),
            BatchError::File(_) => Self::disk(error),
            BatchError::Unfinished(_) => Self::unfinished(error),
        };
        failure.of("signalbox batch")
    }
}
