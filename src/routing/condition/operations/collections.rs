//! Python's lists, tuples, sets and dictionaries: indexing, slicing, `in` and the methods.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

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
pub(in crate::routing::condition) fn slice(container: &Value, bounds: &[Value]) -> Result<Value> {
    let [low, high, step] = bounds else { return Err(ConditionError::wrong_type("a slice has three bounds")) };
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
pub(in crate::routing::condition) fn contains(container: &Value, needle: &Value) -> Result<bool> {
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
pub(in crate::routing::condition) fn elements(value: &Value) -> Result<Cow<'_, [Value]>> {
    match value {
        Value::List(items) | Value::Tuple(items) | Value::Set(items) | Value::View(items, _) => {
            charge(items.len())?;
            Ok(Cow::Borrowed(items))
        }
        Value::Dict(dict) => {
            charge(dict.entries().len())?;
            Ok(dict.entries().iter().map(|(key, _)| key.clone()).collect())
        }
        Value::Str(text) => Ok(strings::characters(text)?.into_iter().map(|c| Value::text(c.to_string())).collect()),
        other => Err(ConditionError::wrong_type(format!("'{}' object is not iterable", other.type_name()))),
    }
}

/// Checks that a value is no set of several elements, whose order is not known here.
pub(in crate::routing::condition) fn require_order(value: &Value) -> Result<()> {
    match value {
        Value::Set(items) if items.len() > 1 => {
            Err(ConditionError::wrong_type("the order of a set is not supported in conditions; use sorted()"))
        }
        _ => Ok(()),
    }
}

/// Returns the elements of a value in their order.
pub(super) fn ordered(value: &Value) -> Result<Cow<'_, [Value]>> {
    require_order(value)?;
    elements(value)
}

/// Implements `len(value)`.
pub(in crate::routing::condition) fn length(value: &Value, _: &[Value]) -> Result<Value> {
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
pub(in crate::routing::condition) fn int(count: usize) -> Result<Value> {
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

/// Implements `str.index(x)`, `list.index(x)` and `tuple.index(x)`.
pub(super) fn index(receiver: &Value, arguments: &[Value]) -> Result<Value> {
    match (receiver, arguments) {
        (Value::Str(_), _) => match strings::find(receiver, arguments)? {
            Value::Int(-1) => Err(ConditionError::wrong_value("substring not found")),
            at => Ok(at),
        },
        (Value::List(items) | Value::Tuple(items), [needle]) => {
            for (at, item) in items.iter().enumerate() {
                if same(item, needle)? {
                    return int(at);
                }
            }
            Err(ConditionError::wrong_value(format!("the value is not in the {}", receiver.type_name())))
        }
        (other, _) => Err(no_attribute(other, "index")),
    }
}

/// Implements `list(x)`.
pub(super) fn list(iterable: &Value, _: &[Value]) -> Result<Value> {
    Ok(Value::List(ordered(iterable)?.into()))
}

/// Implements `tuple(x)`.
pub(super) fn tuple(iterable: &Value, _: &[Value]) -> Result<Value> {
    Ok(Value::Tuple(ordered(iterable)?.into()))
}

/// Implements `set(x)`.
pub(super) fn set(iterable: &Value, _: &[Value]) -> Result<Value> {
    set_of(elements(iterable)?.into_owned())
}

/// Implements `dict(x)` of a mapping or of pairs.
pub(super) fn dict(value: &Value, _: &[Value]) -> Result<Value> {
    match value {
        Value::Dict(_) => Ok(value.clone()),
        pairs => dict_of_pairs(ordered(pairs)?.into_owned()),
    }
}

/// Implements `sorted(x)`.
pub(super) fn sorted(iterable: &Value, _: &[Value]) -> Result<Value> {
    let items = elements(iterable)?;
    charge(items.len())?;
    Ok(Value::List(merged(items.into_owned())?.into()))
}

/// Sorts by merging, since the library's sort takes no comparison that may fail.
fn merged(mut items: Vec<Value>) -> Result<Vec<Value>> {
    if items.len() < 2 {
        return Ok(items);
    }
    let mut sorted = Vec::with_capacity(items.len());
    let mut right = merged(items.split_off(items.len() / 2))?.into_iter().peekable();
    let mut left = merged(items)?.into_iter().peekable();
    while let (Some(first), Some(second)) = (left.peek(), right.peek()) {
        let no_order = || ConditionError::wrong_value("sorting values without an order is not supported in conditions");
        let is_second = compare(second, first, "<")?.ok_or_else(no_order)?.is_lt();
        sorted.extend(if is_second { right.next() } else { left.next() });
    }
    sorted.extend(left.chain(right));
    Ok(sorted)
}

/// Implements `zip(a, b, …)`.
pub(super) fn zip(first: &Value, rest: &[Value]) -> Result<Value> {
    let columns: Vec<_> = std::iter::once(first).chain(rest).map(ordered).collect::<Result<_>>()?;
    let rows = columns.iter().map(|column| column.len()).min().unwrap_or(0);
    charge(rows.saturating_mul(columns.len()))?;
    let row = |at: usize| Value::Tuple(columns.iter().filter_map(|column| column.get(at).cloned()).collect());
    Ok(Value::List((0..rows).map(row).collect()))
}

/// Implements `enumerate(x[, start])`.
pub(super) fn enumerate(iterable: &Value, start: &[Value]) -> Result<Value> {
    let items = ordered(iterable)?;
    let start = start.first().map_or(Ok(0), whole)?;
    charge(items.len())?;
    let numbered = (start..).zip(items.iter()).map(|(at, item)| Value::Tuple([Value::Int(at), item.clone()].into()));
    Ok(Value::List(numbered.collect()))
}

/// Implements `range([start, ]stop[, step])`.
pub(super) fn range(first: &Value, rest: &[Value]) -> Result<Value> {
    let (start, stop, step) = match rest {
        [] => (0, whole(first)?, 1),
        [stop] => (whole(first)?, whole(stop)?, 1),
        [stop, step, ..] => (whole(first)?, whole(stop)?, whole(step)?),
    };
    if step == 0 {
        return Err(ConditionError::wrong_value("range() arg 3 must not be zero"));
    }
    let distance = if step > 0 { i128::from(stop) - i128::from(start) } else { i128::from(start) - i128::from(stop) };
    let count = u128::try_from(distance).unwrap_or(0).div_ceil(u128::from(step.unsigned_abs()));
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    charge(count)?;
    let numbers = std::iter::successors(Some(start), |at| at.checked_add(step)).take(count);
    Ok(Value::List(numbers.map(Value::Int).collect()))
}

/// Makes a list of these elements.
pub(in crate::routing::condition) fn list_of(elements: Vec<Value>) -> Result<Value> {
    Ok(Value::List(elements.into()))
}

/// Makes a tuple of these elements.
pub(in crate::routing::condition) fn tuple_of(elements: Vec<Value>) -> Result<Value> {
    Ok(Value::Tuple(elements.into()))
}

/// Makes a set of these elements, each once.
pub(in crate::routing::condition) fn set_of(elements: Vec<Value>) -> Result<Value> {
    let (mut unique, mut texts) = (Vec::new(), HashSet::new());
    charge(elements.len())?;
    for element in elements {
        require_hashable(&element)?;
        // Texts are many as a rule, and equal nothing but texts.
        let is_known = match &element {
            Value::Str(text) => !texts.insert(text.clone()),
            other => any_equal(&unique, other)?,
        };
        if !is_known {
            unique.push(element);
        }
    }
    Ok(Value::Set(unique.into()))
}

/// Makes a dictionary of pairs; of equal keys the last value counts, as in a Python display.
pub(in crate::routing::condition) fn dict_of_pairs(pairs: Vec<Value>) -> Result<Value> {
    charge(pairs.len())?;
    let mut entries: Vec<(Value, Value)> = Vec::with_capacity(pairs.len());
    for pair in &pairs {
        match &*ordered(pair)? {
            [key, value] => entries.push((key.clone(), value.clone())),
            other => {
                let message = format!("dictionary update sequence element has length {}; 2 is required", other.len());
                return Err(ConditionError::wrong_value(message));
            }
        }
    }
    if entries.iter().all(|(key, _)| matches!(key, Value::Str(_))) {
        let texts = entries.into_iter().filter_map(|(key, value)| Some((key.into_text()?, value)));
        return Ok(Value::Dict(Arc::new(Dict::from_text_keys(texts.collect()))));
    }
    let mut unique: Vec<(Value, Value)> = Vec::new();
    'entries: for (key, value) in entries {
        require_hashable(&key)?;
        for known in &mut unique {
            if equal(&known.0, &key)? {
                known.1 = value;
                continue 'entries;
            }
        }
        unique.push((key, value));
    }
    Ok(Value::Dict(Arc::new(Dict::from_entries(unique))))
}

/// Tells whether all of the items are among the others.
pub(super) fn is_subset(items: &[Value], others: &[Value]) -> Result<bool> {
    for item in items {
        if !any_equal(others, item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Tells whether one of the items equals the needle.
pub(super) fn any_equal(items: &[Value], needle: &Value) -> Result<bool> {
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

pub(in crate::routing::condition) fn require_hashable(key: &Value) -> Result<()> {
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
