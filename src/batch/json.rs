//! JSON of rows: objects and arrays taken apart into their members as they are written, and put together again.

use std::borrow::Cow;
use std::fmt::{self, Formatter};

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Members of an object in their order, names unescaped and values as they are written.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

/// Name of a member, borrowed unless it has an escape.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Takes an array apart into its elements as they are written. None when the text is no array.
pub(super) fn elements(array: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(array).ok()
}

/// Appends a text as a JSON string.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    // Writing to a vector cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Returns the text of a JSON string; None for every other value.
pub(super) fn text(value: &str) -> Option<Cow<'_, str>> {
    if !value.starts_with('"') {
        return None;
    }
    serde_json::from_str::<Name<'_>>(value).ok().map(|name| name.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_order_repeats_and_spelling_of_values() {
        let Members(members) = serde_json::from_str(r#"{"b": 1.50, "\u0061": [1, {"x": 2}], "b": "\u00e9"}"#).unwrap();
        let seen: Vec<_> = members.iter().map(|(name, value)| (&**name, value.get())).collect();
        assert_eq!(seen, [("b", "1.50"), ("a", r#"[1, {"x": 2}]"#), ("b", r#""\u00e9""#)]);
        assert!(serde_json::from_str::<Members<'_>>("[1]").is_err());
        assert!(serde_json::from_str::<Members<'_>>("{\"a\": 1} 2").is_err());
    }

    #[test]
    fn text_is_that_of_strings_alone() {
        assert_eq!(text(r#""a\n\u00e9""#).unwrap(), "a\né");
        assert_eq!(text("\"plain\"").unwrap(), "plain");
        assert_eq!(text("1"), None);
        let mut out = Vec::new();
        push_string(&mut out, "a\"\n");
        assert_eq!(out, b"\"a\\\"\\n\"");
    }
}
