//! Python's operators.

use std::cmp::Ordering;

use super::collections::{any_equal, elements, is_subset, look_up};
use super::strings;
use crate::routing::condition::budget::charge;
use crate::routing::condition::error::{ConditionError, Result};
use crate::routing::condition::json::text::order;
use crate::routing::condition::value::{Value, ViewOf};

/// Two numbers, as Python's arithmetic sees them: whole as long as both are.
enum NumericPair {
    Ints(i64, i64),
    Floats(f64, f64),
}

/// Tells whether the value counts as true.
pub(in crate::routing::condition) fn truth(value: &Value) -> bool {
    match value {
        Value::None => false,
        Value::Bool(bool) => *bool,
        Value::Int(int) => *int != 0,
        Value::Float(float) => *float != 0.0,
        Value::Str(text) => !text.is_empty(),
        Value::List(items) | Value::Tuple(items) | Value::Set(items) | Value::View(items, _) => !items.is_empty(),
        Value::Dict(dict) => !dict.entries().is_empty(),
        Value::Beyond => true,
    }
}

/// Implements `left == right`: never fails for values of different types, they are just not equal.
pub(in crate::routing::condition) fn equal(left: &Value, right: &Value) -> Result<bool> {
    charge(1)?;
    match (left, right) {
        (Value::None, Value::None) => Ok(true),
        (Value::Str(left), Value::Str(right)) => {
            charge(left.len().min(right.len()) / 64)?;
            Ok(left == right)
        }
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            for (left, right) in left.iter().zip(right.iter()) {
                if !same(left, right)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Value::Dict(left), Value::Dict(right)) => {
            if left.entries().len() != right.entries().len() {
                return Ok(false);
            }
            for (key, value) in left.entries() {
                match look_up(right, key)? {
                    Some(other) if same(value, other)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        _ if let (Some(left), Some(right)) = (left.as_set(), right.as_set()) => {
            Ok(left.len() == right.len() && is_subset(left, right)?)
        }
        (Value::View(..), _) | (_, Value::View(..)) => Err(ConditionError::wrong_type(
            "keys(), values() and items() are not compared here; use `in`, len(), any() or all()",
        )),
        (Value::Beyond, _) | (_, Value::Beyond) => Err(ConditionError::overflow()),
        _ => Ok(numbers(left, right).is_some_and(|numbers| numbers.compare() == Some(Ordering::Equal))),
    }
}

/// Tells whether both are one object or equal, which is how containers compare what is in them.
pub(in crate::routing::condition) fn same(left: &Value, right: &Value) -> Result<bool> {
    Ok(left.is_same_nan(right) || equal(left, right)?)
}

/// Compares the order of two values: none when one is not a number (`nan`). Values of different types have no order,
/// which is an error; `sign` is the operator that asked.
pub(in crate::routing::condition) fn compare(left: &Value, right: &Value, sign: &str) -> Result<Option<Ordering>> {
    charge(1)?;
    match (left, right) {
        (Value::Str(left), Value::Str(right)) => {
            charge(left.len().min(right.len()) / 64)?;
            Ok(Some(order(left, right)))
        }
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => {
            for (left, right) in left.iter().zip(right.iter()) {
                if !same(left, right)? {
                    return compare(left, right, sign);
                }
            }
            Ok(Some(left.len().cmp(&right.len())))
        }
        (Value::Beyond, _) | (_, Value::Beyond) => Err(ConditionError::overflow()),
        _ if let (Some(left), Some(right)) = (left.as_set(), right.as_set()) => {
            Ok(match (is_subset(left, right)?, is_subset(right, left)?) {
                (true, true) => Some(Ordering::Equal),
                (true, false) => Some(Ordering::Less),
                (false, true) => Some(Ordering::Greater),
                (false, false) => None,
            })
        }
        (Value::View(_, ViewOf::Items), _) | (_, Value::View(_, ViewOf::Items)) => {
            Err(ConditionError::wrong_type("items() are not ordered here"))
        }
        _ => match numbers(left, right) {
            Some(numbers) => Ok(numbers.compare()),
            None => Err(ConditionError::wrong_type(format!(
                "'{sign}' not supported between instances of '{}' and '{}'",
                left.type_name(),
                right.type_name()
            ))),
        },
    }
}

/// Implements `left + right`.
pub(in crate::routing::condition) fn add(left: &Value, right: &Value) -> Result<Value> {
    match (left, right) {
        (Value::Str(left), Value::Str(right)) => strings::concatenate(left, right),
        (Value::List(left), Value::List(right)) => Ok(Value::List(joined(left, right)?.into())),
        (Value::Tuple(left), Value::Tuple(right)) => Ok(Value::Tuple(joined(left, right)?.into())),
        _ => arithmetic(left, right, "+", i64::checked_add, |left, right| left + right),
    }
}

/// Implements `left - right`.
pub(in crate::routing::condition) fn subtract(left: &Value, right: &Value) -> Result<Value> {
    if let Some(set) = sets(left, right, |left, right| left && !right) {
        return set;
    }
    arithmetic(left, right, "-", i64::checked_sub, |left, right| left - right)
}

/// Implements `left & right`.
pub(in crate::routing::condition) fn and(left: &Value, right: &Value) -> Result<Value> {
    bits(left, right, "&", |left, right| left & right)
}

/// Implements `left | right`.
pub(in crate::routing::condition) fn or(left: &Value, right: &Value) -> Result<Value> {
    bits(left, right, "|", |left, right| left | right)
}

/// Implements `left ^ right`.
pub(in crate::routing::condition) fn exclusive_or(left: &Value, right: &Value) -> Result<Value> {
    bits(left, right, "^", |left, right| left ^ right)
}

fn bits(left: &Value, right: &Value, sign: &str, of: fn(i64, i64) -> i64) -> Result<Value> {
    if let (Value::Bool(left), Value::Bool(right)) = (left, right) {
        return Ok(Value::Bool(of(i64::from(*left), i64::from(*right)) != 0));
    }
    if let Some(set) = sets(left, right, |left, right| of(i64::from(left), i64::from(right)) != 0) {
        return set;
    }
    match required(left, right, sign)? {
        NumericPair::Ints(left, right) => Ok(Value::Int(of(left, right))),
        NumericPair::Floats(..) => Err(no_operator(left, right, sign)),
    }
}

/// Computes with two sets, of which those elements stay that `keeps` says, by whether each of the two has them.
fn sets(left: &Value, right: &Value, keeps: impl Fn(bool, bool) -> bool) -> Option<Result<Value>> {
    let (left, right) = (left.as_set()?, right.as_set()?);
    let kept = |items: &[Value], others: &[Value], keeps: &dyn Fn(bool) -> bool| -> Result<Vec<Value>> {
        let kept = items.iter().map(|item| Ok(keeps(any_equal(others, item)?).then(|| item.clone())));
        kept.filter_map(Result::transpose).collect()
    };
    Some(kept(left, right, &|both| keeps(true, both)).and_then(|mut elements| {
        // Elements that both have were those of the left.
        elements.extend(kept(right, left, &|both| !both && keeps(false, true))?);
        Ok(Value::Set(elements.into()))
    }))
}

/// Implements `left * right`.
pub(in crate::routing::condition) fn multiply(left: &Value, right: &Value) -> Result<Value> {
    match (left, right) {
        (Value::Str(_) | Value::List(_) | Value::Tuple(_), Value::Int(_) | Value::Bool(_)) => repeat(left, right),
        (Value::Int(_) | Value::Bool(_), Value::Str(_) | Value::List(_) | Value::Tuple(_)) => repeat(right, left),
        _ => arithmetic(left, right, "*", i64::checked_mul, |left, right| left * right),
    }
}

/// Implements `left / right`.
pub(in crate::routing::condition) fn divide(left: &Value, right: &Value) -> Result<Value> {
    // Integers beyond 2^53 fail, since converting them to floats first, as this does, could round differently than
    // Python.
    const EXACT: u64 = 1 << f64::MANTISSA_DIGITS;
    let (left, right) = match required(left, right, "/")? {
        NumericPair::Ints(left, right) if left.unsigned_abs() > EXACT || right.unsigned_abs() > EXACT => {
            return Err(ConditionError::overflow());
        }
        numbers => numbers.floats(),
    };
    if right == 0.0 {
        return Err(zero_division());
    }
    Ok(Value::computed(left / right))
}

/// Implements `left // right`: rounds towards minus infinity.
pub(in crate::routing::condition) fn floor_divide(left: &Value, right: &Value) -> Result<Value> {
    match required(left, right, "//")? {
        NumericPair::Ints(_, 0) | NumericPair::Floats(_, 0.0) => Err(zero_division()),
        NumericPair::Ints(left, right) => {
            let (quotient, remainder) =
                left.checked_div(right).zip(left.checked_rem(right)).ok_or_else(ConditionError::overflow)?;
            Ok(Value::Int(if remainder != 0 && (remainder < 0) != (right < 0) { quotient - 1 } else { quotient }))
        }
        NumericPair::Floats(left, right) => Ok(Value::computed(divide_floats(left, right).0)),
    }
}

/// Implements `left % right`: has the sign of the right operand.
pub(in crate::routing::condition) fn remainder(left: &Value, right: &Value) -> Result<Value> {
    if matches!(left, Value::Str(_)) {
        return Err(ConditionError::wrong_type("formatting text with % is not supported in conditions"));
    }
    match required(left, right, "%")? {
        NumericPair::Ints(_, 0) | NumericPair::Floats(_, 0.0) => Err(zero_division()),
        NumericPair::Ints(left, right) => {
            let remainder = left.wrapping_rem(right);
            Ok(Value::Int(if remainder != 0 && (remainder < 0) != (right < 0) { remainder + right } else { remainder }))
        }
        NumericPair::Floats(left, right) => Ok(Value::computed(divide_floats(left, right).1)),
    }
}

/// Implements `left ** right`.
pub(in crate::routing::condition) fn power(left: &Value, right: &Value) -> Result<Value> {
    let (base, exponent) = match required(left, right, "**")? {
        NumericPair::Ints(base, exponent) if exponent >= 0 => return whole_power(base, exponent),
        numbers => numbers.floats(),
    };
    if base == 0.0 && exponent < 0.0 {
        return Err(ConditionError::Failed("ZeroDivisionError: 0.0 cannot be raised to a negative power".to_owned()));
    }
    let power = base.powf(exponent);
    if power.is_nan() && !base.is_nan() && !exponent.is_nan() {
        return Err(ConditionError::wrong_value("a negative number to a fractional power is a complex number"));
    }
    if power.is_infinite() && base.is_finite() && exponent.is_finite() {
        return Err(ConditionError::Failed("OverflowError: the result is too large".to_owned()));
    }
    Ok(Value::computed(power))
}

/// Implements `-value`.
pub(in crate::routing::condition) fn negate(value: &Value, _: &[Value]) -> Result<Value> {
    match value {
        Value::Int(int) => int.checked_neg().map(Value::Int).ok_or_else(ConditionError::overflow),
        Value::Bool(bool) => Ok(Value::Int(-i64::from(*bool))),
        Value::Float(float) => Ok(Value::computed(-float)),
        other => Err(bad_operand("unary -", other)),
    }
}

/// Implements `+value`.
pub(in crate::routing::condition) fn plus(value: &Value, _: &[Value]) -> Result<Value> {
    match value {
        Value::Int(_) | Value::Float(_) => Ok(value.clone()),
        Value::Bool(bool) => Ok(Value::Int(i64::from(*bool))),
        other => Err(bad_operand("unary +", other)),
    }
}

/// Makes the error of a wrong operand of a unary operator or of `abs()`.
pub(in crate::routing::condition) fn bad_operand(operator: &str, value: &Value) -> ConditionError {
    ConditionError::wrong_type(format!("bad operand type for {operator}: '{}'", value.type_name()))
}

impl NumericPair {
    fn floats(self) -> (f64, f64) {
        match self {
            Self::Ints(left, right) => (left as f64, right as f64),
            Self::Floats(left, right) => (left, right),
        }
    }

    fn compare(&self) -> Option<Ordering> {
        match self {
            Self::Ints(left, right) => Some(left.cmp(right)),
            Self::Floats(left, right) => left.partial_cmp(right),
        }
    }
}

/// Compares an `int` with a `float` exactly: converting the `int` first would make neighbours beyond 2^53 equal.
fn compare_exactly(int: i64, float: f64) -> Option<Ordering> {
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        None
    } else if float >= BOUND {
        Some(Ordering::Less)
    } else if float < -BOUND {
        Some(Ordering::Greater)
    } else {
        let whole = float.trunc();
        Some(int.cmp(&(whole as i64)).then_with(|| whole.partial_cmp(&float).unwrap_or(Ordering::Equal)))
    }
}

/// Converts both to numbers for comparing, if they are any; an `int` and a `float` become whole numbers with the same
/// order.
fn numbers(left: &Value, right: &Value) -> Option<NumericPair> {
    match (left, right) {
        (Value::Float(left), Value::Float(right)) => Some(NumericPair::Floats(*left, *right)),
        (Value::Float(float), other) => {
            let order = compare_exactly(other.as_int()?, *float).map(Ordering::reverse);
            Some(order.map_or(NumericPair::Floats(f64::NAN, 0.0), |order| NumericPair::Ints(order as i64, 0)))
        }
        (other, Value::Float(float)) => {
            let order = compare_exactly(other.as_int()?, *float);
            Some(order.map_or(NumericPair::Floats(f64::NAN, 0.0), |order| NumericPair::Ints(order as i64, 0)))
        }
        _ => Some(NumericPair::Ints(left.as_int()?, right.as_int()?)),
    }
}

/// Converts both to numbers to compute with.
fn required(left: &Value, right: &Value, sign: &str) -> Result<NumericPair> {
    if matches!(left, Value::Beyond) || matches!(right, Value::Beyond) {
        return Err(ConditionError::overflow());
    }
    if [left, right].iter().any(|value| matches!(value, Value::View(..))) || is_merge(left, right, sign) {
        return Err(ConditionError::wrong_type(format!("this `{sign}` is not supported in conditions")));
    }
    match (left.as_int(), right.as_int(), left, right) {
        (Some(left), Some(right), _, _) => Ok(NumericPair::Ints(left, right)),
        (Some(left), None, _, Value::Float(right)) => Ok(NumericPair::Floats(left as f64, *right)),
        (None, Some(right), Value::Float(left), _) => Ok(NumericPair::Floats(*left, right as f64)),
        (None, None, Value::Float(left), Value::Float(right)) => Ok(NumericPair::Floats(*left, *right)),
        _ => Err(no_operator(left, right, sign)),
    }
}

/// Tells whether `|` would merge two dictionaries.
fn is_merge(left: &Value, right: &Value, sign: &str) -> bool {
    sign == "|" && matches!((left, right), (Value::Dict(_), Value::Dict(_)))
}

fn no_operator(left: &Value, right: &Value, sign: &str) -> ConditionError {
    let (left, right) = (left.type_name(), right.type_name());
    ConditionError::wrong_type(format!("unsupported operand type(s) for {sign}: '{left}' and '{right}'"))
}

fn arithmetic(
    left: &Value,
    right: &Value,
    sign: &str,
    ints: fn(i64, i64) -> Option<i64>,
    floats: fn(f64, f64) -> f64,
) -> Result<Value> {
    match required(left, right, sign)? {
        NumericPair::Ints(left, right) => ints(left, right).map(Value::Int).ok_or_else(ConditionError::overflow),
        NumericPair::Floats(left, right) => Ok(Value::computed(floats(left, right))),
    }
}

fn whole_power(base: i64, exponent: i64) -> Result<Value> {
    let power = match base {
        0 | 1 => Some(if exponent == 0 { 1 } else { base }),
        -1 => Some(if exponent % 2 == 0 { 1 } else { -1 }),
        _ => u32::try_from(exponent).ok().and_then(|exponent| base.checked_pow(exponent)),
    };
    power.map(Value::Int).ok_or_else(ConditionError::overflow)
}

/// Computes quotient and remainder by CPython's algorithm, step by step, so that they round alike.
fn divide_floats(left: f64, right: f64) -> (f64, f64) {
    let mut remainder = left % right;
    let mut quotient = (left - remainder) / right;
    if remainder == 0.0 {
        remainder = 0f64.copysign(right);
    } else if (right < 0.0) != (remainder < 0.0) {
        remainder += right;
        quotient -= 1.0;
    }
    let mut floor = 0f64.copysign(left / right);
    if quotient != 0.0 {
        floor = quotient.floor();
        if quotient - floor > 0.5 {
            floor += 1.0;
        }
    }
    (floor, remainder)
}

fn zero_division() -> ConditionError {
    ConditionError::Failed("ZeroDivisionError: division by zero".to_owned())
}

fn joined(left: &[Value], right: &[Value]) -> Result<Vec<Value>> {
    charge(left.len() + right.len())?;
    Ok([left, right].concat())
}

/// Implements `sequence * times`.
fn repeat(sequence: &Value, times: &Value) -> Result<Value> {
    let times = usize::try_from(times.as_int().unwrap_or(0)).unwrap_or(0);
    if let Value::Str(text) = sequence {
        return strings::repeat(text, times);
    }
    let items = elements(sequence)?.into_owned();
    charge(items.len().saturating_mul(times))?;
    let repeated = std::iter::repeat_n(items, times).flatten().collect();
    Ok(if matches!(sequence, Value::List(_)) { Value::List(repeated) } else { Value::Tuple(repeated) })
}
