//! A Python value, as a condition meets it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rhai::{Dynamic, ImmutableString};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error, Serialize, Serializer};

/// A Python value. Cloning costs a reference count at most.
///
/// Scalars travel through Rhai as its own types, everything else as this type inside a [`Dynamic`].
#[derive(Debug, Clone)]
pub(in crate::routing) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(ImmutableString),
    List(Arc<[Value]>),
    Tuple(Arc<[Value]>),
    Set(Arc<[Value]>),
    /// What `keys()`, `values()` and `items()` give: something to look through, not a list.
    View(Arc<[Value]>, ViewOf),
    Dict(Arc<Dict>),
    /// A number whose size is beyond 64 bits. JSON does not tell whether it was a whole one, so nothing is computed
    /// with it: whatever touches it fails.
    Beyond,
}

/// A dictionary in the order it was written. A key that is written twice keeps its first value.
#[derive(Debug, Clone, Default)]
pub(in crate::routing) struct Dict {
    entries: Vec<(Value, Value)>,
    /// Where text keys are; only kept when there are enough entries to make looking through them slow.
    index: HashMap<ImmutableString, usize>,
}

/// More entries than this are looked up by hash.
const INDEXED_FROM: usize = 16;

/// What of a dictionary a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::routing) enum ViewOf {
    /// `keys()`
    Keys,
    /// `values()`
    Values,
    /// `items()`
    Items,
}

impl Value {
    /// Text.
    pub(in crate::routing) fn text(text: impl Into<ImmutableString>) -> Self {
        Self::Str(text.into())
    }

    /// Python's name of the type.
    pub(in crate::routing) fn type_name(&self) -> &'static str {
        match self {
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Set(_) => "set",
            Self::View(..) => "dict view",
            Self::Dict(_) => "dict",
            Self::Beyond => "number beyond 64 bits",
        }
    }

    /// As a whole number, which `True` and `False` are as well.
    pub(super) fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(int) => Some(*int),
            Self::Bool(bool) => Some(i64::from(*bool)),
            _ => None,
        }
    }

    /// Takes a value back from Rhai.
    pub(super) fn from_dynamic(dynamic: &Dynamic) -> Self {
        if let Ok(text) = dynamic.as_immutable_string_ref() {
            Self::Str(text.clone())
        } else if let Ok(int) = dynamic.as_int() {
            Self::Int(int)
        } else if let Ok(float) = dynamic.as_float() {
            Self::Float(float)
        } else if let Ok(bool) = dynamic.as_bool() {
            Self::Bool(bool)
        } else if let Some(value) = dynamic.read_lock::<Self>() {
            value.clone()
        } else {
            // Only `()` is left: lowered text makes nothing else.
            Self::None
        }
    }

    /// Hands a value to Rhai. Scalars are converted one by one, by hand: `rhai::serde` turns numbers into maps as soon
    /// as any crate of the build switches `serde_json/arbitrary_precision` on.
    pub(super) fn into_dynamic(self) -> Dynamic {
        match self {
            Self::None => Dynamic::UNIT,
            Self::Bool(bool) => bool.into(),
            Self::Int(int) => int.into(),
            Self::Float(float) => float.into(),
            Self::Str(text) => text.into(),
            container => Dynamic::from(container),
        }
    }
}

impl Dict {
    /// From pairs, in order; of equal text keys the first counts.
    pub(super) fn from_text_keys(pairs: Vec<(ImmutableString, Value)>) -> Self {
        let mut index = HashMap::new();
        let indexed = pairs.len() > INDEXED_FROM;
        let mut entries: Vec<(Value, Value)> = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let is_known = if indexed {
                index.contains_key(&key)
            } else {
                entries.iter().any(|(known, _)| matches!(known, Value::Str(known) if *known == key))
            };
            if !is_known {
                if indexed {
                    index.insert(key.clone(), entries.len());
                }
                entries.push((Value::Str(key), value));
            }
        }
        Self { entries, index }
    }

    /// From entries whose keys differ.
    pub(super) fn from_entries(entries: Vec<(Value, Value)>) -> Self {
        Self { entries, index: HashMap::new() }
    }

    /// What is under a text key.
    pub(super) fn get_text(&self, key: &str) -> Option<&Value> {
        if self.index.is_empty() {
            self.entries
                .iter()
                .find(|(known, _)| matches!(known, Value::Str(known) if known == key))
                .map(|(_, value)| value)
        } else {
            self.index.get(key).and_then(|at| self.entries.get(*at)).map(|(_, value)| value)
        }
    }

    /// Keys and values, in order.
    pub(super) fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }
}

impl<'de> Deserialize<'de> for Value {
    /// From JSON. Nesting is bounded by `serde_json`'s own limit of 127 levels.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

impl Serialize for Value {
    /// As JSON: whatever can be looked through is a list. A key that is neither text nor a number cannot be told.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_unit(),
            Self::Bool(bool) => serializer.serialize_bool(*bool),
            Self::Int(int) => serializer.serialize_i64(*int),
            Self::Float(float) => serializer.serialize_f64(*float),
            Self::Str(text) => serializer.serialize_str(text),
            Self::List(items) | Self::Tuple(items) | Self::Set(items) | Self::View(items, _) => {
                serializer.collect_seq(items.iter())
            }
            Self::Dict(dict) => serializer.collect_map(dict.entries.iter().map(|(key, value)| (key, value))),
            Self::Beyond => Err(S::Error::custom("a number is beyond 64 bits")),
        }
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::None)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Value, E> {
        Ok(Value::Bool(bool))
    }

    fn visit_i64<E>(self, int: i64) -> Result<Value, E> {
        Ok(Value::Int(int))
    }

    fn visit_u64<E>(self, int: u64) -> Result<Value, E> {
        Ok(i64::try_from(int).map_or(Value::Beyond, Value::Int))
    }

    fn visit_f64<E>(self, float: f64) -> Result<Value, E> {
        // A whole number that is too long arrives here as well, rounded.
        Ok(if float.abs() < 2f64.powi(63) { Value::Float(float) } else { Value::Beyond })
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(Value::List(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut pairs: Vec<(ImmutableString, Value)> = Vec::new();
        while let Some((key, value)) = entries.next_entry::<std::borrow::Cow<'_, str>, Value>()? {
            pairs.push((key.as_ref().into(), value));
        }
        Ok(Value::Dict(Arc::new(Dict::from_text_keys(pairs))))
    }
}
