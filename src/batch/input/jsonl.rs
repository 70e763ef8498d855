//! JSONL: one JSON value a line. An object is a row with columns; any other value is a row without.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::batch::block::RowSource;
use crate::batch::columns::Columns;
use crate::batch::error::BatchError;
use crate::batch::json::Members;
use crate::batch::row::{Original, ReadRow, Row};

/// Bytes of the longest line; a longer one can be no request, and is not to fill the memory.
const LONGEST_LINE: u64 = 64 << 20;

/// Bytes that are read at once.
const BUFFER: usize = 1 << 20;

/// Byte order mark, with which some programs begin a file.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads the lines of a JSONL file.
pub(super) struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    /// True if lines come when they like, and those that have come are not to wait for them.
    is_stream: bool,
    /// Path of the file, for errors.
    path: PathBuf,
    /// Bytes up to the last line that was read.
    bytes: u64,
    /// Lines that were read here, for errors.
    lines: u64,
    parser: LineParser,
    line: Vec<u8>,
}

/// Makes rows of lines.
struct LineParser {
    /// Column that rows must not have.
    reserved: Option<String>,
    keeps_lines: bool,
    /// Columns of the last row.
    columns: Option<Arc<Columns>>,
}

impl Lines {
    /// Reads lines, of which the first begins after this many bytes of the file.
    pub(super) fn new(
        reader: Box<dyn Read + Send>,
        is_stream: bool,
        path: PathBuf,
        bytes: u64,
        reserved: Option<String>,
        keeps_lines: bool,
    ) -> Self {
        let parser = LineParser { reserved, keeps_lines, columns: None };
        let reader = BufReader::with_capacity(BUFFER, reader);
        Self { reader, is_stream, path, bytes, lines: 0, parser, line: Vec::new() }
    }
}

impl RowSource for Lines {
    fn next_row(&mut self) -> Result<Option<ReadRow>, BatchError> {
        self.line.clear();
        let read = self.reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut self.line);
        let read = read.map_err(|error| BatchError::reading(&self.path, error))? as u64;
        if read == 0 {
            return Ok(None);
        }
        self.lines += 1;
        if read == LONGEST_LINE && self.line.last() != Some(&b'\n') {
            return Err(BatchError::usage(format!(
                "{}: a line is longer than {} MiB, {} lines on; is this JSONL?",
                self.path.display(),
                LONGEST_LINE >> 20,
                self.lines
            )));
        }
        let is_first = self.bytes == 0;
        self.bytes += read;
        let line = self.line.strip_prefix(MARK).filter(|_| is_first).unwrap_or(&self.line);
        let row = match std::str::from_utf8(line) {
            Ok(line) => self.parser.parse(line.trim_ascii()),
            Err(_) => Err("the line is not UTF-8 text".to_owned()),
        };
        match row {
            Ok(row) => Ok(Some(row)),
            // A clash that begins with the first row is one of the whole input.
            Err(reason) if is_first && reason.contains("--prediction") => Err(BatchError::usage(reason)),
            Err(reason) => Ok(Some(ReadRow { row: Row::unsendable(reason, Original::None), columns: None })),
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn has_row_now(&self) -> bool {
        !self.is_stream || self.reader.buffer().contains(&b'\n')
    }
}

impl LineParser {
    fn parse(&mut self, line: &str) -> Result<ReadRow, String> {
        if line.is_empty() {
            return Err("the line is empty".to_owned());
        }
        if !line.starts_with('{') {
            let value: &RawValue =
                serde_json::from_str(line).map_err(|error| format!("the line is no JSON: {error}"))?;
            return Ok(ReadRow {
                row: Row { values: Ok(value.get().into()), original: Original::None },
                columns: None,
            });
        }
        let Members(members) = serde_json::from_str(line).map_err(|error| format!("the line is no JSON: {error}"))?;
        let columns = match &self.columns {
            // Rows of one file mostly have the columns of the row before.
            Some(columns) if columns.names().iter().eq(members.iter().map(|(name, _)| name)) => Arc::clone(columns),
            _ => {
                let columns = Columns::new(members.iter().map(|(name, _)| name.clone().into_owned()).collect())?;
                check_reserved(&columns, self.reserved.as_deref())?;
                Arc::clone(self.columns.insert(Arc::new(columns)))
            }
        };
        let mut values = String::with_capacity(line.len());
        for (index, (_, value)) in members.iter().enumerate() {
            values.push(if index == 0 { '[' } else { ',' });
            values.push_str(value.get());
        }
        values.push_str(if members.is_empty() { "[]" } else { "]" });
        let original = if self.keeps_lines { Original::Line(line.into()) } else { Original::None };
        Ok(ReadRow { row: Row { values: Ok(values.into()), original }, columns: Some(columns) })
    }
}

/// Refuses columns among which is the one that the answers go to.
pub(super) fn check_reserved(columns: &Columns, reserved: Option<&str>) -> Result<(), String> {
    match reserved.filter(|name| columns.position(name).is_some()) {
        Some(name) => Err(format!(
            "the input has a column '{name}', where the answer is to go; give the answers another name with --prediction, \
             or leave that column out with --columns"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Vec<ReadRow> {
        let mut lines =
            Lines::new(Box::new(text.as_bytes()), false, "in.jsonl".into(), 0, Some("prediction".to_owned()), true);
        std::iter::from_fn(|| lines.next_row().unwrap()).collect()
    }

    #[test]
    fn lines_are_rows_with_columns_or_without() {
        let rows = read("\u{feff}{\"a\": 1.0, \"b\": \"x\"}\r\n  {\"a\":2,\"b\":null} \n[1, 2]\n\"text\"\n{}");
        let values: Vec<_> = rows.iter().map(|row| row.row.values.as_deref().unwrap()).collect();
        assert_eq!(values, ["[1.0,\"x\"]", "[2,null]", "[1, 2]", "\"text\"", "[]"]);
        assert_eq!(rows[0].columns, rows[1].columns);
        assert!(Arc::ptr_eq(rows[0].columns.as_ref().unwrap(), rows[1].columns.as_ref().unwrap()));
        assert_eq!((rows[2].columns.clone(), rows[4].columns.as_ref().unwrap().json()), (None, "[]"));
        assert!(matches!(&rows[1].row.original, Original::Line(line) if &**line == "{\"a\":2,\"b\":null}"));
    }

    #[test]
    fn line_that_is_no_row_says_why() {
        let rows = read("{\"a\": 1}\n\n{\"a\": \n{\"a\": 1, \"a\": 2}\n{\"prediction\": 1}\nnul\n");
        let reasons: Vec<_> = rows.iter().filter_map(|row| row.row.values.as_ref().err()).collect();
        assert_eq!(reasons[0], "the line is empty");
        assert!(reasons[1].starts_with("the line is no JSON: EOF while parsing"), "{}", reasons[1]);
        assert_eq!(reasons[2], "column 'a' is there twice");
        assert!(reasons[3].starts_with("the input has a column 'prediction'"), "{}", reasons[3]);
        assert_eq!(reasons.len(), 5);
        assert_eq!(rows.len(), 6);
    }

    #[test]
    fn clash_in_the_first_line_ends_the_run() {
        let text = "{\"prediction\": 1}\n".as_bytes();
        let mut lines = Lines::new(Box::new(text), false, "in.jsonl".into(), 0, Some("prediction".to_owned()), true);
        assert!(matches!(lines.next_row(), Err(BatchError::Usage(_))));
        let mut lines = Lines::new(Box::new(text), false, "in.jsonl".into(), 0, None, true);
        assert!(lines.next_row().unwrap().unwrap().row.values.is_ok());
    }
}
