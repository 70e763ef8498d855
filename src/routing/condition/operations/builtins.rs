//! Python's built-in functions, as far as conditions need them.

use std::cmp::Ordering;
use std::num::IntErrorKind;

use super::collections::{elements, require_order, whole};
use super::functions::Helper;
use super::operators::{add, bad_operand, compare, truth};
use super::strings::{float_text, is_space};
use crate::routing::condition::budget::charge_text;
use crate::routing::condition::error::{ConditionError, Result};
use crate::routing::condition::value::Value;

/// Implements `bool(x)`.
pub(super) fn bool(value: &Value, _: &[Value]) -> Result<Value> {
    Ok(Value::Bool(truth(value)))
}

/// Implements `str(x)` of a scalar.
pub(super) fn str(value: &Value, _: &[Value]) -> Result<Value> {
    Ok(match value {
        Value::None => Value::text("None"),
        Value::Bool(true) => Value::text("True"),
        Value::Bool(false) => Value::text("False"),
        Value::Int(int) => Value::text(int.to_string()),
        Value::Float(float) => Value::Str(float_text(*float)),
        Value::Str(text) => Value::Str(text.clone()),
        Value::Beyond => return Err(ConditionError::overflow()),
        other => {
            let message = format!("str() of a {} is not supported in conditions", other.type_name());
            return Err(ConditionError::wrong_type(message));
        }
    })
}

/// Implements `int(x[, base])`.
pub(super) fn int(value: &Value, base: &[Value]) -> Result<Value> {
    let base = base.first().map(whole).transpose()?;
    if base.is_some_and(|base| base != 0 && !(2..=36).contains(&base)) {
        return Err(ConditionError::wrong_value("int() base must be >= 2 and <= 36, or 0"));
    }
    match value {
        Value::Str(text) => whole_number(text, base.unwrap_or(10)),
        _ if base.is_some() => Err(ConditionError::wrong_type("int() can't convert non-string with explicit base")),
        Value::Int(int) => Ok(Value::Int(*int)),
        Value::Bool(bool) => Ok(Value::Int(i64::from(*bool))),
        Value::Float(float) if float.is_nan() => {
            Err(ConditionError::wrong_value("cannot convert float NaN to integer"))
        }
        Value::Float(float) => {
            let whole = float.trunc();
            if whole.abs() < 2f64.powi(63) { Ok(Value::Int(whole as i64)) } else { Err(ConditionError::overflow()) }
        }
        Value::Beyond => Err(ConditionError::overflow()),
        other => Err(not_a_number("int", other)),
    }
}

/// Reads a whole number, whose base 0 stands for that of its prefix.
fn whole_number(text: &str, base: i64) -> Result<Value> {
    charge_text(text.len())?;
    let unreadable = || unreadable("int", text, "the text is not a whole number");
    let written = text.trim_matches(is_space);
    let (sign, digits) = match written.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", written.strip_prefix('+').unwrap_or(written)),
    };
    let prefix = digits.get(..2).and_then(|prefix| match prefix {
        "0x" | "0X" => Some(16),
        "0o" | "0O" => Some(8),
        "0b" | "0B" => Some(2),
        _ => None,
    });
    let (digits, radix) = match (base, prefix) {
        (0, None) if digits.starts_with('0') && digits.contains(|digit| matches!(digit, '1'..='9')) => {
            return Err(unreadable());
        }
        (0, None) => (digits, 10),
        (_, Some(radix)) if base == 0 || base == i64::from(radix) => {
            let digits = digits.get(2..).unwrap_or_default();
            (digits.strip_prefix('_').unwrap_or(digits), radix)
        }
        _ => (digits, u32::try_from(base).unwrap_or(10)),
    };
    let is_number = digits.starts_with(|digit: char| digit.is_digit(radix));
    let digits = without_underscores(digits, radix).filter(|_| is_number).ok_or_else(unreadable)?;
    match i64::from_str_radix(&format!("{sign}{digits}"), radix) {
        Ok(int) => Ok(Value::Int(int)),
        Err(error) if matches!(error.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => {
            Err(ConditionError::overflow())
        }
        Err(_) => Err(unreadable()),
    }
}

/// Makes the error of a text that gives no number. Numerals outside ASCII, which Python may read, get an error of their
/// own.
fn unreadable(function: &str, text: &str, message: &str) -> ConditionError {
    if text.chars().any(|character| !character.is_ascii() && character.is_numeric()) {
        return ConditionError::wrong_value(format!("{function}() knows only the digits 0 to 9"));
    }
    ConditionError::wrong_value(message)
}

/// Implements `float(x)`.
pub(super) fn float(value: &Value, _: &[Value]) -> Result<Value> {
    match value {
        Value::Int(int) => Ok(Value::Float(*int as f64)),
        Value::Bool(bool) => Ok(Value::Float(f64::from(u8::from(*bool)))),
        Value::Float(float) => Ok(Value::Float(*float)),
        Value::Str(text) => {
            charge_text(text.len())?;
            without_underscores(text.trim_matches(is_space), 10)
                .and_then(|text| text.parse().ok())
                .map(Value::Float)
                .ok_or_else(|| unreadable("float", text, "the text is not a number"))
        }
        Value::Beyond => Err(ConditionError::overflow()),
        other => Err(not_a_number("float", other)),
    }
}

/// Implements `abs(x)`.
pub(super) fn abs(value: &Value, _: &[Value]) -> Result<Value> {
    match value {
        Value::Int(int) => int.checked_abs().map(Value::Int).ok_or_else(ConditionError::overflow),
        Value::Bool(bool) => Ok(Value::Int(i64::from(*bool))),
        Value::Float(float) => Ok(Value::computed(float.abs())),
        Value::Beyond => Err(ConditionError::overflow()),
        other => Err(bad_operand("abs()", other)),
    }
}

/// Implements `round(x[, digits])`: halves go to the even neighbour.
pub(super) fn round(value: &Value, digits: &[Value]) -> Result<Value> {
    let digits = match digits.first() {
        None | Some(Value::None) => None,
        Some(digits) => Some(whole(digits)?),
    };
    if digits.is_some_and(|digits| digits < 0) {
        return Err(ConditionError::wrong_value("round() to fewer than 0 digits is not supported in conditions"));
    }
    match (value, digits) {
        (Value::Int(int), _) => Ok(Value::Int(*int)),
        (Value::Bool(bool), _) => Ok(Value::Int(i64::from(*bool))),
        (Value::Float(float), None) => int(&Value::Float(float.round_ties_even()), &[]),
        // More digits change nothing: no double has more than 323 digits after its point.
        (Value::Float(float), Some(digits)) if digits > 323 || !float.is_finite() => Ok(Value::computed(*float)),
        (Value::Float(float), Some(digits)) => {
            let digits = usize::try_from(digits).unwrap_or(0);
            Ok(Value::Float(format!("{float:.digits$}").parse().unwrap_or(*float)))
        }
        (other, _) => {
            Err(ConditionError::wrong_type(format!("type {} doesn't define __round__ method", other.type_name())))
        }
    }
}

/// Implements `min(a, b, …)` and `min(iterable)`.
pub(super) fn min(first: &Value, rest: &[Value]) -> Result<Value> {
    extreme(first, rest, Ordering::Less)
}

/// Implements `max(a, b, …)` and `max(iterable)`.
pub(super) fn max(first: &Value, rest: &[Value]) -> Result<Value> {
    extreme(first, rest, Ordering::Greater)
}

fn extreme(first: &Value, rest: &[Value], wanted: Ordering) -> Result<Value> {
    let (name, sign) = if wanted.is_lt() { ("min", "<") } else { ("max", ">") };
    let all = if rest.is_empty() { elements(first)? } else { [std::slice::from_ref(first), rest].concat().into() };
    let Some((mut best, others)) = all.split_first() else {
        return Err(ConditionError::wrong_value(format!("{name}() iterable argument is empty")));
    };
    for other in others {
        if compare(other, best, sign)? == Some(wanted) {
            best = other;
        }
    }
    Ok(best.clone())
}

/// Implements `min(iterable, default=x)` and `max(iterable, default=x)`, with the one or the other function.
pub(super) fn or_default(iterable: &Value, default: &[Value], of: Helper) -> Result<Value> {
    match (&*elements(iterable)?, default) {
        ([], [default, ..]) => Ok(default.clone()),
        _ => of(iterable, &[]),
    }
}

/// Implements `sum(iterable[, start])`.
pub(super) fn sum(iterable: &Value, start: &[Value]) -> Result<Value> {
    require_order(iterable)?;
    let start = start.first().cloned().unwrap_or(Value::Int(0));
    if matches!(start, Value::Str(_)) {
        return Err(ConditionError::wrong_type("sum() can't sum strings [use ''.join(seq) instead]"));
    }
    elements(iterable)?.iter().try_fold(start, |sum, element| add(&sum, element))
}

/// Implements `any(iterable)`.
pub(super) fn any(value: &Value, _: &[Value]) -> Result<Value> {
    Ok(Value::Bool(elements(value)?.iter().any(truth)))
}

/// Implements `all(iterable)`.
pub(super) fn all(value: &Value, _: &[Value]) -> Result<Value> {
    Ok(Value::Bool(elements(value)?.iter().all(truth)))
}

/// Implements `isinstance(x, types)`, the types by their names.
pub(in crate::routing::condition) fn is_instance(value: &Value, types: &[Value]) -> Result<Value> {
    let is_any = |names: &[&str]| types.iter().any(|it| matches!(it, Value::Str(it) if names.contains(&it.as_str())));
    match value {
        Value::Beyond => Err(ConditionError::overflow()),
        Value::Bool(_) => Ok(Value::Bool(is_any(&["bool", "int"]))),
        other => Ok(Value::Bool(is_any(&[other.type_name()]))),
    }
}

/// Returns the text without underscores between digits, where Python allows them; none where it does not.
fn without_underscores(text: &str, radix: u32) -> Option<String> {
    let bytes = text.as_bytes();
    let is_digit =
        |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(|byte| char::from(*byte).is_digit(radix));
    let well_placed = |at: usize| is_digit(at.checked_sub(1)) && is_digit(Some(at + 1));
    let allowed = bytes.iter().enumerate().all(|(at, byte)| *byte != b'_' || well_placed(at));
    (allowed && text.is_ascii()).then(|| text.replace('_', ""))
}

fn not_a_number(name: &str, value: &Value) -> ConditionError {
    ConditionError::wrong_type(format!(
        "{name}() argument must be a string or a real number, not '{}'",
        value.type_name()
    ))
}
