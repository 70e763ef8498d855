//! Inputs: files and standard input, in each format, as blocks of rows.

mod csv;
mod identity;
mod jsonl;
mod parquet;

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::{Blocks, Position, RowSource};
use super::column_type::ColumnType;
use super::columns::Columns;
use super::error::{BatchError, STANDARD};
use super::format::Format;
use super::temporary::temporary_file;
pub(super) use identity::InputIdentity;
pub(super) use parquet::open as open_parquet;

/// The input, found but not yet read.
#[derive(Debug)]
pub(super) struct InputFile {
    path: PathBuf,
    format: Format,
    /// The file; none for standard input, unless it had to be copied to one.
    file: Option<File>,
    pub(super) identity: InputIdentity,
}

/// Settings of reading.
#[derive(Debug, Clone, Default)]
pub(super) struct InputOptions {
    /// Greatest number of rows in a block.
    pub(super) rows: usize,
    /// CSV's columns that are text whatever they hold.
    pub(super) text: Vec<String>,
    /// Columns that the output takes; None takes all.
    pub(super) columns: Option<Vec<String>>,
    /// Name of the column that the answers go to.
    pub(super) prediction: String,
    /// True if rows are kept as they stand in the input.
    pub(super) keeps_originals: bool,
}

/// An input that is being read.
pub(super) struct Input {
    pub(super) blocks: Blocks,
    /// Columns of all rows, where the format has them.
    pub(super) columns: Option<Arc<Columns>>,
    /// Types of CSV's columns.
    pub(super) types: Option<Vec<ColumnType>>,
    pub(super) length: Length,
}

/// Length of an input, in what progress is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Rows(u64),
    Bytes(u64),
    /// An input that can be read only once.
    Unknown,
}

impl InputFile {
    /// Finds the input. Parquet from standard input is copied to a file, since its end has to be read first.
    pub(super) fn find(path: &Path, format: Format) -> Result<Self, BatchError> {
        let is_standard = path.as_os_str() == STANDARD;
        let (file, identity) = match (is_standard, format) {
            (true, Format::Jsonl | Format::Csv) => (None, InputIdentity::of_stream()),
            (true, Format::Parquet) => {
                let mut file = spool()?;
                let identity = InputIdentity::of_copy(&mut file);
                (Some(file), identity.map_err(|error| BatchError::reading(path, error))?)
            }
            (false, _) => {
                let mut file = File::open(path).map_err(|error| BatchError::opening(path, &error))?;
                let identity = InputIdentity::of_file(path, &mut file);
                (Some(file), identity.map_err(|error| BatchError::opening(path, &error))?)
            }
        };
        Ok(Self { path: path.to_owned(), format, file, identity })
    }

    /// Opens the file once more, at its beginning.
    pub(super) fn file(&self) -> Result<File, BatchError> {
        let file = self.file.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::NotSeekable));
        // Copies of a handle share its position, and only one at a time is read.
        let file = file.and_then(File::try_clone).and_then(|mut file| file.rewind().map(|()| file));
        file.map_err(|error| BatchError::reading(&self.path, error))
    }

    /// Returns the path, `-` for standard input.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the input from this position on. `types` are those of CSV's columns, where an earlier run has found them.
    pub(super) fn read(
        &self,
        options: &InputOptions,
        from: Position,
        types: Option<&[ColumnType]>,
    ) -> Result<Input, BatchError> {
        let (path, keeps) = (&*self.path, options.keeps_originals);
        let is_taken = |name: &str| options.columns.as_ref().is_none_or(|taken| taken.iter().any(|one| one == name));
        let reserved = Some(options.prediction.clone()).filter(|name| is_taken(name));
        if self.format != Format::Csv && !options.text.is_empty() {
            return Err(BatchError::usage("--text is for CSV, where nothing else says what a column holds"));
        }
        let size = || self.identity.size().unwrap_or_default();
        let (source, columns, types, length): (Box<dyn RowSource>, _, _, _) = match (self.format, &self.file) {
            (Format::Jsonl, Some(_)) => {
                let mut file = self.file()?;
                file.seek(SeekFrom::Start(from.bytes)).map_err(|error| BatchError::reading(path, error))?;
                let lines =
                    jsonl::Lines::new(Box::new(file), false, path.to_owned(), from.bytes, reserved.clone(), keeps);
                (Box::new(lines), None, None, Length::Bytes(size()))
            }
            (Format::Jsonl, None) => {
                let lines = jsonl::Lines::new(Box::new(io::stdin()), true, path.to_owned(), 0, reserved.clone(), keeps);
                (Box::new(lines), None, None, Length::Unknown)
            }
            (Format::Csv, Some(_)) => {
                let mut records = csv::open_file(self.file()?, path, &options.text, types, keeps)?;
                if from.bytes > 0 {
                    records.seek(from.bytes)?;
                }
                let (columns, types) = (records.columns.clone(), records.types.clone());
                (Box::new(records), Some(columns), Some(types), Length::Bytes(size()))
            }
            (Format::Csv, None) => {
                let records = csv::open_stream(io::stdin(), path, &options.text, types, keeps)?;
                let (columns, types) = (records.columns.clone(), records.types.clone());
                (Box::new(records), Some(columns), Some(types), Length::Unknown)
            }
            (Format::Parquet, _) => {
                let (rows, total) = parquet::ParquetRows::open(self.file()?, path, from.rows)?;
                let columns = rows.columns.clone();
                (Box::new(rows), Some(columns), None, Length::Rows(total))
            }
        };
        if let Some(columns) = &columns {
            jsonl::check_reserved(columns, reserved.as_deref()).map_err(BatchError::Usage)?;
            for name in options.columns.iter().flatten() {
                if columns.position(name).is_none() {
                    return Err(BatchError::usage(no_such_column("--columns", name, columns)));
                }
            }
        }
        let blocks = match &self.file {
            Some(_) => Blocks::at(source, options.rows, from),
            None => Blocks::of_stream(source, options.rows, from)?,
        };
        Ok(Input { blocks, columns, types, length })
    }
}

/// Copies standard input to a file that is gone when it is closed.
fn spool() -> Result<File, BatchError> {
    let mut file = temporary_file()?;
    let copied = io::copy(&mut io::stdin().lock(), &mut file);
    copied.map_err(|error| BatchError::reading(Path::new(STANDARD), error))?;
    Ok(file)
}

/// Reports an option that names a column which the input does not have.
fn no_such_column(option: &str, name: &str, columns: &Columns) -> String {
    format!("{option}: there is no column '{name}' in the input; it has {}", columns.names().join(", "))
}
