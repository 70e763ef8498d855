//! A model's answer, cut into the answers to parts of its rows.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::scanner::Scanner;

/// Holds an answer with one prediction for each row: `{"predictions": […]}`, or an object of such lists.
#[derive(Debug)]
pub struct Answer {
    body: Bytes,
    /// Position of each element of each list.
    lists: Vec<Vec<Range<usize>>>,
}

impl Answer {
    /// Finds the predictions of an answer. None when there are not as many as rows, or when the answer says anything else.
    pub fn read(body: &Bytes, rows: usize) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let mut scanner = Scanner::new(text);
        let mut lists = Vec::new();
        let mut list = |scanner: &mut Scanner<'_>| {
            let mut elements = Vec::with_capacity(rows);
            scanner.array(|scanner, number| {
                elements.push(scanner.skip()?);
                (number < rows).then_some(())
            })?;
            let fits = elements.len() == rows;
            lists.push(elements);
            fits.then_some(())
        };
        let members = scanner.object(|scanner, key, _| {
            (text.get(key)? == "\"predictions\"").then_some(())?;
            match scanner.peek()? {
                b'[' => list(scanner),
                _ => scanner.object(|scanner, _, _| list(scanner)).map(drop),
            }
        })?;
        (members == 1 && scanner.is_at_end() && !lists.is_empty() && rows > 0)
            .then(|| Self { body: body.clone(), lists })
    }

    /// Cuts out the answer that the model would have given to these rows alone.
    pub fn part(&self, rows: Range<usize>) -> Bytes {
        let mut part = BytesMut::with_capacity(self.body.len());
        let mut copied = 0;
        for list in &self.lists {
            let (Some(first), Some(last)) = (list.first(), list.last()) else { continue };
            part.put_slice(self.at(copied..first.start));
            if let (Some(from), Some(to)) =
                (list.get(rows.start), rows.end.checked_sub(1).and_then(|row| list.get(row)))
            {
                part.put_slice(self.at(from.start..to.end));
            }
            copied = last.end;
        }
        part.put_slice(self.at(copied..self.body.len()));
        part.freeze()
    }

    fn at(&self, range: Range<usize>) -> &[u8] {
        self.body.get(range).unwrap_or_default()
    }
}
