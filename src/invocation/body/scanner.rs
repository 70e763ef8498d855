//! A scanner of JSON that reads as Python's `json` does, and keeps only positions. The scanner may refuse a text that
//! Python takes, and never reads it otherwise than Python does.

use std::ops::Range;

use super::columns::{Cell, CellKind};

/// Levels of the deepest document; deeper ones are refused, since Python itself gives up at some depth.
const DEEPEST: usize = 64;

/// Digits of whole numbers all of which fit into 64 bits.
const LONGEST_INTEGER: usize = 18;

/// Digits of whole numbers all of which are the same as floats.
const LONGEST_EXACT_INTEGER: usize = 15;

/// Keeps a position in a text.
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), at: 0, depth: 0 }
    }

    /// Returns the position, after any white space.
    pub(super) fn here(&mut self) -> usize {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.at
    }

    /// Returns the next byte, after any white space, and does not pass it.
    pub(super) fn peek(&mut self) -> Option<u8> {
        let here = self.here();
        self.bytes.get(here).copied()
    }

    /// Passes this byte, after any white space; none when another one is there.
    pub(super) fn pass(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    /// Tells whether nothing but white space is left.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// Passes an array, each of whose elements is passed by `element`, which is given its number. Returns the place of the
    /// content, from the first element to the end of the last, and the number of elements.
    pub(super) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self, usize) -> Option<()>,
    ) -> Option<(Range<usize>, usize)> {
        self.enter(b'[')?;
        let start = self.here();
        let (mut end, mut count) = (start, 0);
        if self.peek()? != b']' {
            loop {
                element(self, count)?;
                (end, count) = (self.at, count + 1);
                match self.peek()? {
                    b',' => self.at += 1,
                    _ => break,
                }
            }
        }
        self.leave(b']')?;
        Some((start..end, count))
    }

    /// Passes an object, each of whose values is passed by `value`, which is given the place of its key and its number.
    /// Returns the number of values.
    pub(super) fn object(
        &mut self,
        mut value: impl FnMut(&mut Self, Range<usize>, usize) -> Option<()>,
    ) -> Option<usize> {
        self.enter(b'{')?;
        let mut count = 0;
        if self.peek()? != b'}' {
            loop {
                let key = self.string()?;
                self.pass(b':')?;
                value(self, key, count)?;
                count += 1;
                match self.peek()? {
                    b',' => self.at += 1,
                    _ => break,
                }
            }
        }
        self.leave(b'}')?;
        Some(count)
    }

    /// Passes any value, and returns its place.
    pub(super) fn skip(&mut self) -> Option<Range<usize>> {
        let start = self.here();
        match self.peek()? {
            b'[' => {
                self.array(|scanner, _| scanner.skip().map(drop))?;
            }
            b'{' => {
                self.object(|scanner, _, _| scanner.skip().map(drop))?;
            }
            _ => {
                self.scalar()?;
            }
        }
        Some(start..self.at)
    }

    /// Passes a value, and describes it as seen from outside. None for lists whose elements are not alike, since no two
    /// readers agree on their type.
    pub(super) fn cell(&mut self) -> Option<Cell> {
        match self.peek()? {
            b'[' => {
                let mut inside = None;
                let (_, count) = self.array(|scanner, _| {
                    let cell = scanner.cell()?;
                    inside = Some(inside.map_or(Some(cell), |inside: Cell| inside.beside(cell))?);
                    Some(())
                })?;
                Some(inside.unwrap_or_default().in_list(count))
            }
            b'{' => {
                self.skip()?;
                Some(CellKind::Object.into())
            }
            _ => self.scalar().map(Cell::from),
        }
    }

    /// Passes a value that is neither an array nor an object, and returns its place.
    pub(super) fn skip_scalar(&mut self) -> Option<Range<usize>> {
        let start = self.here();
        self.scalar()?;
        Some(start..self.at)
    }

    fn scalar(&mut self) -> Option<CellKind> {
        match self.peek()? {
            b'"' => self.string().map(|_| CellKind::Text),
            b't' => self.word("true").map(|()| CellKind::Boolean),
            b'f' => self.word("false").map(|()| CellKind::Boolean),
            b'n' => self.word("null").map(|()| CellKind::Null),
            b'N' => self.word("NaN").map(|()| CellKind::NotANumber),
            b'I' => self.word("Infinity").map(|()| CellKind::Float),
            b'-' if self.bytes.get(self.at + 1) == Some(&b'I') => self.word("-Infinity").map(|()| CellKind::Float),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.bytes.get(self.at..)?.starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    /// Passes a string, and returns its place, with its quotation marks.
    pub(super) fn string(&mut self) -> Option<Range<usize>> {
        let start = self.here();
        self.pass(b'"')?;
        loop {
            match *self.bytes.get(self.at)? {
                b'"' => break,
                b'\\' => match *self.bytes.get(self.at + 1)? {
                    b'u' => {
                        let digits = self.bytes.get(self.at + 2..self.at + 6)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.at += 6;
                    }
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
                    _ => return None,
                },
                ..b' ' => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(start..self.at)
    }

    fn number(&mut self) -> Option<CellKind> {
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        let leading_zero = self.bytes.get(self.at) == Some(&b'0');
        let digits = self.digits()?;
        if leading_zero && digits > 1 {
            return None;
        }
        let mut is_float = false;
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
            is_float = true;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
            is_float = true;
        }
        Some(match digits {
            _ if is_float => CellKind::Float,
            digits if digits <= LONGEST_EXACT_INTEGER => CellKind::Integer,
            digits if digits <= LONGEST_INTEGER => CellKind::LargeInteger,
            _ => CellKind::HugeInteger,
        })
    }

    /// Passes digits, at least one, and returns their number.
    fn digits(&mut self) -> Option<usize> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        (self.at > start).then(|| self.at - start)
    }

    fn enter(&mut self, bracket: u8) -> Option<()> {
        self.depth += 1;
        if self.depth > DEEPEST { None } else { self.pass(bracket) }
    }

    fn leave(&mut self, bracket: u8) -> Option<()> {
        self.depth -= 1;
        self.pass(bracket)
    }
}
