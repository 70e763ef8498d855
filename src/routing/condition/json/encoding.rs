//! The encodings of JSON, which Python's `json` recognises by a document's first bytes.

use super::super::error::Result;
use super::JsonError;

/// The encoding of a document, with the bytes of its byte order mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::routing::condition) enum Encoding {
    /// UTF-8, after a byte order mark of this many bytes.
    Utf8(usize),
    Utf16(Endian, usize),
    Utf32(Endian, usize),
}

/// The order of the bytes of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::routing::condition) enum Endian {
    Big,
    Little,
}

impl Encoding {
    /// Recognises the encoding by the rule of `json.detect_encoding`: by the mark, or else by the zeros of the first
    /// characters, which are ASCII in any JSON.
    pub(in crate::routing::condition) fn of(document: &[u8]) -> Self {
        match document {
            [0, 0, 0xFE, 0xFF, ..] => Self::Utf32(Endian::Big, 4),
            [0xFF, 0xFE, 0, 0, ..] => Self::Utf32(Endian::Little, 4),
            [0xFE, 0xFF, ..] => Self::Utf16(Endian::Big, 2),
            [0xFF, 0xFE, ..] => Self::Utf16(Endian::Little, 2),
            [0xEF, 0xBB, 0xBF, ..] => Self::Utf8(3),
            [0, 0, _, _, ..] => Self::Utf32(Endian::Big, 0),
            [0, _, _, _, ..] | [0, _] => Self::Utf16(Endian::Big, 0),
            [_, 0, 0, 0, ..] => Self::Utf32(Endian::Little, 0),
            [_, 0, _, _, ..] | [_, 0] => Self::Utf16(Endian::Little, 0),
            _ => Self::Utf8(0),
        }
    }
}

/// Converts a document to UTF-8, with surrogates as Python's `surrogatepass` has them.
///
/// # Errors
/// Fails when the document is not in the encoding that its first bytes promise.
pub(in crate::routing::condition) fn transcoded(document: &[u8], encoding: Encoding) -> Result<Vec<u8>> {
    let broken = |what, at| JsonError { what, at }.of(document);
    let mut written = Vec::with_capacity(document.len());
    match encoding {
        Encoding::Utf8(mark) => written.extend_from_slice(document.get(mark..).unwrap_or_default()),
        Encoding::Utf16(endian, mark) => {
            let (units, rest) = document.get(mark..).unwrap_or_default().as_chunks::<2>();
            if !rest.is_empty() {
                return Err(broken("half a character of UTF-16 is left", document.len() - 1));
            }
            let units = units.iter().map(|unit| match endian {
                Endian::Big => u16::from_be_bytes(*unit),
                Endian::Little => u16::from_le_bytes(*unit),
            });
            for decoded in char::decode_utf16(units) {
                push(&mut written, decoded.map_or_else(|lone| u32::from(lone.unpaired_surrogate()), u32::from));
            }
        }
        Encoding::Utf32(endian, mark) => {
            let (units, rest) = document.get(mark..).unwrap_or_default().as_chunks::<4>();
            for (index, unit) in units.iter().enumerate() {
                let code = match endian {
                    Endian::Big => u32::from_be_bytes(*unit),
                    Endian::Little => u32::from_le_bytes(*unit),
                };
                if code > u32::from(char::MAX) {
                    return Err(broken("there is no such character of UTF-32", mark + 4 * index));
                }
                push(&mut written, code);
            }
            if !rest.is_empty() {
                return Err(broken("a part of a character of UTF-32 is left", document.len() - rest.len()));
            }
        }
    }
    Ok(written)
}

fn push(written: &mut Vec<u8>, code: u32) {
    match char::from_u32(code) {
        Some(character) => written.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        // A surrogate becomes the three bytes of UTF-8 that it would have as a character.
        None => written.extend([0xE0 | code >> 12, 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F].map(|byte| byte as u8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf8(document: &[u8]) -> Option<Vec<u8>> {
        transcoded(document, Encoding::of(document)).ok()
    }

    #[test]
    fn encoding_is_recognised_by_first_bytes() {
        let text = "{\"é😀\": 1}";
        let (sixteen, thirty_two): (Vec<u16>, Vec<u32>) =
            (text.encode_utf16().collect(), text.chars().map(u32::from).collect());
        let bytes = |big: bool, mark: bool| {
            let sixteen: Vec<u8> = mark
                .then_some(0xFEFF)
                .into_iter()
                .chain(sixteen.iter().copied())
                .flat_map(|unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
                .collect();
            let thirty_two: Vec<u8> = mark
                .then_some(0xFEFF)
                .into_iter()
                .chain(thirty_two.iter().copied())
                .flat_map(|unit: u32| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
                .collect();
            [sixteen, thirty_two]
        };
        for (big, mark) in [(true, true), (true, false), (false, true), (false, false)] {
            for document in bytes(big, mark) {
                assert_eq!(utf8(&document).as_deref(), Some(text.as_bytes()), "{document:?}");
                assert_eq!(utf8(&document[..document.len() - 1]), None, "{document:?}");
            }
        }
        assert_eq!(utf8(text.as_bytes()).as_deref(), Some(text.as_bytes()));
        assert_eq!(utf8(b"\xEF\xBB\xBF1").as_deref(), Some(&b"1"[..]));
        for (short, whole) in [(&b"1\0"[..], &b"1"[..]), (b"\x001", b"1"), (b"1", b"1"), (b"", b"")] {
            assert_eq!(utf8(short).as_deref(), Some(whole));
        }
        assert_eq!(utf8(b"\0\x11\0\0"), Some(vec![0x11, 0]));
        assert_eq!(utf8(b"\0\0\0\x31\0\x11\0\0"), None);
        assert_eq!(utf8(b"\"\0\x3d\xd8\"\0").as_deref(), Some(&b"\"\xed\xa0\xbd\""[..]));
    }
}
