//! Conversion of the appended lines to CSV or Parquet, once all are there.
//!
//! The lines are read twice: for the columns and their types, and to be written. So both follow from all rows, and memory
//! does not grow with them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Seek as _, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::record::{cell, push_record, records};
use crate::batch::column_type::ColumnType;
use crate::batch::error::BatchError;
use crate::batch::input::{InputFile, open_parquet};
use crate::batch::json::Members;

/// Rows that are encoded at once.
const BATCH: usize = 4096;

/// Rows of a row group. More of them are more memory.
const ROW_GROUP: usize = 100_000;

/// Bytes that are read or written at once.
const BUFFER: usize = 1 << 20;

/// Form that the appended lines are made into.
#[derive(Debug, Clone, Copy)]
pub(in crate::batch) enum Conversion<'a> {
    /// CSV, from objects.
    Csv,
    /// Parquet, from objects.
    Parquet,
    /// Parquet, from predictions and the Parquet file that they belong to.
    Beside(&'a InputFile),
}

/// A column as it is found in the lines.
struct FoundColumn {
    name: String,
    found: ColumnType,
}

/// Builder of a column.
enum ColumnBuilder {
    Null(usize),
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Double(Float64Builder),
    Text(StringBuilder),
    Json(StringBuilder),
}

impl Conversion<'_> {
    /// Writes what the lines of `staged` come to.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(in crate::batch) fn write(
        self,
        staged: &File,
        out: impl Write + Send,
        out_path: &Path,
        columns: Option<&[String]>,
        prediction: &str,
    ) -> Result<(), BatchError> {
        let done = match self {
            Self::Csv => write_csv(staged, out, columns, prediction),
            Self::Parquet => write_parquet(staged, out, columns, prediction),
            Self::Beside(input) => write_beside(input, staged, out, columns, prediction)?,
        };
        done.map_err(|error| BatchError::writing(out_path, error))
    }
}

/// Writes objects as CSV.
fn write_csv(staged: &File, out: impl Write, columns: Option<&[String]>, prediction: &str) -> Result<(), ParquetError> {
    let columns = find_columns(staged, columns, prediction)?;
    let mut out = BufWriter::with_capacity(BUFFER, out);
    let mut buffer = Vec::new();
    push_record(&mut records(&mut buffer), columns.iter().map(|column| column.name.as_bytes()));
    for_each_line(staged, |line| {
        let values = place(line, &columns)?;
        let cells: Vec<_> = values.iter().map(|value| cell(value.unwrap_or("null"))).collect();
        push_record(&mut records(&mut buffer), cells.iter().map(|cell| cell.as_bytes()));
        if buffer.len() >= BUFFER {
            out.write_all(&buffer)?;
            buffer.clear();
        }
        Ok(())
    })?;
    out.write_all(&buffer)?;
    Ok(out.flush()?)
}

/// Writes objects as Parquet.
fn write_parquet(
    staged: &File,
    out: impl Write + Send,
    columns: Option<&[String]>,
    prediction: &str,
) -> Result<(), ParquetError> {
    let columns = find_columns(staged, columns, prediction)?;
    let fields: Vec<_> = columns.iter().map(|column| Field::new(&column.name, data_type(column.found), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let mut writer = ArrowWriter::try_new(out, schema.clone(), Some(properties()))?;
    let begin = || columns.iter().map(|column| ColumnBuilder::new(column.found)).collect::<Vec<_>>();
    let mut builders = begin();
    let mut rows = 0;
    let mut write = |builders: Vec<ColumnBuilder>| {
        let batch = RecordBatch::try_new(schema.clone(), builders.into_iter().map(ColumnBuilder::finish).collect())?;
        writer.write(&batch)
    };
    for_each_line(staged, |line| {
        let values = place(line, &columns)?;
        for (builder, value) in builders.iter_mut().zip(&values) {
            builder.push(value.unwrap_or("null"));
        }
        rows += 1;
        if rows % BATCH == 0 {
            write(std::mem::replace(&mut builders, begin()))?;
        }
        Ok(())
    })?;
    if rows % BATCH > 0 {
        write(builders)?;
    }
    writer.close().map(drop)
}

/// Writes a Parquet file once more, with the predictions beside its columns.
fn write_beside(
    input: &InputFile,
    staged: &File,
    out: impl Write + Send,
    columns: Option<&[String]>,
    prediction: &str,
) -> Result<Result<(), ParquetError>, BatchError> {
    let (reader, schema, _) = open_parquet(input.file()?, input.path(), 0)?;
    let taken: Vec<usize> = match columns {
        None => (0..schema.fields().len()).collect(),
        Some(names) => names.iter().filter_map(|name| schema.index_of(name).ok()).collect(),
    };
    let write = || {
        let mut found = ColumnType::Null;
        for_each_line(staged, |line| {
            found = found.widen(ColumnType::of_value(line), ColumnType::Json);
            Ok(())
        })?;
        let field = Arc::new(Field::new(prediction, data_type(found), true));
        let fields = taken.iter().map(|index| schema.fields()[*index].clone()).chain([field]);
        let schema = Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone());
        let schema = Arc::new(schema);
        let mut writer = ArrowWriter::try_new(out, schema.clone(), Some(properties()))?;
        let mut predictions = lines(staged)?;
        let mut line = String::new();
        for batch in reader {
            let batch = batch?;
            let mut builder = ColumnBuilder::new(found);
            for _ in 0..batch.num_rows() {
                line.clear();
                if predictions.read_line(&mut line)? == 0 {
                    return Err(ParquetError::General("there are fewer answers than rows".to_owned()));
                }
                builder.push(line.trim_end_matches('\n'));
            }
            let values = taken.iter().map(|index| batch.column(*index).clone()).chain([builder.finish()]);
            writer.write(&RecordBatch::try_new(schema.clone(), values.collect())?)?;
        }
        writer.close().map(drop)
    };
    Ok(write())
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_created_by(concat!("signalbox ", env!("CARGO_PKG_VERSION")).to_owned())
        .build()
}

fn data_type(found: ColumnType) -> DataType {
    match found {
        ColumnType::Bool => DataType::Boolean,
        ColumnType::Int => DataType::Int64,
        ColumnType::Double => DataType::Float64,
        ColumnType::Null | ColumnType::Text | ColumnType::Json => DataType::Utf8,
    }
}

/// Finds the columns in the order in which they first come, and the type that takes all their values. The prediction is
/// the last.
fn find_columns(staged: &File, wanted: Option<&[String]>, prediction: &str) -> Result<Vec<FoundColumn>, ParquetError> {
    let column = |name: &str| FoundColumn { name: name.to_owned(), found: ColumnType::Null };
    let mut columns: Vec<_> = wanted.unwrap_or_default().iter().map(|name| column(name)).collect();
    let mut last = ColumnType::Null;
    for_each_line(staged, |line| {
        let Members(members) = serde_json::from_str(line).map_err(io::Error::from)?;
        for (index, (name, value)) in members.iter().enumerate() {
            let found = ColumnType::of_value(value.get());
            // The answer comes last, also beside a column of its name that the output does not take.
            if index + 1 == members.len() {
                last = last.widen(found, ColumnType::Json);
                continue;
            }
            // Rows mostly have the same columns in the same places.
            let place = match columns.get(index) {
                Some(known) if known.name == *name => index,
                _ => match columns.iter().position(|known| known.name == *name) {
                    Some(place) => place,
                    None => {
                        columns.push(column(name));
                        columns.len() - 1
                    }
                },
            };
            columns[place].found = columns[place].found.widen(found, ColumnType::Json);
        }
        Ok(())
    })?;
    columns.push(FoundColumn { name: prediction.to_owned(), found: last });
    Ok(columns)
}

/// Puts the values of an object into the places of the columns.
fn place<'a>(line: &'a str, columns: &[FoundColumn]) -> io::Result<Vec<Option<&'a str>>> {
    let Members(members) = serde_json::from_str(line)?;
    let mut values = vec![None; columns.len()];
    let count = members.len();
    for (index, (name, value)) in members.into_iter().enumerate() {
        let place = match columns.get(index) {
            _ if index + 1 == count => Some(columns.len() - 1),
            Some(known) if known.name == name => Some(index),
            _ => columns.iter().position(|known| known.name == name),
        };
        if let Some(place) = place {
            values[place] = Some(value.get());
        }
    }
    Ok(values)
}

fn lines(staged: &File) -> io::Result<BufReader<File>> {
    let mut file = staged.try_clone()?;
    file.rewind()?;
    Ok(BufReader::with_capacity(BUFFER, file))
}

fn for_each_line(staged: &File, mut take: impl FnMut(&str) -> Result<(), ParquetError>) -> Result<(), ParquetError> {
    let mut reader = lines(staged)?;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.by_ref().read_line(&mut line)? == 0 {
            return Ok(());
        }
        take(line.trim_end_matches('\n'))?;
    }
}

impl ColumnBuilder {
    fn new(found: ColumnType) -> Self {
        match found {
            ColumnType::Null => Self::Null(0),
            ColumnType::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnType::Int => Self::Int(Int64Builder::new()),
            ColumnType::Double => Self::Double(Float64Builder::new()),
            ColumnType::Text => Self::Text(StringBuilder::new()),
            ColumnType::Json => Self::Json(StringBuilder::new()),
        }
    }

    /// Adds a JSON value, which is of the column's type or null.
    fn push(&mut self, value: &str) {
        let is_null = value == "null";
        match self {
            Self::Null(count) => *count += 1,
            Self::Bool(builder) => builder.append_option((!is_null).then_some(value == "true")),
            Self::Int(builder) => builder.append_option(value.parse().ok()),
            Self::Double(builder) => builder.append_option(serde_json::from_str(value).ok()),
            Self::Text(builder) => builder.append_option(crate::batch::json::text(value)),
            Self::Json(builder) => builder.append_option((!is_null).then_some(value)),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Null(count) => arrow_array::new_null_array(&DataType::Utf8, count),
            Self::Bool(mut builder) => Arc::new(builder.finish()),
            Self::Int(mut builder) => Arc::new(builder.finish()),
            Self::Double(mut builder) => Arc::new(builder.finish()),
            Self::Text(mut builder) | Self::Json(mut builder) => Arc::new(builder.finish()),
        }
    }
}
