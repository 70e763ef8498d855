//! The values of a document, read as a tree.

use std::sync::Arc;

use rhai::ImmutableString;

use super::cursor::{Cursor, JsonNumber};
use super::{DEEPEST, JsonError, TOO_DEEP};
use crate::routing::condition::value::{Dict, Value};

/// Most digits of a whole number. Python refuses a longer one, since reading takes the square of the number of digits.
const MOST_DIGITS: usize = 4300;

/// A list or dictionary that is not read to its end yet.
enum OpenContainer {
    List(Vec<Value>),
    /// A dictionary, with the key whose value comes next.
    Dict(Vec<(ImmutableString, Value)>, ImmutableString),
}

impl Cursor<'_> {
    /// Reads the next value. The depth of nesting takes no stack.
    pub(in crate::routing::condition) fn value(&mut self) -> Result<Value, JsonError> {
        let mut open: Vec<OpenContainer> = Vec::new();
        loop {
            let mut value = match self.peek() {
                Some(bracket @ (b'[' | b'{')) => {
                    if open.len() == DEEPEST {
                        return Err(self.broken(TOO_DEEP));
                    }
                    let is_empty = !self.enter(bracket)?;
                    match (bracket, is_empty) {
                        (b'[', true) => Value::List([].into()),
                        (_, true) => Value::Dict(Arc::default()),
                        (b'[', false) => {
                            open.push(OpenContainer::List(Vec::new()));
                            continue;
                        }
                        (_, false) => {
                            open.push(OpenContainer::Dict(Vec::new(), self.key_text()?));
                            continue;
                        }
                    }
                }
                _ => self.scalar()?,
            };
            loop {
                // After a value: the innermost container takes it and goes on, or ends and is a value itself.
                value = match open.pop() {
                    None => return Ok(value),
                    Some(OpenContainer::List(mut items)) => {
                        items.push(value);
                        if self.next(b'[')? {
                            open.push(OpenContainer::List(items));
                            break;
                        }
                        Value::List(items.into())
                    }
                    Some(OpenContainer::Dict(mut entries, key)) => {
                        entries.push((key, value));
                        if self.next(b'{')? {
                            open.push(OpenContainer::Dict(entries, self.key_text()?));
                            break;
                        }
                        Value::Dict(Arc::new(Dict::from_text_keys(entries)))
                    }
                };
            }
        }
    }

    fn key_text(&mut self) -> Result<ImmutableString, JsonError> {
        self.key()?.text().map(|text| text.as_ref().into())
    }

    fn scalar(&mut self) -> Result<Value, JsonError> {
        match self.peek() {
            Some(b'"') => self.string()?.text().map(|text| Value::text(text.as_ref())),
            Some(b't') => self.word("true").map(|()| Value::Bool(true)),
            Some(b'f') => self.word("false").map(|()| Value::Bool(false)),
            Some(b'n') => self.word("null").map(|()| Value::None),
            _ => match self.number()? {
                JsonNumber::Constant(float) => Ok(Value::Float(float)),
                JsonNumber::Float(written) => {
                    written.parse().map(Value::Float).map_err(|_| self.broken("a number cannot be read"))
                }
                JsonNumber::Int(written) if written.len() > MOST_DIGITS && digits(written) > MOST_DIGITS => {
                    Err(self.broken("a whole number has more than 4300 digits"))
                }
                JsonNumber::Int(written) => Ok(written.parse().map_or(Value::Beyond, Value::Int)),
            },
        }
    }
}

fn digits(written: &str) -> usize {
    written.trim_start_matches('-').len()
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    fn shown(document: &str) -> String {
        read(document.as_bytes()).map_or_else(|error| error.to_string(), |value| format!("{value:?}"))
    }

    #[test]
    fn numbers_read_as_in_python() {
        for (document, value) in [
            ("-0", "Int(0)"),
            ("-0.0", "Float(-0.0)"),
            ("9223372036854775807", "Int(9223372036854775807)"),
            ("9223372036854775808", "Beyond"),
            ("9223372036854775808.0", "Float(9.223372036854776e18)"),
            ("1e400", "Float(inf)"),
            ("-1e400", "Float(-inf)"),
            ("[NaN, Infinity, -Infinity]", "List([Float(NaN), Float(inf), Float(-inf)])"),
        ] {
            assert_eq!(shown(document), value);
        }
        assert_eq!(shown(&"9".repeat(4300)), "Beyond");
        assert!(shown(&"9".repeat(4301)).contains("4300 digits"));
    }

    #[test]
    fn value_is_read_when_at_depth_limit() {
        let nested = |depth: usize| ["[", "]"].map(|bracket| bracket.repeat(depth)).concat();
        let deepest = read(nested(DEEPEST).as_bytes()).unwrap();
        assert!(serde_json::to_string(&deepest).unwrap() == nested(DEEPEST));
        assert!(shown(&nested(DEEPEST + 1)).contains("deeper than 500 levels"));
    }

    /// Decision services get JSON of the strict kind.
    #[test]
    fn value_is_written_as_strict_json_when_odd() {
        let odd = read(br#"["a\ud83d", NaN, 1e400, "\ud83d\ude00"]"#).unwrap();
        assert_eq!(serde_json::to_string(&odd).unwrap(), "[\"a\u{fffd}\",null,null,\"😀\"]");
    }

    #[test]
    fn dict_keeps_first_place_and_last_value_when_key_repeats() {
        let read = shown(r#"{"a": 1, "b": 2, "a": 3}"#);
        let (a, b) = (read.find("\"a\"").unwrap(), read.find("\"b\"").unwrap());
        assert!(a < b && read.contains("Int(3)") && !read.contains("Int(1)"), "{read}");
    }
}
