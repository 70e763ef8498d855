//! Outputs: each answer beside its row, in the order of the input.
//!
//! While a run goes on, answers are appended to `OUT.partial`, and a checkpoint says from time to time how much of that
//! is for good. What can be appended to is written as it will be: JSONL, and CSV from CSV. CSV and Parquet that need to
//! know all rows first (their columns, and the columns' types) are made of JSON lines at the end, so that neither kills
//! nor the time of checkpoints have a part in what comes out.

mod conversion;
mod line;
mod place;
mod record;
mod writer;

#[cfg(test)]
mod tests;

use super::format::Format;
pub(super) use conversion::Conversion;
pub(super) use place::{Finished, Place};
pub(super) use writer::Writer;

/// Form in which answers are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Staging {
    /// A JSON object a row, with its columns.
    Lines,
    /// A CSV record a row, with the cells of the input.
    Records,
    /// A prediction a row; its columns are read again at the end.
    Predictions,
}

impl Staging {
    /// Chooses the form by the formats of input and output.
    pub(super) fn of(input: Format, output: Format) -> Self {
        match (input, output) {
            (Format::Csv, Format::Csv) => Self::Records,
            (Format::Parquet, Format::Parquet) => Self::Predictions,
            _ => Self::Lines,
        }
    }

    /// Tells whether rows are needed as they stand in the input.
    pub(super) fn needs_originals(input: Format, output: Format) -> bool {
        input == output && input != Format::Parquet
    }
}
