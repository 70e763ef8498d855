//! Faults of models that cannot be had.

use std::fmt::Display;

use crate::message::{Code, Fault, Stage};

/// Builds the fault of a model or version that does not exist.
pub(super) fn not_found(message: impl Into<String>) -> Fault {
    Fault::permanent(Code::ResourceDoesNotExist, Stage::Load, message)
}

/// Adds what to do to the fault of a registry that knows no such model, in whose own words there is nothing of that.
pub(super) fn with_cure(fault: Fault) -> Fault {
    if fault.code != Code::ResourceDoesNotExist || fault.message.contains("; ") {
        return fault;
    }
    let said = fault.message.trim_end_matches('.');
    Fault {
        message: format!("{said}; register it, or correct the route's model_uri or registry.tracking_uri"),
        ..fault
    }
}

/// Builds the fault of something that is not there now, and may be another time.
pub(super) fn unavailable(message: impl Into<String>) -> Fault {
    Fault::passing(Code::TemporarilyUnavailable, Stage::Load, message)
}

/// Builds the fault of a model whose load may do better another time.
pub(super) fn cannot_load(shown: &str, why: impl Display) -> Fault {
    unavailable(format!("{shown} cannot be loaded: {why}"))
}
