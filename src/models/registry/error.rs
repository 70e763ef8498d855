//! Errors and faults of the registry.

use crate::message::{Code, Fault, Stage};

/// Error for which the registry at a tracking URI cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The text is not an address.
    #[error("the tracking URI `{0}` ({1}) is not an address: {2}")]
    NotAnAddress(String, &'static str, String),
    /// No HTTP client can be made.
    #[error("no HTTP client for the registry can be made: {0}")]
    Client(String),
}

/// Builds the fault of a model or version that the registry does not have.
pub(in crate::models) fn not_found(message: String) -> Fault {
    Fault::permanent(Code::ResourceDoesNotExist, Stage::Load, message)
}

/// Builds the fault of a registry or artifact store that does not answer now.
pub(in crate::models) fn unavailable(message: String) -> Fault {
    Fault::passing(Code::TemporarilyUnavailable, Stage::Load, message)
}
