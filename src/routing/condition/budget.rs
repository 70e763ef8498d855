//! The budget of work for one evaluation.
//!
//! The length of a condition bounds the nodes of its tree, but an operation can walk a long list or build a long string,
//! and a comprehension evaluates its nodes for each element. Each charges its work before doing it. One unit is about one
//! node, one element looked at or eight bytes of text, some nanoseconds up to some tens of them; so an evaluation takes
//! some tens of milliseconds and megabytes at worst, and as much again for each megabyte of payload.

use std::cell::Cell;

use super::error::{ConditionError, Result};

/// Units that an evaluation may spend, beside one for each byte of the payload: reading that once is always allowed.
const ALLOWANCE: usize = 1_000_000;
/// Bytes of text that one unit pays for.
const BYTES_PER_UNIT: usize = 8;

thread_local! {
    /// Units left of this thread's evaluation. An evaluation runs on one thread from start to end, so the rest of its
    /// budget need not be handed through every operation.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Starts an evaluation over a payload of this many bytes.
pub(super) fn start(payload: usize) {
    LEFT.set(ALLOWANCE.saturating_add(payload));
}

/// Pays for looking at, or making, this many elements.
pub(super) fn charge(elements: usize) -> Result<()> {
    match LEFT.get().checked_sub(elements) {
        Some(left) => {
            LEFT.set(left);
            Ok(())
        }
        None => {
            LEFT.set(0);
            Err(ConditionError::Exceeded("the condition does more work than one decision may take".to_owned()))
        }
    }
}

/// Pays for reading, or making, this many bytes of text.
pub(super) fn charge_text(bytes: usize) -> Result<()> {
    charge(bytes / BYTES_PER_UNIT + 1)
}
