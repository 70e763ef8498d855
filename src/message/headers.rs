//! Kafka record headers: an ordered multimap whose values are bytes, or null.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Holds the headers of one record in one buffer. A header is two ranges of the buffer, so cloning costs one reference
/// count and a short copy, and reading allocates nothing.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    buffer: Bytes,
    entries: Vec<HeaderEntry>,
}

/// Locates one header in the buffer.
#[derive(Debug, Clone)]
struct HeaderEntry {
    name: Range<usize>,
    value: Option<Range<usize>>,
}

/// Collects headers, and any other bytes of a record that should share their buffer.
#[derive(Debug, Default)]
pub struct HeadersBuilder {
    buffer: BytesMut,
    entries: Vec<HeaderEntry>,
}

impl Headers {
    /// Builds headers from pairs, in order.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut builder = HeadersBuilder::default();
        for (name, value) in pairs {
            builder.push(name, Some(value));
        }
        builder.finish()
    }

    /// Iterates over the headers in the order in which they were written. A null value is `None`.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, Option<&[u8]>)> {
        self.entries.iter().map(|entry| {
            let value = entry.value.clone().map(|range| &self.buffer[range]);
            (self.name(entry), value)
        })
    }

    /// Returns the value of the last header with this exact name, as Kafka clients look headers up. A null value counts
    /// as absent.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.last(|candidate| candidate == name.as_bytes())
    }

    /// Returns a value as [`get`](Self::get) does, but compares names as HTTP does: without regard to ASCII case.
    pub fn get_ignoring_case(&self, name: &str) -> Option<&[u8]> {
        self.last(|candidate| candidate.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// Returns the value of the last header with this name, if it is UTF-8 text.
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Removes the last header with this exact name, and returns its value unless that is null.
    pub fn remove_last(&mut self, name: &str) -> Option<Bytes> {
        let index = self.entries.iter().rposition(|entry| self.name(entry) == name)?;
        let entry = self.entries.remove(index);
        entry.value.map(|range| self.buffer.slice(range))
    }

    /// Counts the headers.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether there are no headers.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sums up the bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum()
    }

    fn last(&self, is_sought: impl Fn(&[u8]) -> bool) -> Option<&[u8]> {
        let entry = self.entries.iter().rfind(|entry| is_sought(&self.buffer[entry.name.clone()]))?;
        entry.value.clone().map(|range| &self.buffer[range])
    }

    fn name(&self, entry: &HeaderEntry) -> &str {
        // Names are only ever written from `&str`, so the fallback is never used.
        std::str::from_utf8(&self.buffer[entry.name.clone()]).unwrap_or_default()
    }
}

impl HeadersBuilder {
    /// Allocates room for this many bytes, and this many headers.
    pub fn with_capacity(bytes: usize, headers: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(bytes), entries: Vec::with_capacity(headers) }
    }

    /// Adds a header after those already there.
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) {
        let name = self.append(name.as_bytes());
        let value = value.map(|value| self.append(value));
        self.entries.push(HeaderEntry { name, value });
    }

    /// Adds bytes that are no header, and returns their range in [`Self::finish_with_buffer`]'s buffer.
    pub fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        start..self.buffer.len()
    }

    /// Builds the headers.
    pub fn finish(self) -> Headers {
        self.finish_with_buffer().0
    }

    /// Builds the headers, and returns the buffer that they share with everything that was appended.
    pub fn finish_with_buffer(self) -> (Headers, Bytes) {
        let buffer = self.buffer.freeze();
        let headers = Headers { buffer: buffer.clone(), entries: self.entries };
        (headers, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn get_finds_last_of_several_headers() {
        let headers = Headers::from_pairs([("a", &b"1"[..]), ("b", b"2"), ("a", b"3")]);
        assert_eq!(headers.get("a"), Some(&b"3"[..]));
        assert_eq!(headers.text("b"), Some("2"));
        assert_eq!(headers.get("A"), None);
        assert_eq!(headers.get_ignoring_case("A"), Some(&b"3"[..]));
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn headers_keep_nulls_and_bytes_that_are_not_text() {
        let mut builder = HeadersBuilder::with_capacity(16, 2);
        builder.push("null", None);
        builder.push("raw", Some(&[0xff, 0x00]));
        let payload = builder.append(b"payload");
        let (headers, buffer) = builder.finish_with_buffer();
        assert_eq!(headers.get("null"), None);
        assert_eq!(headers.get("raw"), Some(&[0xff, 0x00][..]));
        assert_eq!(headers.text("raw"), None);
        assert_eq!(&buffer[payload], b"payload");
        assert_eq!(headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["null", "raw"]);
    }
}
