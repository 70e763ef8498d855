//! Comma-separated values as pandas reads them, for tables that are plain enough.

use super::columns::{Cell, CellKind};
use super::payload::{PayloadFormat, Table};

/// Words that pandas takes for missing values, booleans or numbers, in lower case; a table with one is not understood.
const RESERVED_WORDS: &[&str] = &["na", "n/a", "nan", "nat", "null", "none", "true", "false", "inf", "infinity"];

/// Reads a table: a line of names, and lines with as many fields, each column of which is all whole numbers, all plain
/// decimals, or all words. Tables with quotation marks are refused, so that a line is a row; and tables with missing
/// values, so that nothing is guessed.
pub(super) fn read(text: &str) -> Option<Table> {
    if text.contains(['"', '\r', '\0', '\u{feff}']) {
        return None;
    }
    let content = text.strip_suffix('\n').unwrap_or(text);
    let (header, lines) = content.split_once('\n')?;
    let start = header.len() + 1;
    let mut columns: Vec<Cell> = Vec::new();
    let mut rows = 0;
    let width = header.split(',').count();
    for line in lines.split('\n') {
        let mut fields = 0;
        for (column, field) in line.split(',').enumerate() {
            let cell = kind_of(field)?.into();
            match columns.get(column) {
                Some(known) if *known == cell => {}
                None if rows == 0 => columns.push(cell),
                _ => return None,
            }
            fields += 1;
        }
        if fields != width {
            return None;
        }
        rows += 1;
    }
    let [places, names] = [start..content.len(), 0..header.len()].map(|place| std::iter::once(place).collect());
    Some(Table { format: PayloadFormat::Csv, places, rows, numbers: None, names, columns })
}

fn kind_of(field: &str) -> Option<CellKind> {
    let unsigned = field.strip_prefix('-').unwrap_or(field);
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if are_digits(unsigned) && unsigned.len() <= 15 {
        return Some(CellKind::Integer);
    }
    if let Some((whole, fraction)) = unsigned.split_once('.')
        && are_digits(whole)
        && are_digits(fraction)
    {
        return Some(CellKind::Float);
    }
    let is_word = field.starts_with(|first: char| first.is_alphabetic())
        && field.chars().all(|character| character.is_alphanumeric() || " _-.:;!?'()/".contains(character))
        && !RESERVED_WORDS.contains(&field.trim().to_ascii_lowercase().as_str());
    is_word.then_some(CellKind::Text)
}
