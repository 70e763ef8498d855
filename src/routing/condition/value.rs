//! The values of Python, as conditions meet them.

use std::collections::HashMap;
use std::sync::Arc;

use rhai::{Dynamic, ImmutableString};
use serde::ser::{Error, Serialize, Serializer};

use super::error::ConditionError;
use super::json::text::shown;
use super::json::{self, NAN};

/// A Python value. Cloning costs a reference count at most.
///
/// Scalars travel through Rhai as its own types, everything else as this type inside a [`Dynamic`].
#[derive(Debug, Clone)]
pub enum Value {
    /// `None`
    None,
    /// A `bool`.
    Bool(bool),
    /// An `int` of at most 64 bits.
    Int(i64),
    /// A `float`.
    Float(f64),
    /// A `str`.
    Str(ImmutableString),
    /// A `list`.
    List(Arc<[Value]>),
    /// A `tuple`.
    Tuple(Arc<[Value]>),
    /// A `set`, each element once.
    Set(Arc<[Value]>),
    /// A view, as `keys()`, `values()` and `items()` give it: its items can be looked through, but it is no list.
    View(Arc<[Value]>, ViewOf),
    /// A `dict`.
    Dict(Arc<Dict>),
    /// A whole number beyond 64 bits. Every computation with it fails.
    Beyond,
}

/// A dictionary in the order of its text. A key that is written twice keeps its first place and its last value.
#[derive(Debug, Clone, Default)]
pub struct Dict {
    entries: Vec<(Value, Value)>,
    /// Indices of text keys; only kept when there are enough entries to make looking through them slow.
    index: HashMap<ImmutableString, usize>,
}

/// Most entries that are looked through; in a larger dictionary keys are found by hash.
const INDEXED_FROM: usize = 16;

/// The part of a dictionary that a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewOf {
    /// `keys()`
    Keys,
    /// `values()`
    Values,
    /// `items()`
    Items,
}

impl Value {
    /// Makes a text.
    pub(in crate::routing) fn text(text: impl Into<ImmutableString>) -> Self {
        Self::Str(text.into())
    }

    /// Reads a value from JSON, as Python's `json` reads it.
    ///
    /// # Errors
    /// Fails when Python would not read the text, or its nesting is too deep.
    pub fn from_json(text: &[u8]) -> Result<Self, ConditionError> {
        json::read(text)
    }

    /// Returns Python's name of the type.
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

    /// Returns the text, if the value is one.
    pub(super) fn into_text(self) -> Option<ImmutableString> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// Returns the elements of a set, or of the keys of a dictionary, which compute and compare as a set.
    pub(super) fn as_set(&self) -> Option<&[Value]> {
        match self {
            Self::Set(items) | Self::View(items, ViewOf::Keys) => Some(items),
            _ => None,
        }
    }

    /// Returns the value as a whole number, which `True` and `False` are as well.
    pub(super) fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(int) => Some(*int),
            Self::Bool(bool) => Some(i64::from(*bool)),
            _ => None,
        }
    }

    /// Makes a float that was computed: another one than any of the request, even where it is no number either.
    pub(super) fn computed(float: f64) -> Self {
        Self::Float(if float.is_nan() { f64::NAN } else { float })
    }

    /// Tells whether both are the `NaN` of JSON, which is one object in Python: a search in a list finds the same
    /// object, whether it equals itself or not.
    pub(super) fn is_same_nan(&self, other: &Self) -> bool {
        let is_it = |value: &Self| matches!(value, Self::Float(float) if float.to_bits() == NAN.to_bits());
        is_it(self) && is_it(other)
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
            // `()`, or a type that only Rhai has.
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
    /// Makes a dictionary of pairs, in order; of equal text keys the last counts.
    pub(super) fn from_text_keys(pairs: Vec<(ImmutableString, Value)>) -> Self {
        let mut index = HashMap::new();
        let indexed = pairs.len() > INDEXED_FROM;
        let mut entries: Vec<(Value, Value)> = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let known = if indexed {
                index.get(&key).copied()
            } else {
                entries.iter().position(|(known, _)| matches!(known, Value::Str(known) if *known == key))
            };
            if let Some((_, earlier)) = known.and_then(|known| entries.get_mut(known)) {
                *earlier = value;
                continue;
            }
            if indexed {
                index.insert(key.clone(), entries.len());
            }
            entries.push((Value::Str(key), value));
        }
        Self { entries, index }
    }

    /// Makes a dictionary of entries whose keys differ.
    pub(super) fn from_entries(entries: Vec<(Value, Value)>) -> Self {
        Self { entries, index: HashMap::new() }
    }

    /// Returns the value of a text key.
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

    /// Returns keys and values, in order.
    pub(super) fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }
}

impl Serialize for Value {
    /// Writes the value as JSON: every collection but a dictionary is a list. A key that is neither text nor a number
    /// is an error.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_unit(),
            Self::Bool(bool) => serializer.serialize_bool(*bool),
            Self::Int(int) => serializer.serialize_i64(*int),
            Self::Float(float) => serializer.serialize_f64(*float),
            Self::Str(text) => serializer.serialize_str(&shown(text)),
            Self::List(items) | Self::Tuple(items) | Self::Set(items) | Self::View(items, _) => {
                serializer.collect_seq(items.iter())
            }
            Self::Dict(dict) => serializer.collect_map(dict.entries.iter().map(|(key, value)| (key, value))),
            Self::Beyond => Err(S::Error::custom("a number is beyond 64 bits")),
        }
    }
}
