//! JSON as Python's `json` reads it.
//!
//! That is what models are served with, so a body that they answer is read here as well, and as the same: in UTF-8,
//! UTF-16 or UTF-32, with a byte order mark or without ([`encoding`]); with `NaN`, `Infinity` and floats beyond all
//! bounds; with halves of characters in its text ([`text`]); and of a key that is written twice the last value counts
//! ([`repeats`]). What is beside the way to a value is checked for its form up to there, and not read.

mod cursor;
mod encoding;
mod repeats;
pub(super) mod text;
mod tree;

use std::fmt;

pub(super) use cursor::{Cursor, JsonKind};
pub(super) use encoding::{Encoding, transcoded};
pub(super) use repeats::SoughtKey;

use super::error::{ConditionError, Result};
use super::value::Value;

/// The deepest a value may be nested that is read. What is skipped may be nested as deep as it likes.
pub(super) const DEEPEST: usize = 500;

/// The `NaN` of JSON. In Python that is one object for ever, so it is found in a list although it does not equal
/// itself; computing never gives it.
pub(super) const NAN: f64 = f64::from_bits(0x7ff8_0000_4a53_4f4e);

/// Reads a whole document.
///
/// # Errors
/// When Python would not read it, or its nesting is too deep.
pub(super) fn read(document: &[u8]) -> Result<Value> {
    let read = || {
        let mut cursor = Cursor::new(document);
        let value = cursor.value()?;
        cursor.end()?;
        Ok(value)
    };
    read().map_err(|broken: JsonError| broken.of(document))
}

/// Why a document cannot be read: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonError {
    what: &'static str,
    /// In bytes from the start.
    at: usize,
}

impl JsonError {
    /// It as a condition's error.
    pub(super) fn of(self, document: &[u8]) -> ConditionError {
        if document.is_empty() {
            return ConditionError::Failed("the body is empty".to_owned());
        }
        ConditionError::Failed(format!("the body cannot be read as JSON: {self}"))
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at byte {}", self.what, self.at)
    }
}
