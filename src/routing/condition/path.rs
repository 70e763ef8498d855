//! Constant paths into the payload, read straight from its bytes.
//!
//! A path such as `request.json()['dataframe_split']['data'][0][0]` is known when the condition is loaded, so reading
//! it needs no tree of the whole body: values beside the path are passed over. This has two consequences:
//!
//! - values before the leaf are checked for their form, and not read: a `NaN`, half a character or a number beyond all
//!   bounds there does no harm;
//! - after the leaf, only as much is looked at as it takes to know that no key of the path is written again; should the
//!   rest be broken, the model server will say so.

use super::error::{ConditionError, Result};
use super::json::{Cursor, JsonError, JsonKind, SoughtKey};
use super::operations::collections;
use super::value::Value;

/// One step of a path into a JSON value.
#[derive(Debug, Clone)]
pub(super) enum JsonStep {
    /// `['key']`
    Key(Box<str>),
    /// `[3]`
    Index(usize),
    /// `.get('key')` or `.get('key', default)`
    Get(Box<str>, Value),
}

/// A constant path into the payload; with no steps, the whole of it.
#[derive(Debug, Clone)]
pub(super) struct JsonPath {
    pub(super) steps: Vec<JsonStep>,
    /// True if the payload is read whatever it is said to be.
    pub(super) is_forced: bool,
    /// Key that each step looks for in an object.
    keys: Vec<Option<SoughtKey>>,
    /// Path as errors show it.
    text: String,
}

impl JsonPath {
    pub(super) fn new(steps: Vec<JsonStep>, is_forced: bool, text: String) -> Self {
        let keys = steps.iter().map(|step| match step {
            JsonStep::Key(key) | JsonStep::Get(key, _) => Some(SoughtKey::new(key)),
            JsonStep::Index(_) => None,
        });
        Self { keys: keys.collect(), steps, is_forced, text }
    }

    /// Reads the value at the end of the path.
    pub(super) fn read(&self, document: &[u8]) -> Result<Value> {
        let (value, walked) = self.find(document).map_err(|broken| broken.of(document).with_place(&self.text))?;
        let rest = self.steps.get(walked..).unwrap_or_default();
        walk(value, rest).map_err(|error| error.with_place(&self.text))
    }

    /// Returns the value that the path leads to, and the number of steps walked. Where a step leads nowhere, an empty
    /// value of the same type is returned, for which that step fails as it would there.
    fn find(&self, document: &[u8]) -> std::result::Result<(Value, usize), JsonError> {
        let mut cursor = Cursor::new(document);
        for (walked, (step, key)) in self.steps.iter().zip(&self.keys).enumerate() {
            match (cursor.kind(), step, key) {
                (JsonKind::Object, _, Some(key)) => {
                    if !cursor.seek(key)? {
                        return Ok((Value::Dict(std::sync::Arc::default()), walked));
                    }
                }
                (JsonKind::Array, JsonStep::Index(index), _) => {
                    if !cursor.seek_element(*index)? {
                        return Ok((Value::List([].into()), walked));
                    }
                }
                (JsonKind::Object, ..) => return Ok((Value::Dict(std::sync::Arc::default()), walked)),
                (JsonKind::Array, ..) => return Ok((Value::List([].into()), walked)),
                (JsonKind::Scalar, ..) => return cursor.value().map(|scalar| (scalar, walked)),
            }
        }
        cursor.value().map(|value| (value, self.steps.len()))
    }
}

/// Walks the rest of a path through a value that has been read.
fn walk(value: Value, steps: &[JsonStep]) -> Result<Value> {
    steps.iter().try_fold(value, |value, step| match step {
        JsonStep::Key(key) => collections::item(&value, &Value::text(&**key)),
        JsonStep::Index(index) => collections::item(&value, &Value::Int(i64::try_from(*index).unwrap_or(i64::MAX))),
        JsonStep::Get(key, default) => collections::get(&value, &[Value::text(&**key), default.clone()]),
    })
}

/// Reads the whole payload.
pub(super) fn read_whole(document: &[u8]) -> Result<Value> {
    super::json::read(document).map_err(|error: ConditionError| error.with_place("request.json()"))
}
