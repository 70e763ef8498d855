//! Parquet: rows of record batches, whose values are written as JSON.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_json::writer::{NullableEncoder, make_encoder};
use arrow_json::{Encoder, EncoderFactory, EncoderOptions};
use arrow_schema::{ArrowError, DataType, FieldRef, SchemaRef};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::batch::block::RowSource;
use crate::batch::columns::Columns;
use crate::batch::error::BatchError;
use crate::batch::row::{Original, ReadRow, Row};

/// Rows that are decoded at once.
const BATCH: usize = 1024;

/// Reads the rows of a Parquet file.
pub(super) struct ParquetRows {
    reader: ParquetRecordBatchReader,
    path: PathBuf,
    pub(super) columns: Arc<Columns>,
    options: EncoderOptions,
    /// Rows of the last record batch, the next one last.
    rows: Vec<Box<str>>,
}

/// Encodes binary values as MLflow reads them.
#[derive(Debug)]
struct Base64;

struct BinaryEncoder<'a>(&'a dyn Array);

/// Opens a Parquet file, for its record batches from this row on.
pub(in crate::batch) fn open(
    file: File,
    path: &Path,
    first: u64,
) -> Result<(ParquetRecordBatchReader, SchemaRef, u64), BatchError> {
    let unreadable = |error| BatchError::usage(format!("{} is no Parquet file: {error}", path.display()));
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(unreadable)?;
    let total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
    let schema = builder.schema().clone();
    let first = usize::try_from(first).unwrap_or(usize::MAX);
    let reader = builder.with_batch_size(BATCH).with_offset(first).build();
    Ok((reader.map_err(|error| BatchError::reading(path, error))?, schema, total))
}

impl ParquetRows {
    /// Reads the rows from this one on. Returns how many the file has beside.
    pub(super) fn open(file: File, path: &Path, first: u64) -> Result<(Self, u64), BatchError> {
        let (reader, schema, total) = open(file, path, first)?;
        let columns = Columns::new(schema.fields().iter().map(|field| field.name().clone()).collect());
        let columns = columns.map_err(|reason| BatchError::usage(format!("{}: {reason}", path.display())))?;
        let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Base64));
        let rows = Self { reader, path: path.to_owned(), columns: Arc::new(columns), options, rows: Vec::new() };
        Ok((rows, total))
    }

    fn encode(&self, batch: &RecordBatch) -> Result<Vec<Box<str>>, ArrowError> {
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns());
        let encoders = columns.map(|(field, values)| make_encoder(field, values, &self.options));
        let mut encoders = encoders.collect::<Result<Vec<_>, _>>()?;
        let row = |index| {
            let mut values = vec![b'['];
            for (column, encoder) in encoders.iter_mut().enumerate() {
                if column > 0 {
                    values.push(b',');
                }
                match encoder.is_null(index) {
                    true => values.extend_from_slice(b"null"),
                    false => encoder.encode(index, &mut values),
                }
            }
            values.push(b']');
            let text = String::from_utf8(values).map_err(|error| ArrowError::JsonError(error.to_string()))?;
            Ok(text.into_boxed_str())
        };
        (0..batch.num_rows()).rev().map(row).collect()
    }
}

impl RowSource for ParquetRows {
    fn next_row(&mut self) -> Result<Option<ReadRow>, BatchError> {
        while self.rows.is_empty() {
            let Some(batch) = self.reader.next() else { return Ok(None) };
            let rows = batch.and_then(|batch| self.encode(&batch));
            self.rows = rows.map_err(|error| BatchError::reading(&self.path, error))?;
        }
        let row = |values| Row { values: Ok(values), original: Original::None };
        let columns = Some(Arc::clone(&self.columns));
        Ok(self.rows.pop().map(|values| ReadRow { row: row(values), columns }))
    }

    fn bytes(&self) -> u64 {
        0
    }
}

impl EncoderFactory for Base64 {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        Ok(match array.data_type() {
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Some(NullableEncoder::new(Box::new(BinaryEncoder(array)), array.nulls().cloned()))
            }
            _ => None,
        })
    }
}

impl Encoder for BinaryEncoder<'_> {
    fn encode(&mut self, index: usize, out: &mut Vec<u8>) {
        let bytes = match self.0.data_type() {
            DataType::Binary => self.0.as_binary::<i32>().value(index),
            DataType::LargeBinary => self.0.as_binary::<i64>().value(index),
            DataType::BinaryView => self.0.as_binary_view().value(index),
            _ => self.0.as_fixed_size_binary().value(index),
        };
        out.push(b'"');
        out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use arrow_array::{BinaryArray, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn file() -> File {
        let columns: [(&str, Arc<dyn Array>); 5] = [
            ("id", Arc::new(Int64Array::from_iter_values(0..3000))),
            ("text", Arc::new(StringArray::from_iter((0..3000).map(|n| (n % 2 == 0).then(|| format!("\"{n}\n")))))),
            ("score", Arc::new(Float64Array::from_iter_values((0..3000).map(|n| if n == 1 { f64::NAN } else { 0.5 })))),
            ("at", Arc::new(TimestampMillisecondArray::from_iter_values(0..3000))),
            ("raw", Arc::new(BinaryArray::from_iter_values((0..3000).map(|_| b"\xff\x00")))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn rows_are_json_from_any_row_on() {
        for first in [0, 1, 1023, 1024, 2999, 3000] {
            let (mut rows, total) = ParquetRows::open(file(), Path::new("in.parquet"), first).unwrap();
            assert_eq!((rows.columns.json(), total), (r#"["id","text","score","at","raw"]"#, 3000));
            let read = std::iter::from_fn(|| rows.next_row().unwrap()).map(|row| row.row.values.unwrap());
            let read: Vec<_> = read.collect();
            assert_eq!(read.len() as u64, 3000 - first);
            match first {
                0 => assert_eq!(&*read[0], r#"[0,"\"0\n",0.5,"1970-01-01T00:00:00","/wA="]"#),
                1 => assert_eq!(&*read[0], r#"[1,null,null,"1970-01-01T00:00:00.001","/wA="]"#),
                _ => {}
            }
        }
    }

    #[test]
    fn file_that_is_no_parquet_is_refused() {
        let error = ParquetRows::open(tempfile::tempfile().unwrap(), Path::new("in.parquet"), 0).err().unwrap();
        assert!(error.to_string().starts_with("in.parquet is no Parquet file"), "{error}");
    }
}
