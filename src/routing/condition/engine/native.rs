//! The engine for conditions in Rhai, which see `request`, and JSON as it is, read lazily.

use rhai::packages::{ArithmeticPackage, BasicStringPackage, CorePackage, LogicPackage, MoreStringPackage, Package};
use rhai::{Array, Dynamic, Engine, EvalAltResult};

use super::{MAX_NATIVE_DEPTH, MAX_NATIVE_ITEMS, MAX_NATIVE_TEXT, collections, hand_out, raise, thrown};
use crate::routing::condition::direct::RequestMapping;
use crate::routing::condition::error::{ConditionError, Result as Evaluated};
use crate::routing::condition::request::RequestView;
use crate::routing::condition::value::Value;

/// The mapping `request.headers` or `request.args` of one request.
#[derive(Debug, Clone)]
struct NamedValues {
    request: RequestView,
    mapping: RequestMapping,
}

impl NamedValues {
    fn get(&self, name: &str) -> Evaluated<Option<Value>> {
        self.mapping.get(&self.request, name)
    }
}

/// Makes the engine for conditions in Rhai.
pub(super) fn engine() -> Engine {
    let mut engine = super::bounded();
    engine.set_max_expr_depths(MAX_NATIVE_DEPTH);
    engine.set_max_string_size(MAX_NATIVE_TEXT);
    engine.set_max_array_size(MAX_NATIVE_ITEMS);
    engine.set_max_map_size(MAX_NATIVE_ITEMS);
    CorePackage::new().register_into_engine(&mut engine);
    LogicPackage::new().register_into_engine(&mut engine);
    ArithmeticPackage::new().register_into_engine(&mut engine);
    BasicStringPackage::new().register_into_engine(&mut engine);
    MoreStringPackage::new().register_into_engine(&mut engine);
    super::register_properties(&mut engine);
    register_json(&mut engine);
    register_mappings(&mut engine);
    engine
}

/// Converts the value that an expression in Rhai gave.
pub(super) fn value(given: &Dynamic) -> Evaluated<Value> {
    if let Ok(character) = given.as_char() {
        Ok(Value::text(character.to_string()))
    } else if let Some(items) = given.read_lock::<Array>() {
        Ok(Value::List(items.iter().map(value).collect::<Evaluated<Vec<_>>>()?.into()))
    } else {
        match Value::from_dynamic(given) {
            Value::None if !given.is_unit() => {
                Err(ConditionError::wrong_type(format!("a Rhai expression gave {}", given.type_name())))
            }
            value => Ok(value),
        }
    }
}

fn register_json(engine: &mut Engine) {
    engine.register_type_with_name::<Value>("json");
    engine.register_get("json", |request: &mut RequestView| hand_out(request.body()));
    engine.register_fn("json", |request: &mut RequestView| hand_out(request.body()));
    engine.register_fn("get_json", |request: &mut RequestView| hand_out(request.body()));
    engine.register_indexer_get(|value: &mut Value, key: &str| hand_out(collections::item(value, &Value::text(key))));
    engine.register_indexer_get(|value: &mut Value, index: i64| hand_out(collections::item(value, &Value::Int(index))));
    engine.register_fn("get", |value: &mut Value, key: &str| hand_out(collections::get(value, &[Value::text(key)])));
    engine.register_fn("len", |value: &mut Value| hand_out(collections::length(value)));
    engine.register_get("len", |value: &mut Value| hand_out(collections::length(value)));
    engine.register_fn("contains", |value: &mut Value, needle: Dynamic| {
        thrown(collections::contains(value, &Value::from_dynamic(&needle)))
    });
}

fn register_mappings(engine: &mut Engine) {
    engine.register_type_with_name::<NamedValues>("mapping");
    engine.register_get("headers", |request: &mut RequestView| NamedValues {
        request: request.clone(),
        mapping: RequestMapping::Headers,
    });
    engine.register_get("args", |request: &mut RequestView| NamedValues {
        request: request.clone(),
        mapping: RequestMapping::Arguments,
    });
    engine.register_indexer_get(|named: &mut NamedValues, name: &str| {
        hand_out(named.get(name).and_then(|value| value.ok_or_else(|| named.mapping.missing(name))))
    });
    engine.register_fn("get", |named: &mut NamedValues, name: &str| {
        hand_out(named.get(name).map(|value| value.unwrap_or(Value::None)))
    });
    engine.register_fn("get", |named: &mut NamedValues, name: &str, default: Dynamic| {
        let value = named.get(name).map_err(raise)?;
        Ok::<_, Box<EvalAltResult>>(value.map_or(default, Value::into_dynamic))
    });
    engine.register_fn("contains", |named: &mut NamedValues, name: &str| {
        thrown(named.get(name).map(|value| value.is_some()))
    });
}
