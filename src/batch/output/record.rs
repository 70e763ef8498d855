//! Records: a CSV record with its answer as one more cell.

use std::borrow::Cow;

use csv::WriterBuilder;

use crate::batch::columns::Columns;
use crate::batch::json;
use crate::batch::row::{Original, Row};

/// Writer of records to memory, which has them all when it is dropped.
pub(super) type CsvWriter<'a> = csv::Writer<&'a mut Vec<u8>>;

/// Writes the records of a CSV file, the cells as they came.
#[derive(Debug)]
pub(super) struct RecordWriter {
    /// Places of the cells that are taken.
    places: Vec<usize>,
    names: Vec<String>,
}

impl RecordWriter {
    /// Takes all columns, or some of them.
    pub(super) fn new(columns: &Columns, wanted: Option<&[String]>, prediction: &str) -> Self {
        let places: Vec<usize> = match wanted {
            None => (0..columns.names().len()).collect(),
            Some(wanted) => wanted.iter().filter_map(|name| columns.position(name)).collect(),
        };
        let names = places.iter().map(|place| columns.names()[*place].clone());
        Self { names: names.chain([prediction.to_owned()]).collect(), places }
    }

    /// Appends the names.
    pub(super) fn write_names(&self, out: &mut CsvWriter<'_>) {
        push_record(out, self.names.iter().map(String::as_bytes));
    }

    /// Appends a row with its prediction. Cells that a short record lacks are empty.
    pub(super) fn write(&self, out: &mut CsvWriter<'_>, row: &Row, prediction: &[u8]) {
        let record = match &row.original {
            Original::Record(record) => Some(record),
            Original::None | Original::Line(_) => None,
        };
        let cells = self.places.iter().map(|place| record.and_then(|record| record.get(*place)).unwrap_or_default());
        let prediction = std::str::from_utf8(prediction).unwrap_or_default();
        push_record(out, cells.chain([cell(prediction).as_bytes()]));
    }
}

/// Begins to append records.
pub(super) fn records(out: &mut Vec<u8>) -> CsvWriter<'_> {
    WriterBuilder::new().flexible(true).from_writer(out)
}

/// Appends a record.
pub(super) fn push_record<'a>(out: &mut CsvWriter<'_>, cells: impl Iterator<Item = &'a [u8]>) {
    // Writing to a vector cannot fail, and records may have any length.
    let _ = out.write_record(cells);
}

/// Writes a JSON value as a cell: text as it is, null as nothing, lists and objects as JSON.
pub(super) fn cell(value: &str) -> Cow<'_, str> {
    match value {
        "null" => Cow::Borrowed(""),
        _ => json::text(value).unwrap_or(Cow::Borrowed(value)),
    }
}

#[cfg(test)]
mod tests {
    use csv::ByteRecord;

    use super::*;

    fn written(write: impl FnOnce(&mut CsvWriter<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut records(&mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn cells_are_kept_as_they_came() {
        let columns = Columns::new(["id", "text", "n"].map(str::to_owned).to_vec()).unwrap();
        let record = ByteRecord::from(vec![&b"01"[..], b"a, \"b\"\n", b"1.50"]);
        let row = Row { values: Ok("[]".into()), original: Original::Record(record) };
        let writer = RecordWriter::new(&columns, None, "p");
        let out = written(|out| {
            writer.write_names(out);
            writer.write(out, &row, b"{\"a\": 1}");
            writer.write(out, &row, b"\"x\"");
            writer.write(out, &row, b"null");
        });
        let expected = "id,text,n,p\n01,\"a, \"\"b\"\"\n\",1.50,\"{\"\"a\"\": 1}\"\n01,\"a, \"\"b\"\"\n\",1.50,x\n01,\"a, \
                        \"\"b\"\"\n\",1.50,\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn some_columns_are_in_the_order_asked_for() {
        let columns = Columns::new(["id", "text"].map(str::to_owned).to_vec()).unwrap();
        let short = ByteRecord::from(vec![&b"1"[..]]);
        let row = Row::unsendable(String::new(), Original::Record(short));
        let wanted = ["text".to_owned(), "id".to_owned()];
        let out = written(|out| {
            RecordWriter::new(&columns, Some(&wanted), "p").write(out, &row, b"7");
            RecordWriter::new(&columns, Some(&[]), "p").write(out, &row, b"null");
        });
        assert_eq!(out, ",1,7\n\"\"\n");
    }
}
