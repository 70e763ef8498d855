//! Faults of models that cannot be had.

use std::fmt::Display;

use crate::message::{Code, Fault, Stage};

/// Builds the fault of a model or version that does not exist.
pub(super) fn not_found(message: impl Into<String>) -> Fault {
    Fault::permanent(Code::ResourceDoesNotExist, Stage::Load, message)
}

/// Builds the fault of something that is not there now, and may be another time.
pub(super) fn unavailable(message: impl Into<String>) -> Fault {
    Fault::passing(Code::TemporarilyUnavailable, Stage::Load, message)
}

/// Builds the fault of a model whose load may do better another time.
pub(super) fn cannot_load(shown: &str, why: impl Display) -> Fault {
    unavailable(format!("{shown} cannot be loaded: {why}"))
}
