//! Requests: some rows of a block on their way, and the body that asks about them.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::block::Block;

/// Pause after the first failure of a request; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Rows of one block that are asked about together.
#[derive(Debug)]
pub(super) struct Request {
    /// Number of the block.
    pub(super) block: u64,
    pub(super) rows: Range<usize>,
    /// Attempts that have failed for a reason that may pass.
    pub(super) failures: u32,
    /// Times that the router had no room for it.
    pub(super) refusals: u32,
    /// The first of both: when that was, and how many requests had been answered by then.
    pub(super) trouble: Option<(Instant, u64)>,
}

impl Request {
    pub(super) fn new(block: u64, rows: Range<usize>) -> Self {
        Self { block, rows, failures: 0, refusals: 0, trouble: None }
    }

    /// Returns how long to wait before the next attempt.
    pub(super) fn pause(&self) -> Duration {
        let doublings = (self.failures + self.refusals).saturating_sub(1).min(10);
        let pause = (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
        // Requests that were refused together do not come back together.
        pause.mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    /// Divides the request into two of about as many rows that can be sent; None when there is only one.
    pub(super) fn split(&self, block: &Block) -> Option<(Self, Self)> {
        let sendable = sendable(block, &self.rows);
        let middle = *sendable.get(sendable.len() / 2).filter(|_| sendable.len() > 1)?;
        let part = |rows| Self::new(self.block, rows);
        Some((part(self.rows.start..middle), part(middle..self.rows.end)))
    }
}

/// Lists the rows that can be sent.
pub(super) fn sendable(block: &Block, rows: &Range<usize>) -> Vec<usize> {
    rows.clone().filter(|row| block.rows[*row].values.is_ok()).collect()
}

/// Writes the body that asks about some rows of a block, in MLflow's format: `dataframe_split` for rows with columns, else
/// `inputs`.
pub(super) fn write_body(body: &mut Vec<u8>, block: &Block, rows: &Range<usize>, params: Option<&str>) {
    body.clear();
    let end: &[u8] = match &block.columns {
        Some(columns) => {
            body.extend_from_slice(b"{\"dataframe_split\":{\"columns\":");
            body.extend_from_slice(columns.json().as_bytes());
            body.extend_from_slice(b",\"data\":[");
            b"]}"
        }
        None => {
            body.extend_from_slice(b"{\"inputs\":[");
            b"]"
        }
    };
    let begin = body.len();
    for values in block.rows[rows.clone()].iter().filter_map(|row| row.values.as_ref().ok()) {
        if body.len() > begin {
            body.push(b',');
        }
        body.extend_from_slice(values.as_bytes());
    }
    body.extend_from_slice(end);
    if let Some(params) = params {
        body.extend_from_slice(b",\"params\":");
        body.extend_from_slice(params.as_bytes());
    }
    body.push(b'}');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::batch::block::Position;
    use crate::batch::columns::Columns;
    use crate::batch::row::{Original, Row};

    fn block(columns: Option<&[&str]>, values: &[Option<&str>]) -> Block {
        let row = |values: &Option<&str>| match values {
            Some(values) => Row { values: Ok((*values).into()), original: Original::None },
            None => Row::unsendable("no".to_owned(), Original::None),
        };
        let columns = columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        Block {
            first: 0,
            rows: values.iter().map(row).collect(),
            columns: columns.map(|names| Arc::new(Columns::new(names).unwrap())),
            end: Position::default(),
            size: 0,
        }
    }

    fn body(block: &Block, rows: Range<usize>, params: Option<&str>) -> String {
        let mut body = Vec::new();
        write_body(&mut body, block, &rows, params);
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn body_is_the_format_that_mlflow_reads() {
        let split = block(Some(&["a", "b"]), &[Some("[1,\"x\"]"), None, Some("[2,null]")]);
        let expected = r#"{"dataframe_split":{"columns":["a","b"],"data":[[1,"x"],[2,null]]}}"#;
        assert_eq!(body(&split, 0..3, None), expected);
        let bare = block(None, &[Some("[1,2]"), Some("3")]);
        assert_eq!(body(&bare, 1..2, Some("{\"t\":1}")), r#"{"inputs":[3],"params":{"t":1}}"#);
    }

    #[test]
    fn request_is_divided_until_each_row_is_alone() {
        let block = block(None, &[Some("1"), None, Some("2"), Some("3"), None]);
        let mut left = vec![Request::new(0, 0..5)];
        let mut alone = Vec::new();
        while let Some(request) = left.pop() {
            match request.split(&block) {
                Some((one, other)) => left.extend([other, one]),
                None => alone.push(sendable(&block, &request.rows)),
            }
        }
        assert_eq!(alone, [[0], [2], [3]]);
    }

    #[test]
    fn pause_doubles_up_to_its_limit() {
        let pause = |failures| Request { failures, ..Request::new(0, 0..1) }.pause();
        assert!((Duration::from_millis(100)..=FIRST_PAUSE).contains(&pause(1)));
        assert!((Duration::from_millis(400)..=Duration::from_millis(800)).contains(&pause(3)));
        assert!(pause(100) <= LONGEST_PAUSE && pause(100) >= LONGEST_PAUSE / 2);
    }
}
