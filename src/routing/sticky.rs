//! The sticky hash: keeps a caller on one side of a split by the value that `sticky_by` gives.
//!
//! The hash is XXH3 with 64 bits, whose output is specified: the same on every instance, after every restart and in
//! every version of Signalbox. A change of what is hashed here moves callers about, so the tests pin it.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::condition::{ConditionError, ExpressionId, Value};
use crate::telemetry::LogGate;

/// The `sticky_by` of an endpoint.
#[derive(Debug)]
pub(super) struct Sticky {
    /// Key of the expression in the endpoint's compiled conditions.
    pub(super) expression: ExpressionId,
    /// Limits the log lines about failures of the expression.
    pub(super) log: LogGate,
}

/// Seed for lists, which keeps a text from hashing like a list of the same bytes.
const LIST: u64 = 1;
/// Seed for numbers, which keeps a number from hashing like a text of the same bytes.
const NUMBER: u64 = 2;

/// Returns the hash of a value; none for `None`, which stands for no caller in particular.
///
/// Values that are equal in Python have the same hash: `1`, `1.0` and `True`.
///
/// # Errors
/// Fails when the value is a mapping or a set, or a number that was too long to be read.
pub(super) fn hash_of(value: &Value) -> Result<Option<u64>, ConditionError> {
    match value {
        Value::None => Ok(None),
        value => some_hash_of(value).map(Some),
    }
}

fn some_hash_of(value: &Value) -> Result<u64, ConditionError> {
    Ok(match value {
        Value::None => xxh3_64_with_seed(&[], LIST),
        Value::Bool(bool) => hash_of_int(i64::from(*bool)),
        Value::Int(int) => hash_of_int(*int),
        Value::Float(float) => hash_of_float(*float),
        Value::Str(text) => xxh3_64(text.as_bytes()),
        Value::List(items) | Value::Tuple(items) => {
            let hashes: Result<Vec<[u8; 8]>, _> =
                items.iter().map(|item| some_hash_of(item).map(u64::to_le_bytes)).collect();
            xxh3_64_with_seed(hashes?.as_flattened(), LIST)
        }
        Value::Set(_) | Value::View(..) | Value::Dict(_) | Value::Beyond => {
            let message = format!("TypeError: sticky_by must give text or numbers, not {}", value.type_name());
            return Err(ConditionError::Failed(message));
        }
    })
}

fn hash_of_int(int: i64) -> u64 {
    xxh3_64_with_seed(&int.to_le_bytes(), NUMBER)
}

fn hash_of_float(float: f64) -> u64 {
    let int = float as i64;
    // The conversion makes the largest number of a float beyond 64 bits, so that number counts as no whole one.
    let is_whole = int as f64 == float && int != i64::MAX;
    if is_whole { hash_of_int(int) } else { xxh3_64_with_seed(&float.to_bits().to_le_bytes(), NUMBER) }
}

/// Returns the hash of a route's endpoint and alias, for [`position`].
pub(super) fn salt(endpoint: &str, alias: &str) -> u64 {
    // The name of an endpoint has no line break, so no two pairs are the same text.
    xxh3_64(format!("{endpoint}\n{alias}").as_bytes())
}

/// Returns the position of a value with a route: evenly spread between 0 and 1, those two not included, and independent
/// of its position with any other route.
pub(super) fn position(salt: u64, value: u64) -> f64 {
    let both = [salt.to_le_bytes(), value.to_le_bytes()];
    // A float holds 52 bits and a half exactly.
    let bits = xxh3_64(both.as_flattened()) >> 12;
    (bits as f64 + 0.5) / (1_u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(value: Value) -> Option<u64> {
        hash_of(&value).unwrap()
    }

    /// Never change a number here: it would move callers from one model to another with an update of Signalbox.
    #[test]
    fn hash_stays_as_pinned() {
        // Values of XXH3's reference implementation.
        assert_eq!(hash(Value::text("")), Some(0x2d06_8005_38d3_94c2));
        let pinned: Vec<u64> = [
            Value::text("user-17"),
            Value::Int(17),
            Value::Float(0.5),
            Value::Tuple([Value::text("a"), Value::None, Value::Int(1)].into()),
        ]
        .map(|value| hash(value).unwrap())
        .into();
        assert_eq!(
            pinned,
            [0x7d94_013a_7349_7c81, 0x9e13_30a0_be36_270e, 0x7849_75a7_2ebf_decc, 0x3b95_0560_0668_60c0]
        );
        let salt = salt("sentiment-router", "fast");
        assert_eq!(salt, 0xeda6_b3ec_9aa9_c2e3);
        assert_eq!((position(salt, 7), position(salt, pinned[0])), (0.35307521175439416, 0.941648951478608));
    }

    #[test]
    fn hash_agrees_when_values_are_equal_in_python() {
        assert_eq!(hash(Value::Int(1)), hash(Value::Float(1.0)));
        assert_eq!(hash(Value::Int(1)), hash(Value::Bool(true)));
        assert_eq!(hash(Value::Float(0.0)), hash(Value::Float(-0.0)));
        let list = |items: &[Value]| Value::List(items.into());
        let all = [
            Value::text("1"),
            Value::Int(1),
            Value::Float(1.5),
            list(&[]),
            list(&[Value::Int(1)]),
            list(&[list(&[])]),
            list(&[Value::text("ab")]),
            list(&[Value::text("a"), Value::text("b")]),
            Value::text("ab"),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().map(|value| hash_of(value).unwrap()).collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn hash_is_none_for_none_and_fails_for_sets() {
        assert_eq!(hash(Value::None), None);
        let error = hash_of(&Value::Set([Value::Int(1)].into())).unwrap_err();
        assert!(error.to_string().contains("not set"), "{error}");
    }

    #[test]
    fn position_stays_within_open_interval() {
        let positions = (0..100_000).map(|value| position(salt("e", "a"), value));
        let (mut low, mut high, mut sum) = (1.0_f64, 0.0_f64, 0.0);
        for position in positions {
            (low, high, sum) = (low.min(position), high.max(position), sum + position);
        }
        assert!(low > 0.0 && low < 1e-4 && high < 1.0 && high > 1.0 - 1e-4, "{low} {high}");
        assert!((sum / 1e5 - 0.5).abs() < 0.004, "{sum}");
    }
}
