//! Failures to fetch a version's files.

use std::io;

use super::manifest::MLMODEL;
use crate::message::Fault;
use crate::models::registry::not_found;

/// Failure to fetch a version's files.
#[derive(Debug)]
pub(super) enum FetchError {
    /// A fault of the registry or the artifact store.
    Fault(Fault),
    /// A failure of the disk that holds the cache.
    Disk(io::Error),
}

/// Builds the fault of artifacts that hold no model.
pub(super) fn no_model(place: &str) -> Fault {
    not_found(format!("there is no model in the artifacts at {place}: they have no {MLMODEL}"))
}

impl From<Fault> for FetchError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}
