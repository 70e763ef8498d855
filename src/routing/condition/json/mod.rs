//! JSON, read as Python's `json` reads it.
//!
//! Models read their requests with Python's `json`, so a body that they answer is read here as well, and as the same:
//! in UTF-8, UTF-16 or UTF-32, with a byte order mark or without ([`encoding`]); with `NaN`, `Infinity` and floats
//! beyond all bounds; with halves of characters in its text ([`text`]); and of a key that is written twice the last
//! value counts ([`repeats`]). Values beside the path to a value are checked for their form up to there, and not read.

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

/// Most levels of a value that is read. A value that is skipped may be nested to any depth.
pub(super) const DEEPEST: usize = 500;

/// Words of the error of a value that is nested deeper.
pub(super) const TOO_DEEP: &str = "it is nested deeper than 500 levels";

/// The `NaN` of JSON, which is one object in Python: so it is found in a list although it does not equal itself.
/// Computing never gives this one.
pub(super) const NAN: f64 = f64::from_bits(0x7ff8_0000_4a53_4f4e);

/// Reads a whole document.
///
/// # Errors
/// Fails when Python would not read the document, or its nesting is too deep.
pub(super) fn read(document: &[u8]) -> Result<Value> {
    let read = || {
        let mut cursor = Cursor::new(document);
        let value = cursor.value()?;
        cursor.end()?;
        Ok(value)
    };
    read().map_err(|broken: JsonError| broken.of(document))
}

/// The error that keeps a document from being read, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonError {
    what: &'static str,
    /// Offset of the error, in bytes from the start.
    at: usize,
}

impl JsonError {
    /// Converts the error to one of a condition.
    pub(super) fn of(self, document: &[u8]) -> ConditionError {
        if document.is_empty() {
            return ConditionError::Failed("400 Bad Request: the body is empty".to_owned());
        }
        ConditionError::Failed(format!("400 Bad Request: the body cannot be read as JSON: {self}"))
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at byte {}", self.what, self.at)
    }
}
