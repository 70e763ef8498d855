//! Rows: what is asked about, one by one.

use std::sync::Arc;

use csv::ByteRecord;

use super::columns::Columns;

/// One row of the input.
#[derive(Debug)]
pub(super) struct Row {
    /// The values that the model gets: a JSON array in the order of the block's columns, or where the row has no columns
    /// any JSON value. An error says why the row cannot be sent.
    pub(super) values: Result<Box<str>, String>,
    pub(super) original: Original,
}

/// A row as it stood in the input, kept where the output has the same format.
#[derive(Debug)]
pub(super) enum Original {
    /// The output is made from the values.
    None,
    /// The line of a JSONL file, without blanks around it. It is an object.
    Line(Box<str>),
    /// The record of a CSV file.
    Record(ByteRecord),
}

/// A row with its columns; without them it is a bare value, or cannot be sent.
#[derive(Debug)]
pub(super) struct ReadRow {
    pub(super) row: Row,
    pub(super) columns: Option<Arc<Columns>>,
}

impl Row {
    /// Makes a row that cannot be sent.
    pub(super) fn unsendable(reason: String, original: Original) -> Self {
        Self { values: Err(reason), original }
    }

    /// Returns the bytes that the row takes in memory, about.
    pub(super) fn size(&self) -> usize {
        let original = match &self.original {
            Original::None => 0,
            Original::Line(line) => line.len(),
            Original::Record(record) => record.as_slice().len() + 8 * record.len(),
        };
        self.values.as_ref().map_or_else(String::len, |values| values.len()) + original + size_of::<Self>()
    }
}
