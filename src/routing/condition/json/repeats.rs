//! The search for keys that are written twice in one object, of which the last counts.
//!
//! To find the last one, an object has to be read to its end; for the object that is the whole body, that is all of the
//! body. The search for the key's bytes is several times faster than reading: a key that is found nowhere in the rest
//! of the document does not come again, and where the bytes are found, reading the objects in between shows whether the
//! key belongs to the same object.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::JsonError;
use super::cursor::Cursor;

/// Start of an escaped character below U+0100. ASCII characters are hardly ever written like that, so a hit is rare.
static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\u00"));

/// A key that is searched.
#[derive(Debug, Clone)]
pub(in crate::routing::condition) struct SoughtKey {
    text: Box<str>,
    /// Searcher for the key in quotation marks.
    quoted: Finder<'static>,
    /// True if the key can only be escaped by way of [`ESCAPE`].
    is_plain: bool,
}

impl SoughtKey {
    pub(in crate::routing::condition) fn new(text: &str) -> Self {
        let quoted = Finder::new(&format!("\"{text}\"")).into_owned();
        let is_plain = |byte: u8| (0x20..0x7F).contains(&byte) && !b"\"\\/".contains(&byte);
        Self { text: text.into(), quoted, is_plain: text.bytes().all(is_plain) }
    }
}

/// The scan for the next place where a key may stand. Each place is searched once, so that all scans together take one
/// pass.
struct KeyScan<'a> {
    key: &'a SoughtKey,
    document: &'a [u8],
    /// Next place where the key stands in quotation marks; [`NOWHERE`] if there is none.
    quoted: usize,
    /// Next place before `quoted` where a part of the key may be escaped, or else `quoted`.
    escaped: usize,
}

/// An offset beyond all documents.
const NOWHERE: usize = usize::MAX;

impl<'a> KeyScan<'a> {
    fn new(key: &'a SoughtKey, document: &'a [u8]) -> Self {
        Self { key, document, quoted: 0, escaped: 0 }
    }

    /// Returns the next place where the key may stand, at or after `from`, which is never the very start of the
    /// document.
    fn next(&mut self, from: usize) -> Option<usize> {
        let rest = self.document.get(from..).unwrap_or_default();
        if self.quoted < from {
            self.quoted = self.key.quoted.find(rest).map_or(NOWHERE, |found| from + found);
        }
        if self.escaped < from {
            let before = rest.get(..self.quoted.saturating_sub(from)).unwrap_or(rest);
            // Most documents have no backslash, and the search for one byte is the fastest.
            let found = memchr::memchr(b'\\', before).and_then(|first| {
                let is_ascii = |at: &usize| before.get(at + 4).is_some_and(|digit| (b'2'..b'8').contains(digit));
                let escapes = || ESCAPE.find_iter(before.get(first..).unwrap_or_default()).map(|at| first + at);
                if self.key.is_plain { escapes().find(is_ascii) } else { Some(first) }
            });
            self.escaped = found.map_or(self.quoted, |found| from + found);
        }
        Some(self.escaped).filter(|place| *place != NOWHERE)
    }
}

impl Cursor<'_> {
    /// Goes into the next object, and to the last value that it has under this key. Tells whether there is any.
    pub(in crate::routing::condition) fn seek(&mut self, key: &SoughtKey) -> Result<bool, JsonError> {
        let (mut last, mut ahead) = (None, KeyScan::new(key, self.bytes));
        let mut is_inside = self.enter(b'{')?;
        while is_inside {
            if self.key()?.is(&key.text) {
                last = Some(self.at);
            }
            // Once found, the rest is read only while the key may come again.
            if last.is_some() && ahead.next(self.at).is_none() {
                break;
            }
            self.skip()?;
            is_inside = self.next(b'{')?;
        }
        self.at = last.unwrap_or(self.at);
        Ok(last.is_some())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::read;
    use super::*;
    use crate::routing::condition::value::Value;

    fn sought(document: &str, key: &str) -> Option<i64> {
        let mut cursor = Cursor::new(document.as_bytes());
        if !cursor.seek(&SoughtKey::new(key)).unwrap() {
            return None;
        }
        match cursor.value().unwrap() {
            Value::Int(int) => Some(int),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn seek_finds_last_value_when_key_repeats() {
        for (document, key, found) in [
            (r#"{"a": 1, "b": 2, "a": 3}"#, "a", Some(3)),
            (r#"{"a": 1, "b": {"a": 2}, "c": ["a"], "d": "\"a\""}"#, "a", Some(1)),
            (r#"{"a": 1, "\u0061": 2}"#, "a", Some(2)),
            (r#"{"\u0061": 1, "b": "\u00e9 \u0061"}"#, "a", Some(1)),
            (r#"{"b": 0}"#, "a", None),
            (r#"{}"#, "a", None),
            (r#"{"é": 1, "\u00E9": 2}"#, "é", Some(2)),
            (r#"{"a/b": 1, "a\/b": 2}"#, "a/b", Some(2)),
            ("{\"\u{7f}\": 1, \"\\u007f\": 2}", "\u{7f}", Some(2)),
            (r#"{"\n": 1, "\u000a": 2}"#, "\n", Some(2)),
            (r#"{"\"": 1, "\u0022": 2}"#, "\"", Some(2)),
            (r#"{"": 1, "a": "", "": 2}"#, "", Some(2)),
        ] {
            assert_eq!(sought(document, key), found, "{document}");
        }
    }

    /// A document is passed once, however often its bytes look like the key.
    #[test]
    fn seek_takes_one_pass_when_key_seems_to_repeat() {
        for entry in [r#""b":"\u0061""#, r#""b":"\"a\"""#, r#""b":["a"]"#, r#""b":{"a":"\u0061"}"#, r#""\u0062":1"#] {
            let entries = [r#""a":1"#, entry].into_iter().chain(std::iter::repeat_n(entry, 50_000)).collect::<Vec<_>>();
            let begun = std::time::Instant::now();
            assert_eq!(sought(&format!("{{{}}}", entries.join(",")), "a"), Some(1), "{entry}");
            // A pass for each entry would take minutes.
            assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}: {entry}", begun.elapsed());
        }
    }

    /// Small documents in which keys come again, at every depth and in every spelling.
    fn documents() -> impl Strategy<Value = String> {
        let leaf =
            prop_oneof![(0..9_i64).prop_map(|number| number.to_string()), Just(r#""\"a\" \u0061 é""#.to_owned())];
        let tree = leaf.prop_recursive(3, 24, 4, |inner| {
            let key =
                prop::sample::select(vec!["\"a\"", r#""\u0061""#, "\"b\"", "\"\\\"a\\\"\"", "\"é\"", r#""\u00e9""#]);
            prop_oneof![
                prop::collection::vec((key, inner.clone()), 0..4).prop_map(|entries| {
                    let entries: Vec<_> = entries.iter().map(|(key, value)| format!("{key}: {value}")).collect();
                    format!("{{{}}}", entries.join(","))
                }),
                prop::collection::vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(","))),
            ]
        });
        tree.prop_map(|tree| format!("{{\"z\": {tree}, \"a\": {tree}}}"))
    }

    proptest! {
        #[test]
        fn seek_agrees_with_whole_read(document in documents(), key in prop::sample::select(vec!["a", "b", "é", "z"])) {
            let Value::Dict(whole) = read(document.as_bytes()).unwrap() else { panic!("{document}") };
            let mut cursor = Cursor::new(document.as_bytes());
            let found = cursor.seek(&SoughtKey::new(key)).unwrap().then(|| cursor.value().unwrap());
            prop_assert_eq!(format!("{:?}", found.as_ref()), format!("{:?}", whole.get_text(key)));
        }
    }
}
