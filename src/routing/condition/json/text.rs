//! The text of strings, which in Python may hold half of a character.
//!
//! A character beyond U+FFFF is escaped as two halves, surrogates, and a program that cuts text by UTF-16 leaves one
//! alone. Python's text holds such a half, Rust's cannot. So each half has a stand-in, one of the last 2,048 characters
//! for private use; where a stand-in would differ from its half, it is treated as that half.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::JsonError;
use super::cursor::JsonString;

/// Codes of the surrogates.
const SURROGATES: std::ops::RangeInclusive<u32> = 0xD800..=0xDFFF;
/// Distance from a surrogate's code to that of its stand-in.
const AWAY: u32 = 0x10_F800 - 0xD800;
/// First byte of a stand-in in UTF-8; few other characters have it.
const FIRST_BYTE: u8 = 0xF4;

impl<'a> JsonString<'a> {
    /// Decodes the text of the string.
    pub(super) fn text(self) -> Result<Cow<'a, str>, JsonError> {
        if !self.has_escapes
            && let Ok(text) = std::str::from_utf8(self.raw)
        {
            return Ok(Cow::Borrowed(text));
        }
        let mut text = String::with_capacity(self.raw.len());
        let mut rest = self.raw;
        while let Some(length) = memchr::memchr(b'\\', rest) {
            let (run, escape) = rest.split_at(length);
            self.append(&mut text, run)?;
            rest = self.unescape(&mut text, escape)?;
        }
        self.append(&mut text, rest)?;
        Ok(Cow::Owned(text))
    }

    /// Tells whether the string stands for this text.
    pub(super) fn is(self, text: &str) -> bool {
        match self.has_escapes {
            false => self.raw == text.as_bytes(),
            true => self.text().is_ok_and(|own| own == text),
        }
    }

    /// Appends bytes that hold no escape: UTF-8, in which Python also takes lone surrogates.
    fn append(self, text: &mut String, mut bytes: &[u8]) -> Result<(), JsonError> {
        loop {
            let error = match std::str::from_utf8(bytes) {
                Ok(valid) => {
                    text.push_str(valid);
                    return Ok(());
                }
                Err(error) => error,
            };
            let (valid, invalid) = bytes.split_at(error.valid_up_to());
            text.push_str(std::str::from_utf8(valid).unwrap_or_default());
            let [0xED, second @ 0xA0..=0xBF, third @ 0x80..=0xBF, after @ ..] = invalid else {
                return Err(JsonError { what: "a string is not UTF-8", at: self.at });
            };
            text.push(character(0xD000 | u32::from(second & 0x3F) << 6 | u32::from(third & 0x3F)));
            bytes = after;
        }
    }

    /// Appends the character of the escape at the start of these bytes, and returns the bytes after it.
    fn unescape<'b>(self, text: &mut String, bytes: &'b [u8]) -> Result<&'b [u8], JsonError> {
        let unknown = JsonError { what: "an escape in a string is unknown", at: self.at };
        let (escaped, after) = match bytes {
            [_, b'u', ..] => {
                let (unit, after) = unit(bytes).ok_or(unknown)?;
                match unit_of_pair(unit, after) {
                    Some((whole, after)) => (whole, after),
                    None => (character(unit), after),
                }
            }
            [_, short, after @ ..] => {
                let escaped = match short {
                    b'b' => '\u{8}',
                    b'f' => '\u{c}',
                    b'n' => '\n',
                    b'r' => '\r',
                    b't' => '\t',
                    b'"' | b'\\' | b'/' => char::from(*short),
                    _ => return Err(unknown),
                };
                (escaped, after)
            }
            _ => return Err(unknown),
        };
        text.push(escaped);
        Ok(after)
    }
}

/// Returns the unit of UTF-16 that is escaped at the start, and the bytes after it.
fn unit(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    let unit = digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))?;
    Some((unit, bytes.get(6..)?))
}

/// Returns the character of which this unit is the first half, when the second is escaped right after it; and the bytes
/// after that.
fn unit_of_pair(first: u32, after: &[u8]) -> Option<(char, &[u8])> {
    let (second, after) = unit(after).filter(|_| (0xD800..0xDC00).contains(&first))?;
    let low = (0xDC00..0xE000).contains(&second).then(|| second - 0xDC00)?;
    Some((character(0x1_0000 + ((first - 0xD800) << 10 | low)), after))
}

/// Returns the character with this code, or the stand-in of a surrogate.
fn character(code: u32) -> char {
    let code = if SURROGATES.contains(&code) { code + AWAY } else { code };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Compares two texts by Python's order, where surrogates come before other characters.
pub(in crate::routing::condition) fn order(left: &str, right: &str) -> Ordering {
    if !left.bytes().chain(right.bytes()).any(|byte| byte == FIRST_BYTE) {
        return left.cmp(right);
    }
    let code = |character: char| match u32::from(character).checked_sub(AWAY) {
        Some(surrogate) if SURROGATES.contains(&surrogate) => surrogate,
        _ => u32::from(character),
    };
    left.chars().map(code).cmp(right.chars().map(code))
}

/// Returns the text for readers that take whole characters only.
pub(in crate::routing::condition) fn shown(text: &str) -> Cow<'_, str> {
    let is_stand_in = |character: char| SURROGATES.contains(&u32::from(character).wrapping_sub(AWAY));
    if text.as_bytes().contains(&FIRST_BYTE) && text.contains(is_stand_in) {
        return text.replace(is_stand_in, "\u{fffd}").into();
    }
    Cow::Borrowed(text)
}

#[cfg(test)]
mod tests {
    use super::super::Cursor;
    use super::*;

    fn text(raw: &[u8]) -> Option<String> {
        Cursor::new(raw).string().and_then(JsonString::text).map(Cow::into_owned).ok()
    }

    #[test]
    fn string_decodes_escapes() {
        assert_eq!(text(br#""a\"\\\/\b\f\n\r\t\u00e9\u20AC\ud83d\ude00z""#).unwrap(), "a\"\\/\u{8}\u{c}\n\r\té€😀z");
        assert_eq!(text("\"é€😀\u{7f}\"".as_bytes()).unwrap(), "é€😀\u{7f}");
        assert_eq!(text(b"\"\xff\""), None);
        assert_eq!(text(b"\"\xed\xa0\""), None);
    }

    #[test]
    fn string_keeps_surrogate_when_alone() {
        let halves: [&[u8]; 5] = [
            br#""\ud83d""#,
            br#""\uDE00\ud83d""#,
            b"\"\xed\xa0\xbd\"",
            b"\"\xed\xa0\xbd\xed\xb8\x80\"",
            br#""\ud83dx\ude00""#,
        ];
        for (raw, characters) in halves.into_iter().zip([1, 2, 1, 2, 3]) {
            assert_eq!(text(raw).unwrap().chars().count(), characters, "{raw:?}");
        }
        assert_eq!(text(br#""\ud83d""#), text(b"\"\xed\xa0\xbd\""));
        let half = text(br#""a\ud83d""#).unwrap();
        assert_eq!(shown(&half), "a\u{fffd}");
        assert_eq!(shown("a\u{10ffff}é"), "a\u{fffd}é");
        assert_eq!((order(&half, "a\u{e000}"), order(&half, "aé")), (Ordering::Less, Ordering::Greater));
        assert_eq!(order("a😀", &half), Ordering::Greater);
    }
}
