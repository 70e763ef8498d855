//! The cursor: a place in a document, and the ways to go on from there.

use memchr::memchr2;

use super::{JsonError, NAN};

/// A place in a document.
#[derive(Debug, Clone)]
pub(in crate::routing::condition) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

/// A string, as it stands between its quotation marks.
#[derive(Debug, Clone, Copy)]
pub(super) struct JsonString<'a> {
    pub(super) raw: &'a [u8],
    pub(super) has_escapes: bool,
    /// Offset at which the string begins.
    pub(super) at: usize,
}

/// A number, as it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum JsonNumber<'a> {
    Int(&'a str),
    Float(&'a str),
    /// One of `NaN`, `Infinity` and `-Infinity`.
    Constant(f64),
}

/// The kind of a value, as far as a path into it depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::routing::condition) enum JsonKind {
    Object,
    Array,
    Scalar,
}

impl<'a> Cursor<'a> {
    pub(in crate::routing::condition) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns the next byte after any white space, without passing it.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    /// Returns the kind of the next value.
    pub(in crate::routing::condition) fn kind(&mut self) -> JsonKind {
        match self.peek() {
            Some(b'{') => JsonKind::Object,
            Some(b'[') => JsonKind::Array,
            _ => JsonKind::Scalar,
        }
    }

    /// Passes this byte, if it is the next after any white space. Tells whether it was.
    pub(super) fn pass(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Goes into an array or an object, by this bracket. Tells whether there is anything in it.
    pub(in crate::routing::condition) fn enter(&mut self, bracket: u8) -> Result<bool, JsonError> {
        if !self.pass(bracket) {
            return Err(self.broken("a value is missing"));
        }
        Ok(!self.pass(closing(bracket)))
    }

    /// Goes on to the next element or entry. Tells whether there is one; there is none after the closing bracket.
    pub(in crate::routing::condition) fn next(&mut self, bracket: u8) -> Result<bool, JsonError> {
        if self.pass(b',') {
            return Ok(true);
        }
        if self.pass(closing(bracket)) {
            return Ok(false);
        }
        Err(self.broken("a comma or a closing bracket is missing"))
    }

    /// Passes a key and its colon.
    pub(super) fn key(&mut self) -> Result<JsonString<'a>, JsonError> {
        let key = self.string()?;
        if self.pass(b':') { Ok(key) } else { Err(self.broken("a colon is missing")) }
    }

    /// Passes any value. The depth of nesting takes no stack.
    pub(in crate::routing::condition) fn skip(&mut self) -> Result<(), JsonError> {
        let mut open = Vec::new();
        loop {
            match self.peek() {
                Some(bracket @ (b'[' | b'{')) => {
                    if self.enter(bracket)? {
                        open.push(bracket);
                        if bracket == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                _ => self.skip_word()?,
            }
            loop {
                // After a value: the innermost container goes on, or ends and is a value itself.
                let Some(bracket) = open.last().copied() else { return Ok(()) };
                if self.next(bracket)? {
                    if bracket == b'{' {
                        self.key()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }

    /// Goes into the next array, and to its element of this number. Tells whether there is one.
    pub(in crate::routing::condition) fn seek_element(&mut self, index: usize) -> Result<bool, JsonError> {
        let mut is_inside = self.enter(b'[')?;
        for _ in 0..index {
            if !is_inside {
                break;
            }
            self.skip()?;
            is_inside = self.next(b'[')?;
        }
        Ok(is_inside)
    }

    /// Checks that nothing but white space is left.
    pub(super) fn end(&mut self) -> Result<(), JsonError> {
        if self.peek().is_none() { Ok(()) } else { Err(self.broken("there is something after the value")) }
    }

    fn skip_word(&mut self) -> Result<(), JsonError> {
        match self.bytes.get(self.at) {
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => self.number().map(drop),
        }
    }

    /// Passes this word.
    pub(super) fn word(&mut self, word: &str) -> Result<(), JsonError> {
        if self.rest().starts_with(word.as_bytes()) {
            self.at += word.len();
            return self.delimited();
        }
        Err(self.broken("a value is missing"))
    }

    /// Checks that a word or a number ends here.
    fn delimited(&self) -> Result<(), JsonError> {
        match self.rest() {
            [] | [b' ' | b'\n' | b'\r' | b'\t' | b',' | b']' | b'}', ..] => Ok(()),
            _ => Err(self.broken("a word or a number goes on as something else")),
        }
    }

    /// Passes a string. Control characters in strings must be escaped.
    pub(super) fn string(&mut self) -> Result<JsonString<'a>, JsonError> {
        if !self.pass(b'"') {
            return Err(self.broken("a quotation mark is missing"));
        }
        let start = self.at;
        let mut has_escapes = false;
        loop {
            let Some(length) = memchr2(b'"', b'\\', self.rest()) else {
                self.at = start - 1;
                return Err(self.broken("a string has no end"));
            };
            let run = self.rest().get(..length).unwrap_or_default();
            // The fold has no branch for each byte, which is far faster.
            if run.iter().fold(false, |found, byte| found | (*byte < 0x20)) {
                return Err(self.broken("a string holds a control character"));
            }
            self.at += length + 1;
            if self.bytes.get(self.at - 1) == Some(&b'"') {
                let raw = self.bytes.get(start..self.at - 1).unwrap_or_default();
                return Ok(JsonString { raw, has_escapes, at: start });
            }
            has_escapes = true;
            self.escape()?;
        }
    }

    /// Passes what follows a backslash.
    fn escape(&mut self) -> Result<(), JsonError> {
        match self.rest() {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => self.at += 1,
            [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => self.at += 5,
            _ => return Err(self.broken("an escape in a string is unknown")),
        }
        Ok(())
    }

    /// Passes a number.
    pub(super) fn number(&mut self) -> Result<JsonNumber<'a>, JsonError> {
        for (word, value) in [("NaN", NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)] {
            if self.rest().starts_with(word.as_bytes()) {
                self.word(word)?;
                return Ok(JsonNumber::Constant(value));
            }
        }
        let start = self.at;
        self.at += usize::from(self.rest().starts_with(b"-"));
        let whole = match self.rest() {
            [b'0', ..] => 1,
            rest => digits(rest),
        };
        if whole == 0 {
            self.at = start;
            return Err(self.broken("a value is missing"));
        }
        self.at += whole;
        let mut is_float = false;
        if let [b'.', rest @ ..] = self.rest()
            && digits(rest) > 0
        {
            self.at += 1 + digits(rest);
            is_float = true;
        }
        if let [b'e' | b'E', rest @ ..] = self.rest() {
            let signed = usize::from(matches!(rest, [b'+' | b'-', ..]));
            let exponent = digits(rest.get(signed..).unwrap_or_default());
            if exponent > 0 {
                self.at += 1 + signed + exponent;
                is_float = true;
            }
        }
        self.delimited()?;
        // The bytes are ASCII, so the conversion never fails.
        let written = self.bytes.get(start..self.at).and_then(|digits| std::str::from_utf8(digits).ok());
        let written = written.unwrap_or_default();
        Ok(if is_float { JsonNumber::Float(written) } else { JsonNumber::Int(written) })
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn broken(&self, what: &'static str) -> JsonError {
        JsonError { what, at: self.at }
    }
}

fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn closing(bracket: u8) -> u8 {
    if bracket == b'[' { b']' } else { b'}' }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(text: &str) -> Option<usize> {
        let mut cursor = Cursor::new(text.as_bytes());
        cursor.skip().ok().map(|()| cursor.at)
    }

    #[test]
    fn skip_stops_where_python_does() {
        for whole in [
            "0",
            "-0",
            "12",
            "-1.5e-3",
            "1E400",
            "NaN",
            "Infinity",
            "-Infinity",
            "true",
            "null",
            "\"\"",
            "[]",
            "{ }",
            " [ 1 , [ ] , {} ]",
            "{\"a\" : {\"b\":[]}, \"\\u00e9\\n\": -0.0}",
            "\"\u{7f}\u{2028}\"",
        ] {
            assert_eq!(skipped(whole), Some(whole.len()), "{whole}");
        }
        assert_eq!(skipped("1 2"), Some(1));
        for broken in [
            "",
            " ",
            "-",
            "+1",
            ".5",
            "nan",
            "nul",
            "-I",
            "[",
            "[1",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{a: 1}",
            "{\"a\": 1,}",
            "{,}",
            "[}",
            "\"",
            "\"a",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u123g\"",
            "'a'",
            "// a\n1",
            "01",
            "1.",
            "1.e5",
            "2e",
            "-1e+",
            "NaNa",
            "truex",
            "1_0",
            "0x1",
        ] {
            assert_eq!(skipped(broken), None, "{broken}");
        }
    }

    #[test]
    fn skip_takes_no_stack_when_nesting_is_deep() {
        let deep = ["[", "]"].map(|bracket| bracket.repeat(1 << 20)).concat();
        assert_eq!(skipped(&deep), Some(deep.len()));
        assert_eq!(skipped(&"{\"a\":".repeat(1 << 20)), None);
    }
}
