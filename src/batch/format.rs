//! Formats of files.

use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Format of an input or an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON value a line.
    Jsonl,
    /// Comma-separated values under a line of names.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// Finds the format by the end of a file's name; None when that says nothing.
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" | "json" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            "parquet" | "pq" => Some(Self::Parquet),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_follows_from_the_end_of_the_name() {
        for (name, expected) in [
            ("a.jsonl", Some(Format::Jsonl)),
            ("a.b/c.CSV", Some(Format::Csv)),
            ("a.parquet", Some(Format::Parquet)),
            ("a.txt", None),
            ("csv", None),
        ] {
            assert_eq!(Format::of_path(Path::new(name)), expected, "{name}");
        }
    }
}
