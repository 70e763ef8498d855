//! A payload as its rows and their common key.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::columns::{Cell, ColumnReader, Signature};
use super::csv;
use super::scanner::Scanner;

/// Holds a payload whose rows can be told apart from the rest of it.
#[derive(Debug, Clone)]
pub struct Payload {
    pub(super) bytes: Bytes,
    pub(super) table: Table,
    params: Option<Range<usize>>,
}

/// Names the forms in which a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PayloadFormat {
    /// `dataframe_split`
    Split,
    /// `dataframe_records`
    Records,
    /// `inputs`: a list of objects.
    InputRecords,
    /// `inputs`: a list of anything else.
    InputValues,
    /// `inputs`: an object of columns.
    InputColumns,
    /// `instances`: a list of objects.
    InstanceRecords,
    /// `instances`: a list of anything else.
    InstanceValues,
    /// Comma-separated values.
    Csv,
}

/// Identifies payloads that can be joined: they have the same key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JoinKey(Box<[u8]>);

/// Holds the part of a payload with the rows.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) format: PayloadFormat,
    /// Places of the rows: one place, or as many as there are columns. At least one.
    pub(super) places: Vec<Range<usize>>,
    pub(super) rows: usize,
    /// Place of the row numbers, from 0 on, if the payload has an index.
    pub(super) numbers: Option<Range<usize>>,
    /// Names of the columns, as they are written.
    pub(super) names: Vec<Range<usize>>,
    /// Kinds of the columns.
    pub(super) columns: Vec<Cell>,
}

impl Payload {
    /// Reads a payload. None when its rows cannot be told apart, or not without doubt.
    pub fn read(content_type: &str, bytes: &Bytes) -> Option<Self> {
        let (media_type, parameter) = content_type.split_once(';').unwrap_or((content_type, ""));
        let parameter = parameter.trim();
        if !parameter.is_empty() && !parameter.eq_ignore_ascii_case("charset=utf-8") {
            return None;
        }
        let text = std::str::from_utf8(bytes).ok()?;
        let (table, params) = match media_type.trim() {
            "application/json" => Self::read_json(text)?,
            "text/csv" => (csv::read(text)?, None),
            _ => return None,
        };
        Some(Self { bytes: bytes.clone(), table, params })
    }

    fn read_json(text: &str) -> Option<(Table, Option<Range<usize>>)> {
        let mut scanner = Scanner::new(text);
        let (mut body, mut params) = (None, None);
        scanner.object(|scanner, key, _| {
            let fresh = match text.get(key)? {
                "\"params\"" => params.replace(scanner.skip()?).is_none(),
                "\"dataframe_split\"" => body.replace(split(scanner, text)?).is_none(),
                "\"dataframe_records\"" => {
                    let found = list(scanner, text, PayloadFormat::Records, PayloadFormat::Records)?;
                    !found.names.is_empty() && body.replace(found).is_none()
                }
                "\"instances\"" => {
                    let found = list(scanner, text, PayloadFormat::InstanceRecords, PayloadFormat::InstanceValues)?;
                    body.replace(found).is_none()
                }
                "\"inputs\"" => {
                    let found = match scanner.peek()? {
                        b'{' => columns(scanner, text)?,
                        _ => list(scanner, text, PayloadFormat::InputRecords, PayloadFormat::InputValues)?,
                    };
                    body.replace(found).is_none()
                }
                _ => false,
            };
            fresh.then_some(())
        })?;
        let table: Table = body?;
        (table.rows > 0 && scanner.is_at_end()).then_some((table, params))
    }

    /// Returns the number of rows: at least one.
    pub fn rows(&self) -> usize {
        self.table.rows
    }

    /// Returns the number of the form in which the payload is written, of eight.
    pub fn form(&self) -> usize {
        self.table.format as usize
    }

    /// Returns the number of bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the payload as it came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Computes the key that the payload must have in common with others to be joined with them, for a model with this
    /// signature. None when it cannot be joined with any. `nulls_apart` where rows that lack a value are not to go with
    /// rows that have it.
    pub fn key(&self, content_type: &str, signature: Option<&Signature>, nulls_apart: bool) -> Option<JoinKey> {
        let reader = match self.table.format {
            PayloadFormat::Split | PayloadFormat::Records | PayloadFormat::Csv => ColumnReader::Pandas,
            _ => ColumnReader::Numpy,
        };
        // Columns of a table get their types from pandas before the model's signature is looked at.
        let signature = signature.filter(|_| self.table.format != PayloadFormat::Csv);
        let mut key = Vec::with_capacity(64 + self.table.columns.len() * 16);
        let put = |key: &mut Vec<u8>, bytes: &[u8]| {
            key.extend_from_slice(&bytes.len().to_le_bytes());
            key.extend_from_slice(bytes);
        };
        key.push(self.table.format as u8);
        key.push(u8::from(self.table.numbers.is_some()) | u8::from(self.params.is_some()) << 1);
        put(&mut key, content_type.as_bytes());
        put(&mut key, self.params.as_ref().map_or(&[], |params| self.at(params)));
        for name in &self.table.names {
            put(&mut key, self.at(name));
        }
        for (index, column) in self.table.columns.iter().enumerate() {
            let name = self.table.names.get(index).map(|name| self.at(name));
            let is_float = signature.is_some_and(|signature| signature.makes_floats(name));
            let (kinds, shape) = column.class(reader, is_float, signature.is_some(), nulls_apart)?;
            key.extend_from_slice(&kinds.to_le_bytes());
            key.extend_from_slice(&shape.to_le_bytes());
        }
        Some(JoinKey(key.into()))
    }

    /// Joins payloads of the same key into one with the rows of all.
    pub fn join(payloads: &[&Self]) -> Bytes {
        let Some(first) = payloads.first() else { return Bytes::new() };
        let separator = if first.table.format == PayloadFormat::Csv { b'\n' } else { b',' };
        let rows: usize = payloads.iter().map(|payload| payload.table.rows).sum();
        // Each row's number has at most 20 digits, and a comma.
        let numbers = first.table.numbers.as_ref().map_or(0, |_| rows * 21);
        let size: usize = payloads.iter().map(|payload| payload.bytes.len() + payload.table.places.len()).sum();
        let mut joined = BytesMut::with_capacity(size + numbers);
        // Rows and row numbers are replaced in the order in which they stand in the first payload.
        let mut pieces: Vec<_> = first.table.places.iter().enumerate().map(|(index, at)| (at, Some(index))).collect();
        pieces.extend(first.table.numbers.iter().map(|at| (at, None)));
        pieces.sort_by_key(|(at, _)| at.start);
        let mut copied = 0;
        for (at, place) in pieces {
            joined.put_slice(first.at(&(copied..at.start)));
            copied = at.end;
            match place {
                Some(place) => {
                    for (number, payload) in payloads.iter().enumerate() {
                        if number > 0 {
                            joined.put_u8(separator);
                        }
                        joined.put_slice(payload.table.places.get(place).map_or(&[], |at| payload.at(at)));
                    }
                }
                None => {
                    let all: Vec<String> = (0..rows).map(|row| row.to_string()).collect();
                    joined.put_slice(all.join(",").as_bytes());
                }
            }
        }
        joined.put_slice(first.at(&(copied..first.bytes.len())));
        joined.freeze()
    }

    fn at(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }
}

/// Reads `{"columns": […], "index": […], "data": [[…], …]}`.
fn split(scanner: &mut Scanner<'_>, text: &str) -> Option<Table> {
    let (mut names, mut index, mut data) = (None, None, None);
    scanner.object(|scanner, key, _| {
        let fresh = match text.get(key)? {
            "\"columns\"" => {
                let mut found = Vec::new();
                scanner.array(|scanner, _| {
                    found.push(scanner.skip_scalar()?);
                    Some(())
                })?;
                names.replace(found).is_none()
            }
            // Only a plain numbering is understood: the model may look at any other index.
            "\"index\"" => index.replace(counted(scanner, text)?).is_none(),
            "\"data\"" => {
                let mut columns = Vec::new();
                let (place, rows) = scanner.array(|scanner, row| {
                    let (_, width) = scanner.array(|scanner, column| add(&mut columns, scanner, row, column))?;
                    (width == columns.len()).then_some(())
                })?;
                data.replace((place, rows, columns)).is_none()
            }
            _ => false,
        };
        fresh.then_some(())
    })?;
    let (place, rows, columns) = data?;
    let fits = !columns.is_empty()
        && names.as_ref().is_none_or(|names| names.len() == columns.len())
        && index.as_ref().is_none_or(|(_, count)| *count == rows);
    let numbers = index.map(|(at, _)| at);
    let names = names.unwrap_or_default();
    fits.then(|| Table { format: PayloadFormat::Split, places: vec![place], rows, numbers, names, columns })
}

/// Reads `[0, 1, 2, …]`.
fn counted(scanner: &mut Scanner<'_>, text: &str) -> Option<(Range<usize>, usize)> {
    scanner.array(|scanner, row| {
        let number = scanner.skip_scalar()?;
        (text.get(number)? == row.to_string()).then_some(())
    })
}

/// Reads a list of rows: of objects with the same keys in the same order, or of values that are alike.
fn list(scanner: &mut Scanner<'_>, text: &str, of_records: PayloadFormat, of_values: PayloadFormat) -> Option<Table> {
    let (mut names, mut columns): (Vec<Range<usize>>, _) = (Vec::new(), Vec::new());
    let mut has_records = None;
    let (place, rows) = scanner.array(|scanner, row| {
        let is_record = scanner.peek()? == b'{';
        if *has_records.get_or_insert(is_record) != is_record {
            return None;
        }
        if !is_record {
            return add(&mut columns, scanner, row, 0);
        }
        let width = scanner.object(|scanner, key, column| {
            if row == 0 {
                let is_fresh = names.iter().all(|name| text.get(name.clone()) != text.get(key.clone()));
                is_fresh.then(|| names.push(key))?;
            } else if text.get(names.get(column)?.clone()) != text.get(key) {
                return None;
            }
            add(&mut columns, scanner, row, column)
        })?;
        (width == columns.len() && width > 0).then_some(())
    })?;
    let format = if has_records? { of_records } else { of_values };
    Some(Table { format, places: vec![place], rows, numbers: None, names, columns })
}

/// Reads `{"name": […], …}`, with each column as long as the others.
fn columns(scanner: &mut Scanner<'_>, text: &str) -> Option<Table> {
    let (mut names, mut places, mut columns) = (Vec::<Range<usize>>::new(), Vec::new(), Vec::new());
    let mut rows = None;
    scanner.object(|scanner, key, column| {
        let is_fresh = names.iter().all(|name| text.get(name.clone()) != text.get(key.clone()));
        is_fresh.then(|| names.push(key))?;
        let mut cells = Vec::new();
        let (place, count) = scanner.array(|scanner, row| add(&mut cells, scanner, row, 0))?;
        columns.push(*cells.first()?);
        places.push(place);
        (columns.len() == column + 1 && *rows.get_or_insert(count) == count).then_some(())
    })?;
    Some(Table { format: PayloadFormat::InputColumns, places, rows: rows?, numbers: None, names, columns })
}

/// Adds a cell to its column. The first row says which columns there are.
fn add(columns: &mut Vec<Cell>, scanner: &mut Scanner<'_>, row: usize, column: usize) -> Option<()> {
    let cell = scanner.cell()?;
    match columns.get_mut(column) {
        Some(known) => *known = known.beside(cell)?,
        None if row == 0 => columns.push(cell),
        None => return None,
    }
    Some(())
}
