//! CSV: records under a line of names, whose cells get the type of their column.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::{ByteRecord, Reader, ReaderBuilder};

use crate::batch::block::RowSource;
use crate::batch::column_type::ColumnType;
use crate::batch::columns::Columns;
use crate::batch::error::BatchError;
use crate::batch::row::{Original, ReadRow, Row};

/// Records by which the types are found where the input can be read only once.
const SAMPLE: usize = 10_000;

/// Bytes that are read at once.
const BUFFER: usize = 1 << 20;

/// Byte order mark, with which some programs begin a file.
const MARK: &str = "\u{feff}";

/// Reads the records of a CSV file.
pub(super) struct Records<R> {
    reader: Reader<R>,
    /// Path of the file, for errors.
    path: PathBuf,
    pub(super) columns: Arc<Columns>,
    pub(super) types: Vec<ColumnType>,
    /// Records that were read to find the types.
    sample: VecDeque<ByteRecord>,
    keeps_records: bool,
    bytes: u64,
}

/// Opens a CSV file; its types are found from all of it, unless they are known.
pub(super) fn open_file(
    file: File,
    path: &Path,
    text: &[String],
    known: Option<&[ColumnType]>,
    keeps_records: bool,
) -> Result<Records<File>, BatchError> {
    let mut records = Records::new(file, path, keeps_records)?;
    let begin = records.reader.position().clone();
    records.types = match known {
        Some(known) => known.to_vec(),
        None => {
            let mut types = vec![ColumnType::Null; records.columns.names().len()];
            let mut record = ByteRecord::new();
            while records.read(&mut record)? {
                note(&mut types, &record);
            }
            let sought = records.reader.seek(begin);
            sought.map_err(|error| BatchError::reading(path, error))?;
            types
        }
    };
    records.force_text(text)?;
    Ok(records)
}

/// Opens CSV that can be read only once; its types are found from its first records, unless they are known.
pub(super) fn open_stream<R: Read + Send>(
    reader: R,
    path: &Path,
    text: &[String],
    known: Option<&[ColumnType]>,
    keeps_records: bool,
) -> Result<Records<R>, BatchError> {
    let mut records = Records::new(reader, path, keeps_records)?;
    records.types = match known {
        Some(known) => known.to_vec(),
        None => {
            let mut types = vec![ColumnType::Null; records.columns.names().len()];
            let mut record = ByteRecord::new();
            while records.sample.len() < SAMPLE && records.read(&mut record)? {
                note(&mut types, &record);
                records.sample.push_back(record.clone());
            }
            // A column that is empty so far may hold anything later.
            let known = |found| if found == ColumnType::Null { ColumnType::Text } else { found };
            types.into_iter().map(known).collect()
        }
    };
    records.force_text(text)?;
    Ok(records)
}

/// Widens the types by the cells of a record.
fn note(types: &mut [ColumnType], record: &ByteRecord) {
    for (known, cell) in types.iter_mut().zip(record) {
        // A column of text stays one whatever comes.
        if *known != ColumnType::Text {
            let found = std::str::from_utf8(cell).map_or(ColumnType::Text, ColumnType::of_cell);
            *known = known.widen(found, ColumnType::Text);
        }
    }
}

impl<R: Read> Records<R> {
    fn new(reader: R, path: &Path, keeps_records: bool) -> Result<Self, BatchError> {
        let mut reader = ReaderBuilder::new().flexible(true).buffer_capacity(BUFFER).from_reader(reader);
        let names = reader.headers().map_err(|error| BatchError::reading(path, error))?;
        let strip = |(index, name): (usize, &str)| match index {
            0 => name.strip_prefix(MARK).unwrap_or(name).to_owned(),
            _ => name.to_owned(),
        };
        let columns = Columns::new(names.iter().enumerate().map(strip).collect());
        let columns = columns.map_err(|reason| BatchError::usage(format!("{}: {reason}", path.display())))?;
        if columns.names().is_empty() {
            return Err(BatchError::usage(format!(
                "{}: a CSV file begins with the names of its columns",
                path.display()
            )));
        }
        Ok(Self {
            bytes: reader.position().byte(),
            reader,
            path: path.to_owned(),
            columns: Arc::new(columns),
            types: Vec::new(),
            sample: VecDeque::new(),
            keeps_records,
        })
    }

    fn force_text(&mut self, text: &[String]) -> Result<(), BatchError> {
        for name in text {
            match self.columns.position(name) {
                Some(index) => self.types[index] = ColumnType::Text,
                None => return Err(BatchError::usage(super::no_such_column("--text", name, &self.columns))),
            }
        }
        Ok(())
    }

    fn read(&mut self, record: &mut ByteRecord) -> Result<bool, BatchError> {
        self.reader.read_byte_record(record).map_err(|error| BatchError::reading(&self.path, error))
    }

    fn values(&self, record: &ByteRecord) -> Result<Box<str>, String> {
        let (found, expected) = (record.len(), self.types.len());
        if found != expected {
            return Err(format!("the record has {found} cells, and the first line names {expected} columns"));
        }
        let mut values = Vec::with_capacity(record.as_slice().len() + 3 * expected + 2);
        for (index, (cell, column)) in record.iter().zip(&self.types).enumerate() {
            values.push(if index == 0 { b'[' } else { b',' });
            let written = match std::str::from_utf8(cell) {
                Ok(cell) => column.push_cell(&mut values, cell),
                Err(_) => Err("the cell is not UTF-8 text".to_owned()),
            };
            written.map_err(|reason| format!("column '{}': {reason}", self.columns.names()[index]))?;
        }
        values.push(b']');
        String::from_utf8(values).map(String::into_boxed_str).map_err(|error| error.to_string())
    }
}

impl Records<File> {
    /// Goes to the record that begins after this many bytes.
    pub(super) fn seek(&mut self, bytes: u64) -> Result<(), BatchError> {
        let mut position = self.reader.position().clone();
        position.set_byte(bytes);
        let sought = self.reader.seek_raw(SeekFrom::Start(bytes), position);
        sought.map_err(|error| BatchError::reading(&self.path, error))?;
        self.bytes = bytes;
        Ok(())
    }
}

impl<R: Read + Send> RowSource for Records<R> {
    fn next_row(&mut self) -> Result<Option<ReadRow>, BatchError> {
        let record = match self.sample.pop_front() {
            Some(record) => record,
            None => {
                let mut record = ByteRecord::new();
                if !self.read(&mut record)? {
                    return Ok(None);
                }
                self.bytes = self.reader.position().byte();
                record
            }
        };
        let values = self.values(&record);
        let columns = values.is_ok().then(|| Arc::clone(&self.columns));
        let original = if self.keeps_records { Original::Record(record) } else { Original::None };
        Ok(Some(ReadRow { row: Row { values, original }, columns }))
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    fn values<R: Read + Send>(records: &mut Records<R>) -> Vec<Result<String, String>> {
        std::iter::from_fn(|| records.next_row().unwrap()).map(|row| row.row.values.map(Into::into)).collect()
    }

    fn file(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn cells_have_the_type_of_their_whole_column() {
        let text = "\u{feff}id,zip,score,name,flag\n1,01234,1,\"a,\"\"b\"\"\",True\n\n2,12345,2.5,,false\n3,,,x,\n";
        let mut records = open_file(file(text), Path::new("in.csv"), &[], None, false).unwrap();
        assert_eq!(records.columns.json(), r#"["id","zip","score","name","flag"]"#);
        let expected =
            [r#"[1,"01234",1,"a,\"b\"",true]"#, r#"[2,"12345",2.5,null,false]"#, r#"[3,null,null,"x",null]"#];
        assert_eq!(values(&mut records), expected.map(|row| Ok(row.to_owned())));
        let text_columns = ["id".to_owned()];
        let mut records = open_file(file(text), Path::new("in.csv"), &text_columns, None, false).unwrap();
        assert!(values(&mut records)[0].as_ref().unwrap().starts_with("[\"1\","));
        let error = open_file(file(text), Path::new("in.csv"), &["ids".to_owned()], None, false).err().unwrap();
        assert!(error.to_string().starts_with("--text: there is no column 'ids'"), "{error}");
    }

    #[test]
    fn stream_has_the_types_of_its_first_records() {
        let text = "a,b\n1,x\n2,y\n";
        let mut records = open_stream(text.as_bytes(), Path::new("-"), &[], None, false).unwrap();
        let types = records.types.clone();
        assert_eq!(values(&mut records), [Ok("[1,\"x\"]".to_owned()), Ok("[2,\"y\"]".to_owned())]);
        let later = "a,b\n1,x\nthree,y\n4\n";
        let mut records = open_stream(later.as_bytes(), Path::new("-"), &[], Some(&types), false).unwrap();
        let rows = values(&mut records);
        assert_eq!(rows[1], Err("column 'a': 'three' is no integer, as those before it".to_owned()));
        assert_eq!(rows[2], Err("the record has 1 cells, and the first line names 2 columns".to_owned()));
    }

    #[test]
    fn file_goes_on_after_any_of_its_records() {
        for line_end in ["\n", "\r\n"] {
            let text = ["a,b", "1,\"two\nlines\"", "2,x", "3,y", ""].join(line_end);
            let mut records = open_file(file(&text), Path::new("in.csv"), &[], None, false).unwrap();
            let mut ends = vec![records.bytes()];
            while records.next_row().unwrap().is_some() {
                ends.push(records.bytes());
            }
            let all = values(&mut open_file(file(&text), Path::new("in.csv"), &[], None, false).unwrap());
            for (done, end) in ends.into_iter().enumerate() {
                let types = [ColumnType::Int, ColumnType::Text];
                let mut rest = open_file(file(&text), Path::new("in.csv"), &[], Some(&types), false).unwrap();
                rest.seek(end).unwrap();
                assert_eq!(values(&mut rest), all[done..], "{done}");
            }
        }
    }
}
