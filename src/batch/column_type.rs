//! Types of columns, found from their values: of CSV's cells, which are text, and of what is written to Parquet.

use serde::{Deserialize, Serialize};

use super::json;

/// Digits of the longest integer that every reader takes for a number.
const INTEGER_DIGITS: usize = 18;

/// Cells that stand for a missing number, as pandas reads them. In a column of text they are text.
const MISSING: [&str; 17] = [
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "nan", "null",
];

/// Type of all values of a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ColumnType {
    /// Type of a column of which no value but null has been seen.
    #[default]
    Null,
    Bool,
    Int,
    Double,
    Text,
    /// Values of several types, or lists and objects.
    Json,
}

impl ColumnType {
    /// Finds the type of a JSON value.
    pub(super) fn of_value(value: &str) -> Self {
        match value.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Bool,
            Some(b'"') => Self::Text,
            Some(b'[' | b'{') => Self::Json,
            _ if value.parse::<i64>().is_ok() => Self::Int,
            // An integer that no 64 bits hold would lose digits.
            _ if value.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()) => Self::Json,
            _ => Self::Double,
        }
    }

    /// Finds the type of a cell of a CSV file. A number with leading zeros, or with more digits than a number keeps, is
    /// a name and stays text.
    pub(super) fn of_cell(cell: &str) -> Self {
        let first = cell.bytes().next();
        let digits = cell.strip_prefix(['-', '+']).unwrap_or(cell);
        match first {
            None => Self::Null,
            Some(b'0'..=b'9' | b'-' | b'+' | b'.') if has_leading_zero(digits) => Self::Text,
            Some(b'0'..=b'9' | b'-' | b'+') if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.len() {
                1..=INTEGER_DIGITS => Self::Int,
                _ => Self::Text,
            },
            Some(b'0'..=b'9' | b'-' | b'+' | b'.') if is_finite(cell) => Self::Double,
            Some(b't' | b'T' | b'f' | b'F') if boolean(cell).is_some() => Self::Bool,
            _ if MISSING.contains(&cell) => Self::Null,
            _ => Self::Text,
        }
    }

    /// Finds the type that takes the values of both, and `mixed` where only that does.
    pub(super) fn widen(self, other: Self, mixed: Self) -> Self {
        match (self, other) {
            (one, Self::Null) | (Self::Null, one) => one,
            (one, another) if one == another => one,
            (Self::Int, Self::Double) | (Self::Double, Self::Int) => Self::Double,
            _ => mixed,
        }
    }

    /// Appends a CSV file's cell as a JSON value of this type.
    ///
    /// # Errors
    /// When the cell has no value of this type.
    pub(super) fn push_cell(self, out: &mut Vec<u8>, cell: &str) -> Result<(), String> {
        let found = Self::of_cell(cell);
        let fits = match self {
            Self::Text | Self::Json => {
                match cell.is_empty() {
                    true => out.extend_from_slice(b"null"),
                    false => json::push_string(out, cell),
                }
                return Ok(());
            }
            _ if found == Self::Null => {
                out.extend_from_slice(b"null");
                return Ok(());
            }
            Self::Bool => boolean(cell).map(|value| out.extend_from_slice(if value { b"true" } else { b"false" })),
            Self::Int if found == Self::Int => {
                out.extend_from_slice(cell.strip_prefix('+').unwrap_or(cell).as_bytes());
                Some(())
            }
            Self::Double if matches!(found, Self::Int | Self::Double) => {
                push_number(out, cell);
                Some(())
            }
            Self::Null | Self::Int | Self::Double => None,
        };
        fits.ok_or_else(|| format!("'{cell}' is no {}", self.in_words()))
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Null => "missing value, as all before it",
            Self::Bool => "boolean, as those before it",
            Self::Int => "integer, as those before it",
            Self::Double => "number, as those before it",
            Self::Text | Self::Json => "text",
        }
    }
}

fn has_leading_zero(digits: &str) -> bool {
    let mut bytes = digits.bytes();
    bytes.next() == Some(b'0') && bytes.next().is_some_and(|second| second.is_ascii_digit())
}

fn is_finite(cell: &str) -> bool {
    cell.parse::<f64>().is_ok_and(f64::is_finite)
}

fn boolean(cell: &str) -> Option<bool> {
    match cell {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Appends a number as it is written if JSON writes it so too, else in JSON's own way.
fn push_number(out: &mut Vec<u8>, cell: &str) {
    match serde_json::from_str::<&serde_json::value::RawValue>(cell) {
        Ok(_) => out.extend_from_slice(cell.as_bytes()),
        Err(_) => {
            let _ = serde_json::to_writer(out, &cell.parse::<f64>().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(column: ColumnType, cell: &str) -> Result<String, String> {
        let mut out = Vec::new();
        column.push_cell(&mut out, cell).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn cells_have_the_types_that_pandas_gives_them() {
        use ColumnType::{Bool, Double, Int, Null, Text};
        for (cell, expected) in [
            ("", Null),
            ("NA", Null),
            ("1", Int),
            ("-12", Int),
            ("+5", Int),
            ("0", Int),
            ("1.50", Double),
            (".5", Double),
            ("1e5", Double),
            ("0.1", Double),
            ("01234", Text),
            ("-007", Text),
            ("00.5", Text),
            ("1234567890123456789", Text),
            ("inf", Text),
            ("1e999", Text),
            ("-", Text),
            ("1 ", Text),
            ("True", Bool),
            ("false", Bool),
            ("tRUE", Text),
            ("Namibia", Text),
        ] {
            assert_eq!(ColumnType::of_cell(cell), expected, "{cell}");
        }
    }

    #[test]
    fn cells_are_written_as_their_column_is() {
        use ColumnType::{Bool, Double, Int, Text};
        assert_eq!(written(Int, "+5").unwrap(), "5");
        assert_eq!(written(Double, "1.50").unwrap(), "1.50");
        assert_eq!(written(Double, ".5").unwrap(), "0.5");
        assert_eq!(written(Double, "7").unwrap(), "7");
        assert_eq!(written(Double, "NaN").unwrap(), "null");
        assert_eq!(written(Text, "NaN").unwrap(), "\"NaN\"");
        assert_eq!(written(Text, "").unwrap(), "null");
        assert_eq!(written(Text, "01").unwrap(), "\"01\"");
        assert_eq!(written(Bool, "TRUE").unwrap(), "true");
        assert_eq!(written(Int, "x").unwrap_err(), "'x' is no integer, as those before it");
        assert!(written(Int, "1.5").is_err() && written(Bool, "1").is_err());
    }

    #[test]
    fn values_widen_to_what_takes_them_all() {
        use ColumnType::{Bool, Double, Int, Json, Null, Text};
        let of =
            |values: &[&str]| values.iter().fold(Null, |found, value| found.widen(ColumnType::of_value(value), Json));
        assert_eq!(of(&["null", "1", "-2"]), Int);
        assert_eq!(of(&["1", "0.5"]), Double);
        assert_eq!(of(&["1e3"]), Double);
        assert_eq!(of(&["\"a\"", "null"]), Text);
        assert_eq!(of(&["true", "false"]), Bool);
        assert_eq!(of(&["1", "\"a\""]), Json);
        assert_eq!(of(&["[1]"]), Json);
        assert_eq!(of(&["18446744073709551615"]), Json, "a double would change its digits");
    }

    proptest! {
        #[test]
        fn any_cells_are_valid_json_in_the_column_they_make(cells in proptest::collection::vec(".{0,12}|-?[0-9]{1,20}(\\.[0-9]{1,3})?|True|NA|1e[0-9]{1,3}", 1..20)) {
            let column = cells.iter().fold(ColumnType::Null, |found, cell| {
                found.widen(ColumnType::of_cell(cell), ColumnType::Text)
            });
            for cell in &cells {
                let json = written(column, cell).unwrap();
                let value: serde_json::Value = serde_json::from_str(&json).unwrap();
                if column == ColumnType::Text && !cell.is_empty() {
                    prop_assert_eq!(value.as_str(), Some(cell.as_str()));
                }
            }
        }
    }
}
