//! Python's built-in functions, as far as conditions need them.

use std::cmp::Ordering;

use super::collections::{elements, extreme, whole};
use super::operators::{bad_operand, truth};
use super::strings::{float_text, is_space};
use crate::routing::condition::budget::charge_text;
use crate::routing::condition::error::{ConditionError, Result};
use crate::routing::condition::value::Value;

/// Implements `len(x)`.
pub(super) fn len(arguments: &[Value]) -> Result<Value> {
    super::collections::length(only(arguments)?)
}

/// Implements `bool(x)`.
pub(super) fn bool(arguments: &[Value]) -> Result<Value> {
    Ok(Value::Bool(truth(only(arguments)?)))
}

/// Implements `str(x)` of a scalar.
pub(super) fn str(arguments: &[Value]) -> Result<Value> {
    Ok(match only(arguments)? {
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

/// Implements `int(x)`.
pub(super) fn int(arguments: &[Value]) -> Result<Value> {
    match only(arguments)? {
        Value::Int(int) => Ok(Value::Int(*int)),
        Value::Bool(bool) => Ok(Value::Int(i64::from(*bool))),
        Value::Float(float) if float.is_nan() => {
            Err(ConditionError::wrong_value("cannot convert float NaN to integer"))
        }
        Value::Float(float) => {
            let whole = float.trunc();
            if whole.abs() < 2f64.powi(63) { Ok(Value::Int(whole as i64)) } else { Err(ConditionError::overflow()) }
        }
        Value::Str(text) => {
            charge_text(text.len())?;
            let digits = without_underscores(text.trim_matches(is_space));
            let parsed = digits.as_deref().map(str::parse::<i64>);
            match parsed {
                Some(Ok(int)) => Ok(Value::Int(int)),
                Some(Err(error))
                    if matches!(
                        error.kind(),
                        std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow
                    ) =>
                {
                    Err(ConditionError::overflow())
                }
                _ => Err(unreadable("int", text, "the text is not a whole number")),
            }
        }
        Value::Beyond => Err(ConditionError::overflow()),
        other => Err(not_a_number("int", other)),
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
pub(super) fn float(arguments: &[Value]) -> Result<Value> {
    match only(arguments)? {
        Value::Int(int) => Ok(Value::Float(*int as f64)),
        Value::Bool(bool) => Ok(Value::Float(f64::from(u8::from(*bool)))),
        Value::Float(float) => Ok(Value::Float(*float)),
        Value::Str(text) => {
            charge_text(text.len())?;
            without_underscores(text.trim_matches(is_space))
                .and_then(|text| text.parse().ok())
                .map(Value::Float)
                .ok_or_else(|| unreadable("float", text, "the text is not a number"))
        }
        Value::Beyond => Err(ConditionError::overflow()),
        other => Err(not_a_number("float", other)),
    }
}

/// Implements `abs(x)`.
pub(super) fn abs(arguments: &[Value]) -> Result<Value> {
    match only(arguments)? {
        Value::Int(int) => int.checked_abs().map(Value::Int).ok_or_else(ConditionError::overflow),
        Value::Bool(bool) => Ok(Value::Int(i64::from(*bool))),
        Value::Float(float) => Ok(Value::computed(float.abs())),
        Value::Beyond => Err(ConditionError::overflow()),
        other => Err(bad_operand("abs()", other)),
    }
}

/// Implements `round(x[, digits])`: halves go to the even neighbour.
pub(super) fn round(arguments: &[Value]) -> Result<Value> {
    let digits = match arguments.get(1) {
        None | Some(Value::None) => None,
        Some(digits) => Some(whole(digits)?),
    };
    if digits.is_some_and(|digits| digits < 0) {
        return Err(ConditionError::wrong_value("round() to fewer than 0 digits is not supported in conditions"));
    }
    match (arguments.first(), digits) {
        (Some(Value::Int(int)), _) => Ok(Value::Int(*int)),
        (Some(Value::Bool(bool)), _) => Ok(Value::Int(i64::from(*bool))),
        (Some(Value::Float(float)), None) => int(&[Value::Float(float.round_ties_even())]),
        // More digits change nothing: no double has more than 323 digits after its point.
        (Some(Value::Float(float)), Some(digits)) if digits > 323 || !float.is_finite() => Ok(Value::computed(*float)),
        (Some(Value::Float(float)), Some(digits)) => {
            let digits = usize::try_from(digits).unwrap_or(0);
            Ok(Value::Float(format!("{float:.digits$}").parse().unwrap_or(*float)))
        }
        (Some(other), _) => {
            Err(ConditionError::wrong_type(format!("type {} doesn't define __round__ method", other.type_name())))
        }
        (None, _) => Err(ConditionError::wrong_type("round() missing required argument 'number'")),
    }
}

/// Implements `min(a, b, …)` and `min(iterable)`.
pub(super) fn min(arguments: &[Value]) -> Result<Value> {
    extreme(arguments, Ordering::Less)
}

/// Implements `max(a, b, …)` and `max(iterable)`.
pub(super) fn max(arguments: &[Value]) -> Result<Value> {
    extreme(arguments, Ordering::Greater)
}

/// Implements `any(iterable)`.
pub(super) fn any(arguments: &[Value]) -> Result<Value> {
    Ok(Value::Bool(elements(only(arguments)?)?.iter().any(truth)))
}

/// Implements `all(iterable)`.
pub(super) fn all(arguments: &[Value]) -> Result<Value> {
    Ok(Value::Bool(elements(only(arguments)?)?.iter().all(truth)))
}

/// Implements `isinstance(x, type)`, the type by its name.
pub(super) fn is_instance(value: &Value, type_name: &str) -> Result<bool> {
    match value {
        Value::Beyond => Err(ConditionError::overflow()),
        Value::Bool(_) => Ok(matches!(type_name, "bool" | "int")),
        other => Ok(other.type_name() == type_name),
    }
}

fn only(arguments: &[Value]) -> Result<&Value> {
    match arguments {
        [only] => Ok(only),
        several => Err(ConditionError::wrong_type(format!("expected exactly one argument, got {}", several.len()))),
    }
}

/// Returns the text without underscores between digits, where Python allows them; none where it does not.
fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
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
