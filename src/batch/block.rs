//! Blocks: the consecutive rows that are sent as one request, and end up in the output together.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use super::columns::Columns;
use super::error::BatchError;
use super::row::{ReadRow, Row};

/// Bytes of values after which a block takes no further row, so that a request fits a record of the broker.
const BLOCK_BYTES: usize = 512 * 1024;

/// Consecutive rows with the same columns.
#[derive(Debug)]
pub(super) struct Block {
    /// Number of its first row, from 0.
    pub(super) first: u64,
    pub(super) rows: Vec<Row>,
    /// Columns of all rows that can be sent; none where these are bare values.
    pub(super) columns: Option<Arc<Columns>>,
    /// Position in the input after its last row.
    pub(super) end: Position,
    /// Bytes that the block takes in memory, about.
    pub(super) size: usize,
}

/// Position in an input, at which reading can go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Rows before it.
    pub(super) rows: u64,
    /// Bytes before it; 0 where they are not what is counted.
    pub(super) bytes: u64,
    /// Hash of the rows before it, of an input that can be read only once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hash: Option<u64>,
}

/// Reader of rows.
pub(super) trait RowSource: Send {
    /// Reads the next row; None at the end of the input.
    fn next_row(&mut self) -> Result<Option<ReadRow>, BatchError>;

    /// Returns the bytes of the input up to the last row that was read; 0 where they cannot be counted.
    fn bytes(&self) -> u64;

    /// Tells whether there is a row, or the end of the input, that need not be waited for.
    fn has_row_now(&self) -> bool {
        true
    }
}

/// Groups rows into blocks.
pub(super) struct Blocks {
    source: Box<dyn RowSource>,
    /// Greatest number of rows in a block.
    rows: usize,
    /// Position after the last row that was read.
    position: Position,
    /// Hash of all rows, for an input that can be read only once.
    hasher: Option<Xxh3Default>,
    /// Row that begins the next block.
    next: Option<ReadRow>,
}

impl Blocks {
    /// Reads on at this position, to which the source has been set.
    pub(super) fn at(source: Box<dyn RowSource>, rows: usize, position: Position) -> Self {
        Self { source, rows, position, hasher: None, next: None }
    }

    /// Reads an input that can be read only once, from its beginning. The rows before this position are left out.
    ///
    /// # Errors
    /// When those rows are others than they were.
    pub(super) fn of_stream(source: Box<dyn RowSource>, rows: usize, position: Position) -> Result<Self, BatchError> {
        let mut blocks =
            Self { source, rows, position: Position::default(), hasher: Some(Xxh3Default::new()), next: None };
        while blocks.position.rows < position.rows && blocks.read()?.is_some() {}
        if position.rows > 0 && (blocks.position.rows, blocks.hash()) != (position.rows, position.hash) {
            return Err(BatchError::usage(format!(
                "the first {} rows of standard input are not those that were answered before; give the same input again, \
                 or begin anew with --restart",
                position.rows
            )));
        }
        Ok(blocks)
    }

    /// Reads the next block; None at the end of the input.
    pub(super) fn next_block(&mut self) -> Result<Option<Block>, BatchError> {
        let first = match self.next.take() {
            Some(first) => first,
            None => match self.read()? {
                Some(first) => first,
                None => return Ok(None),
            },
        };
        let mut block = Block {
            first: self.position.rows - 1,
            rows: Vec::with_capacity(self.rows),
            columns: first.columns,
            end: Position::default(),
            size: first.row.size(),
        };
        let mut values = first.row.values.as_ref().map_or(0, |values| values.len());
        // A row that cannot be sent goes with any others; the first that can be sent decides on the columns.
        let mut is_decided = first.row.values.is_ok();
        block.rows.push(first.row);
        block.end = self.marked();
        while block.rows.len() < self.rows && values < BLOCK_BYTES && self.source.has_row_now() {
            let Some(ReadRow { row, columns }) = self.read()? else { break };
            if let Ok(more) = &row.values {
                let fits = !is_decided || same(block.columns.as_ref(), columns.as_ref());
                if !fits || values + more.len() > BLOCK_BYTES {
                    self.next = Some(ReadRow { row, columns });
                    return Ok(Some(block));
                }
                values += more.len();
                if !is_decided {
                    (block.columns, is_decided) = (columns, true);
                }
            }
            block.size += row.size();
            block.rows.push(row);
            block.end = self.marked();
        }
        Ok(Some(block))
    }

    fn read(&mut self) -> Result<Option<ReadRow>, BatchError> {
        let Some(row) = self.source.next_row()? else { return Ok(None) };
        self.position.rows += 1;
        self.position.bytes = self.source.bytes();
        if let Some(hasher) = &mut self.hasher {
            match &row.row.values {
                Ok(values) => hasher.update(values.as_bytes()),
                Err(reason) => hasher.update(reason.as_bytes()),
            }
            hasher.update(b"\n");
        }
        Ok(Some(row))
    }

    fn marked(&self) -> Position {
        Position { hash: self.hash(), ..self.position }
    }

    fn hash(&self) -> Option<u64> {
        self.hasher.as_ref().map(Xxh3Default::digest)
    }
}

/// Tells whether two rows may go together. Columns that came one after the other are mostly the same object.
fn same(one: Option<&Arc<Columns>>, other: Option<&Arc<Columns>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::row::Original;

    struct Given(std::vec::IntoIter<ReadRow>);

    impl RowSource for Given {
        fn next_row(&mut self) -> Result<Option<ReadRow>, BatchError> {
            Ok(self.0.next())
        }

        fn bytes(&self) -> u64 {
            0
        }
    }

    /// Makes rows from letters: each names its column, `.` is a bare value and `!` cannot be sent.
    fn rows(letters: &str) -> Box<dyn RowSource> {
        let row = |letter: char| match letter {
            '!' => ReadRow { row: Row::unsendable("no".to_owned(), Original::None), columns: None },
            '.' => ReadRow { row: Row { values: Ok("1".into()), original: Original::None }, columns: None },
            letter => ReadRow {
                row: Row { values: Ok("[1]".into()), original: Original::None },
                columns: Some(Arc::new(Columns::new(vec![letter.to_string()]).unwrap())),
            },
        };
        Box::new(Given(letters.chars().map(row).collect::<Vec<_>>().into_iter()))
    }

    fn grouped(letters: &str, rows_of_block: usize) -> Vec<(u64, usize, u64)> {
        let mut blocks = Blocks::at(rows(letters), rows_of_block, Position::default());
        let next = || blocks.next_block().unwrap().map(|block| (block.first, block.rows.len(), block.end.rows));
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn block_ends_with_its_columns_or_its_rows() {
        assert_eq!(grouped("aaaaa", 2), [(0, 2, 2), (2, 2, 4), (4, 1, 5)]);
        assert_eq!(grouped("aabb", 10), [(0, 2, 2), (2, 2, 4)]);
        assert_eq!(grouped("a.", 10), [(0, 1, 1), (1, 1, 2)]);
        assert_eq!(grouped("!a!b!!", 10), [(0, 3, 3), (3, 3, 6)], "a row that cannot be sent goes with any");
        assert_eq!(grouped("", 10), []);
    }

    #[test]
    fn stream_goes_on_after_the_same_rows_only() {
        let mut whole = Blocks::of_stream(rows("aabbaa"), 2, Position::default()).unwrap();
        whole.next_block().unwrap();
        let end = whole.next_block().unwrap().unwrap().end;
        let mut rest = Blocks::of_stream(rows("aabbaa"), 2, end).unwrap();
        assert_eq!(rest.next_block().unwrap().unwrap().first, 4);
        for other in ["aa!baa", "aab"] {
            let error = Blocks::of_stream(rows(other), 2, end).err().unwrap().to_string();
            assert!(error.starts_with("the first 4 rows of standard input are not those"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_rows_are_all_in_blocks_in_order(letters in "[ab.!]{0,40}", rows_of_block in 1usize..6) {
            let mut next = 0;
            for (first, count, end) in grouped(&letters, rows_of_block) {
                prop_assert_eq!(first, next);
                next += count as u64;
                prop_assert_eq!(end, next);
            }
            prop_assert_eq!(next, letters.len() as u64);
        }
    }
}
