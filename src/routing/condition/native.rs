//! Conditions in Rhai: a sandboxed engine, made once and shared by every thread, in which expressions see `request`,
//! and JSON as it is, read lazily. It has no loops, functions, modules, `eval`, or a way to the outside.

use std::sync::LazyLock;

use rhai::packages::{ArithmeticPackage, BasicStringPackage, CorePackage, LogicPackage, MoreStringPackage, Package};
use rhai::{AST, Array, Dynamic, Engine, EvalAltResult, Position, Scope};

use super::error::{ConditionError, ConditionProblem, Result as Evaluated};
use super::operations::collections;
use super::request::{RequestMapping, RequestView};
use super::value::Value;

/// Prefix of conditions in Rhai.
pub(super) const PREFIX: &str = "rhai:";
/// Most levels of a condition; every level takes stack when it is evaluated.
const MAX_DEPTH: usize = 24;
/// Most steps of Rhai itself in one evaluation.
const MAX_OPERATIONS: u64 = 20_000;
/// Longest text that a condition may handle, in bytes.
const MAX_TEXT: usize = 16 << 20;
/// Most items of an array or map that a condition may write.
const MAX_ITEMS: usize = 1_000;

static ENGINE: LazyLock<Engine> = LazyLock::new(engine);

/// The mapping `request.headers` or `request.args` of one request.
#[derive(Debug, Clone)]
struct NamedValues {
    request: RequestView,
    mapping: RequestMapping,
}

impl NamedValues {
    fn get(&self, name: &str) -> Evaluated<Option<Value>> {
        Ok(self.mapping.get(&self.request, name))
    }
}

/// Compiles a condition, with its prefix.
pub(super) fn compile(source: &str) -> Result<AST, ConditionProblem> {
    let start = source.find(PREFIX).map_or(0, |at| at + PREFIX.len());
    // Blanks instead of the prefix keep Rhai's positions those of the whole text.
    let (prefix, expression) = source.split_at(start);
    let blank: String = prefix.chars().map(|character| if character == '\n' { '\n' } else { ' ' }).collect();
    ENGINE.compile_expression(blank + expression).map_err(|error| {
        let position = error.position();
        ConditionProblem {
            line: position.line().unwrap_or(1),
            column: position.position().unwrap_or(1),
            message: format!("not a Rhai expression: {}", error.err_type()),
            hint: None,
        }
    })
}

/// Tells whether the condition holds.
pub(super) fn holds(ast: &AST, request: &RequestView) -> Evaluated<bool> {
    run(ast, request)?.as_bool().map_err(|type_name| {
        ConditionError::wrong_type(format!("a Rhai condition must give true or false, not {type_name}"))
    })
}

/// Evaluates the expression.
pub(super) fn value(ast: &AST, request: &RequestView) -> Evaluated<Value> {
    converted(&run(ast, request)?)
}

fn run(ast: &AST, request: &RequestView) -> Evaluated<Dynamic> {
    let mut scope = Scope::new();
    scope.push("request", request.clone());
    ENGINE.eval_ast_with_scope::<Dynamic>(&mut scope, ast).map_err(|error| caught(*error))
}

fn engine() -> Engine {
    let mut engine = Engine::new_raw();
    engine.set_max_operations(MAX_OPERATIONS);
    engine.set_allow_looping(false);
    engine.disable_symbol("eval");
    engine.set_max_expr_depths(MAX_DEPTH);
    engine.set_max_string_size(MAX_TEXT);
    engine.set_max_array_size(MAX_ITEMS);
    engine.set_max_map_size(MAX_ITEMS);
    CorePackage::new().register_into_engine(&mut engine);
    LogicPackage::new().register_into_engine(&mut engine);
    ArithmeticPackage::new().register_into_engine(&mut engine);
    BasicStringPackage::new().register_into_engine(&mut engine);
    MoreStringPackage::new().register_into_engine(&mut engine);
    register_properties(&mut engine);
    register_json(&mut engine);
    register_mappings(&mut engine);
    engine
}

fn converted(given: &Dynamic) -> Evaluated<Value> {
    if let Ok(character) = given.as_char() {
        Ok(Value::text(character.to_string()))
    } else if let Some(items) = given.read_lock::<Array>() {
        Ok(Value::List(items.iter().map(converted).collect::<Evaluated<Vec<_>>>()?.into()))
    } else {
        match Value::from_dynamic(given) {
            Value::None if !given.is_unit() => {
                Err(ConditionError::wrong_type(format!("a Rhai expression gave {}", given.type_name())))
            }
            value => Ok(value),
        }
    }
}

fn register_properties(engine: &mut Engine) {
    engine.register_type_with_name::<RequestView>("request");
    engine.register_get("method", |request: &mut RequestView| request.method().into_dynamic());
    engine.register_get("path", |request: &mut RequestView| request.path().into_dynamic());
    engine.register_get("content_type", |request: &mut RequestView| request.content_type().into_dynamic());
    engine.register_get("key", |request: &mut RequestView| hand_out(request.key()));
    engine.register_get("topic", |request: &mut RequestView| request.topic().into_dynamic());
    engine.register_get("partition", |request: &mut RequestView| request.partition().into_dynamic());
}

fn register_json(engine: &mut Engine) {
    engine.register_type_with_name::<Value>("json");
    engine.register_get("json", |request: &mut RequestView| hand_out(request.body()));
    engine.register_fn("json", |request: &mut RequestView| hand_out(request.body()));
    engine.register_fn("get_json", |request: &mut RequestView| hand_out(request.body()));
    engine.register_indexer_get(|value: &mut Value, key: &str| hand_out(collections::item(value, &Value::text(key))));
    engine.register_indexer_get(|value: &mut Value, index: i64| hand_out(collections::item(value, &Value::Int(index))));
    engine.register_fn("get", |value: &mut Value, key: &str| hand_out(collections::get(value, &[Value::text(key)])));
    engine.register_fn("len", |value: &mut Value| hand_out(collections::length(value, &[])));
    engine.register_get("len", |value: &mut Value| hand_out(collections::length(value, &[])));
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

fn hand_out(result: Evaluated<Value>) -> Result<Dynamic, Box<EvalAltResult>> {
    result.map(Value::into_dynamic).map_err(raise)
}

fn thrown<T>(result: Evaluated<T>) -> Result<T, Box<EvalAltResult>> {
    result.map_err(raise)
}

/// Sends an error through Rhai; [`caught`] takes it out again, without the position that Rhai adds.
fn raise(error: ConditionError) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorRuntime(Dynamic::from(error), Position::NONE))
}

fn caught(error: EvalAltResult) -> ConditionError {
    match error {
        EvalAltResult::ErrorRuntime(value, _) => {
            value.try_cast_result().unwrap_or_else(|value| ConditionError::Failed(value.to_string()))
        }
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) => caught(*inner),
        exceeded @ (EvalAltResult::ErrorTooManyOperations(_)
        | EvalAltResult::ErrorTooManyVariables(_)
        | EvalAltResult::ErrorStackOverflow(_)
        | EvalAltResult::ErrorDataTooLarge(..)) => ConditionError::Exceeded(exceeded.to_string()),
        other => ConditionError::Failed(other.to_string()),
    }
}
