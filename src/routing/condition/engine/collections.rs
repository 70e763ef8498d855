//! Python's lists, tuples, sets and dictionaries: indexing, slicing, `in` and the methods.

use super::operators::{compare, equal, same};
use super::strings;
use crate::routing::condition::budget::charge;
use crate::routing::condition::error::{ConditionError, Result};
use crate::routing::condition::value::{Dict, Value, ViewOf};

/// Makes Python's `IndexError` for a sequence of this type.
pub(in crate::routing::condition) fn index_error(type_name: &str) -> ConditionError {
    ConditionError::Failed(format!("IndexError: {type_name} index out of range"))
}

/// Implements `container[key]`.
pub(in crate::routing::condition) fn item(container: &Value, key: &Value) -> Result<Value> {
    match container {
        Value::List(items) | Value::Tuple(items) => {
            let at = position(container, key, items.len())?;
            items.get(at).cloned().ok_or_else(|| index_error(container.type_name()))
        }
        Value::Str(text) => strings::character(text, whole_index(container, key)?),
        Value::Dict(dict) => look_up(dict, key)?
            .cloned()
            .ok_or_else(|| ConditionError::Failed(format!("KeyError: {}", describe_key(key)))),
        other => Err(ConditionError::wrong_type(format!("'{}' object is not subscriptable", other.type_name()))),
    }
}

/// Implements `dict.get(key[, default])`.
pub(in crate::routing::condition) fn get(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    let Value::Dict(dict) = receiver else { return Err(no_attribute(receiver, "get")) };
    match arguments {
        [key] => Ok(look_up(dict, key)?.cloned().unwrap_or(Value::None)),
        [key, default, ..] => Ok(look_up(dict, key)?.unwrap_or(default).clone()),
        [] => Err(ConditionError::wrong_type("get expected at least 1 argument, got 0")),
    }
}

/// Makes Python's `AttributeError`.
pub(super) fn no_attribute(receiver: &Value, name: &str) -> ConditionError {
    ConditionError::Failed(format!("AttributeError: '{}' object has no attribute '{name}'", receiver.type_name()))
}

/// Implements `container[low:high:step]`; a missing bound is `None`.
pub(super) fn slice(container: &Value, low: &Value, high: &Value, step: &Value) -> Result<Value> {
    match container {
        Value::List(items) => Ok(Value::List(slice_of(items, low, high, step)?.into())),
        Value::Tuple(items) => Ok(Value::Tuple(slice_of(items, low, high, step)?.into())),
        Value::Str(text) => {
            let characters = strings::characters(text)?;
            Ok(Value::text(slice_of(&characters, low, high, step)?.into_iter().collect::<String>()))
        }
        other => Err(ConditionError::wrong_type(format!("'{}' object cannot be sliced", other.type_name()))),
    }
}

/// Implements `needle in container`.
pub(super) fn contains(container: &Value, needle: &Value) -> Result<bool> {
    match (container, needle) {
        (Value::Str(text), Value::Str(needle)) => strings::contains(text, needle),
        (Value::Str(_), other) => Err(ConditionError::wrong_type(format!(
            "'in <string>' requires string as left operand, not {}",
            other.type_name()
        ))),
        (Value::Dict(dict), key) => Ok(look_up(dict, key)?.is_some()),
        (Value::Set(_), Value::Set(_)) => {
            Err(ConditionError::wrong_type("a set in a set is not supported in conditions"))
        }
        (Value::Set(items), key) => {
            require_hashable(key)?;
            any_equal(items, key)
        }
        (Value::View(items, of), needle) => {
            // Python looks these up by the hash of the key.
            match (of, needle) {
                (ViewOf::Keys, key) => require_hashable(key)?,
                (ViewOf::Items, Value::Tuple(pair)) if pair.len() == 2 => require_hashable(&pair[0])?,
                (ViewOf::Items | ViewOf::Values, _) => {}
            }
            any_equal(items, needle)
        }
        (Value::List(items) | Value::Tuple(items), needle) => any_equal(items, needle),
        (other, _) => {
            Err(ConditionError::wrong_type(format!("argument of type '{}' is not iterable", other.type_name())))
        }
    }
}

/// Returns the elements that a loop over the value sees.
pub(super) fn elements(value: &Value) -> Result<Vec<Value>> {
    match value {
        Value::List(items) | Value::Tuple(items) | Value::Set(items) | Value::View(items, _) => {
            charge(items.len())?;
            Ok(items.to_vec())
        }
        Value::Dict(dict) => {
            charge(dict.entries().len())?;
            Ok(dict.entries().iter().map(|(key, _)| key.clone()).collect())
        }
        Value::Str(text) => Ok(strings::characters(text)?.into_iter().map(|c| Value::text(c.to_string())).collect()),
        other => Err(ConditionError::wrong_type(format!("'{}' object is not iterable", other.type_name()))),
    }
}

/// Implements `len(value)`.
pub(super) fn length(value: &Value) -> Result<Value> {
    let length = match value {
        Value::Str(text) => strings::length(text)?,
        Value::List(items) | Value::Tuple(items) | Value::Set(items) | Value::View(items, _) => items.len(),
        Value::Dict(dict) => dict.entries().len(),
        other => {
            return Err(ConditionError::wrong_type(format!("object of type '{}' has no len()", other.type_name())));
        }
    };
    int(length)
}

/// Returns the whole number of a value that must be one, such as a number of digits.
pub(super) fn whole(value: &Value) -> Result<i64> {
    value.as_int().ok_or_else(|| {
        let message = format!("'{}' object cannot be interpreted as an integer", value.type_name());
        ConditionError::wrong_type(message)
    })
}

/// Converts a count to a Python `int`.
pub(super) fn int(count: usize) -> Result<Value> {
    i64::try_from(count).map(Value::Int).map_err(|_| ConditionError::overflow())
}

/// Implements `dict.keys()`.
pub(super) fn keys(receiver: &Value, _: &[Value]) -> Result<Value> {
    view(receiver, "keys", ViewOf::Keys, |(key, _)| key.clone())
}

/// Implements `dict.values()`.
pub(super) fn values(receiver: &Value, _: &[Value]) -> Result<Value> {
    view(receiver, "values", ViewOf::Values, |(_, value)| value.clone())
}

/// Implements `dict.items()`.
pub(super) fn items(receiver: &Value, _: &[Value]) -> Result<Value> {
    view(receiver, "items", ViewOf::Items, |(key, value)| Value::Tuple([key.clone(), value.clone()].into()))
}

/// Implements `list.count(x)`, `tuple.count(x)` and `str.count(x)`
pub(super) fn count(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    match (receiver, arguments) {
        (Value::Str(_), _) => strings::count(receiver, arguments),
        (Value::List(items) | Value::Tuple(items), [needle]) => {
            let mut count = 0;
            for item in items.iter() {
                count += usize::from(same(item, needle)?);
            }
            int(count)
        }
        (other, _) => Err(no_attribute(other, "count")),
    }
}

/// Returns the smallest (`wanted` is `Less`) or the largest of the arguments, or of the only argument's elements.
pub(super) fn extreme(arguments: &[Value], wanted: std::cmp::Ordering) -> Result<Value> {
    let name = if wanted.is_lt() { "min" } else { "max" };
    let candidates = match arguments {
        [only] => elements(only)?,
        several => several.to_vec(),
    };
    let mut candidates = candidates.into_iter();
    let Some(mut best) = candidates.next() else {
        return Err(ConditionError::wrong_value(format!("{name}() iterable argument is empty")));
    };
    for candidate in candidates {
        let sign = if wanted.is_lt() { "<" } else { ">" };
        if compare(&candidate, &best, sign)? == Some(wanted) {
            best = candidate;
        }
    }
    Ok(best)
}

/// Returns a set of these elements, each once.
pub(in crate::routing::condition) fn set_of(elements: Vec<Value>) -> Result<Value> {
    let mut unique: Vec<Value> = Vec::new();
    for element in elements {
        require_hashable(&element)?;
        if !any_equal(&unique, &element)? {
            unique.push(element);
        }
    }
    Ok(Value::Set(unique.into()))
}

/// Returns a dictionary of these entries; of equal keys the last value counts, as in a Python display.
pub(in crate::routing::condition) fn dict_of(pairs: Vec<(Value, Value)>) -> Result<Value> {
    let mut entries: Vec<(Value, Value)> = Vec::new();
    'pairs: for (key, value) in pairs {
        require_hashable(&key)?;
        for entry in &mut entries {
            if equal(&entry.0, &key)? {
                entry.1 = value;
                continue 'pairs;
            }
        }
        entries.push((key, value));
    }
    Ok(Value::Dict(std::sync::Arc::new(Dict::from_entries(entries))))
}

/// Tells whether one of the items equals the needle.
fn any_equal(items: &[Value], needle: &Value) -> Result<bool> {
    for item in items {
        if same(item, needle)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the value that a dictionary has under a key.
pub(super) fn look_up<'a>(dict: &'a Dict, key: &Value) -> Result<Option<&'a Value>> {
    require_hashable(key)?;
    charge(1)?;
    if let Value::Str(key) = key {
        return Ok(dict.get_text(key));
    }
    for (known, value) in dict.entries() {
        if equal(known, key)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn require_hashable(key: &Value) -> Result<()> {
    match key {
        Value::List(_) | Value::Set(_) | Value::Dict(_) | Value::View(..) => {
            Err(ConditionError::wrong_type(format!("unhashable type: '{}'", key.type_name())))
        }
        Value::Beyond => Err(ConditionError::overflow()),
        Value::Tuple(items) => items.iter().try_for_each(require_hashable),
        _ => Ok(()),
    }
}

fn view(receiver: &Value, name: &str, what: ViewOf, of: impl Fn(&(Value, Value)) -> Value) -> Result<Value> {
    let Value::Dict(dict) = receiver else { return Err(no_attribute(receiver, name)) };
    charge(dict.entries().len())?;
    Ok(Value::View(dict.entries().iter().map(of).collect(), what))
}

/// Describes a key for an error; text that came with the request could be private, so only numbers are shown whole.
fn describe_key(key: &Value) -> String {
    match key {
        Value::Str(key) if key.len() <= 64 => format!("'{key}'"),
        Value::Int(key) => key.to_string(),
        other => format!("a {}", other.type_name()),
    }
}

/// Converts an index, which may count from the end, to an offset from the start; `usize::MAX` when there is no such
/// element.
fn position(container: &Value, key: &Value, length: usize) -> Result<usize> {
    let index = whole_index(container, key)?;
    Ok(from_either_end(index, length).unwrap_or(usize::MAX))
}

/// Returns the offset to which an index points, when that is inside.
pub(super) fn from_either_end(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let at = if index < 0 { index.checked_add(length)? } else { index };
    usize::try_from(at).ok().filter(|_| at < length)
}

fn whole_index(container: &Value, key: &Value) -> Result<i64> {
    key.as_int().ok_or_else(|| {
        ConditionError::wrong_type(format!(
            "{} indices must be integers or slices, not {}",
            container.type_name(),
            key.type_name()
        ))
    })
}

/// Returns the selected elements, by CPython's rules for bounds beyond the ends.
fn slice_of<T: Clone>(items: &[T], low: &Value, high: &Value, step: &Value) -> Result<Vec<T>> {
    let length = i64::try_from(items.len()).map_err(|_| ConditionError::overflow())?;
    let step = slice_bound(step)?.unwrap_or(1);
    if step == 0 {
        return Err(ConditionError::wrong_value("slice step cannot be zero"));
    }
    let (first, last) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |bound: i64| if bound < 0 { (bound.saturating_add(length)).max(first) } else { bound.min(last) };
    let start = slice_bound(low)?.map_or(if step > 0 { first } else { last }, clamp);
    let stop = slice_bound(high)?.map_or(if step > 0 { last } else { first }, clamp);
    charge(items.len())?;
    let mut selected = Vec::new();
    let mut at = start;
    while if step > 0 { at < stop } else { at > stop } {
        if let Some(item) = usize::try_from(at).ok().and_then(|at| items.get(at)) {
            selected.push(item.clone());
        }
        at = at.saturating_add(step);
    }
    Ok(selected)
}

fn slice_bound(bound: &Value) -> Result<Option<i64>> {
    match (bound, bound.as_int()) {
        (Value::None, _) => Ok(None),
        (_, Some(bound)) => Ok(Some(bound)),
        (_, None) => Err(ConditionError::wrong_type("slice indices must be integers or None")),
    }
}
