//! Python's operations on values: each function here has the meaning of one of Python's.

mod builtins;
pub(super) mod collections;
pub(super) mod functions;
pub(super) mod operators;
mod strings;
