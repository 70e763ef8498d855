//! Constant ways into the payload, read straight from its bytes.
//!
//! `request.json()['dataframe_split']['data'][0][0]` is known when the condition is loaded, so reading it needs no tree
//! of the whole body: what lies beside the way is skipped, and reading stops at the leaf. What follows from that:
//!
//! - of a key that is written twice the *first* value counts, here and wherever else a condition reads the payload
//!   (Python's `json` takes the last). Taking the last would mean reading every body to its end, and no model server's
//!   client writes a key twice.
//! - text after the leaf is not looked at; the model server will.
//! - `NaN` and `Infinity` are not JSON, although Python writes them; met before or in the leaf, they are an error.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::engine::collections;
use super::error::{ConditionError, Result};
use super::value::Value;

/// One step into a JSON value.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// `['key']`
    Key(Box<str>),
    /// `[3]`
    Index(usize),
    /// `.get('key')` or `.get('key', default)`
    Get(Box<str>, Value),
}

/// A constant way into the payload; with no steps, the whole of it.
#[derive(Debug, Clone)]
pub(super) struct Path {
    pub(super) steps: Vec<Step>,
    /// As errors show it.
    pub(super) text: String,
}

impl Path {
    /// Reads the value at the end of the way.
    pub(super) fn read(&self, payload: &[u8]) -> Result<Value> {
        let mut found = None;
        let mut deserializer = serde_json::Deserializer::from_slice(payload);
        let outcome = Seek { steps: &self.steps, found: &mut found }.deserialize(&mut deserializer);
        match (found, outcome) {
            (Some(result), _) => result,
            (None, Err(error)) => Err(not_json(payload, &error)),
            // Every way through `Seek` leaves something in `found` or fails.
            (None, Ok(())) => Err(ConditionError::Failed("the body could not be read".to_owned())),
        }
        .map_err(|error| error.with_place(&self.text))
    }
}

/// Reads the whole payload.
pub(super) fn read_whole(payload: &[u8]) -> Result<Value> {
    serde_json::from_slice(payload).map_err(|error| not_json(payload, &error).with_place("request.json()"))
}

fn not_json(payload: &[u8], error: &serde_json::Error) -> ConditionError {
    if payload.is_empty() {
        return ConditionError::Failed("the body is empty".to_owned());
    }
    ConditionError::Failed(format!("the body cannot be read as JSON: {error}"))
}

/// Walks the rest of a way through a value that is there already.
fn walk(value: Value, steps: &[Step]) -> Result<Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => collections::item(&value, &Value::text(&**key)),
        Step::Index(index) => collections::item(&value, &Value::Int(i64::try_from(*index).unwrap_or(i64::MAX))),
        Step::Get(key, default) => collections::get(&value, &[Value::text(&**key), default.clone()]),
    })
}

/// Follows the steps through JSON. What it finds goes into `found`; the error it then returns only stops the reading.
struct Seek<'a> {
    steps: &'a [Step],
    found: &'a mut Option<Result<Value>>,
}

impl Seek<'_> {
    fn finish<E: serde::de::Error>(self, value: Value) -> Result<(), E> {
        *self.found = Some(walk(value, self.steps));
        Err(E::custom(""))
    }

    fn fail<E: serde::de::Error>(self, error: ConditionError) -> Result<(), E> {
        *self.found = Some(Err(error));
        Err(E::custom(""))
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.steps.is_empty() {
            let leaf = <Value as serde::Deserialize>::deserialize(deserializer)?;
            return self.finish(leaf);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.finish(Value::None)
    }

    fn visit_bool<E: serde::de::Error>(self, bool: bool) -> Result<(), E> {
        self.finish(Value::Bool(bool))
    }

    fn visit_i64<E: serde::de::Error>(self, int: i64) -> Result<(), E> {
        self.finish(Value::Int(int))
    }

    fn visit_u64<E: serde::de::Error>(self, int: u64) -> Result<(), E> {
        self.finish(i64::try_from(int).map_or(Value::Beyond, Value::Int))
    }

    fn visit_f64<E: serde::de::Error>(self, float: f64) -> Result<(), E> {
        self.finish(Value::Float(float))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.finish(Value::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Some((Step::Index(index), rest)) = self.steps.split_first() else {
            return self.finish(Value::List([].into()));
        };
        for _ in 0..*index {
            if elements.next_element::<IgnoredAny>()?.is_none() {
                return self.fail(collections::index_error("list"));
            }
        }
        match elements.next_element_seed(Seek { steps: rest, found: &mut *self.found })? {
            Some(()) => Err(A::Error::custom("")),
            None => self.fail(collections::index_error("list")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((Step::Key(key) | Step::Get(key, _), rest)) = self.steps.split_first() else {
            return self.finish(Value::Dict(std::sync::Arc::default()));
        };
        while let Some(is_it) = entries.next_key_seed(IsKey(key))? {
            if is_it {
                entries.next_value_seed(Seek { steps: rest, found: &mut *self.found })?;
                return Err(A::Error::custom(""));
            }
            entries.next_value::<IgnoredAny>()?;
        }
        self.finish(Value::Dict(std::sync::Arc::default()))
    }
}

/// Whether the next key is this one, told without copying it.
struct IsKey<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for IsKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}
