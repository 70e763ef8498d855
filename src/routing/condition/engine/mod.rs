//! The sandbox: two raw Rhai engines, made once and shared by every thread.
//!
//! Python conditions arrive here as lowered Rhai text, in which every operation is a call of one of the helpers below
//! this module; that engine knows nothing else. Conditions in Rhai get Rhai's usual operators and text functions.
//! Neither engine has loops, functions, modules, `eval`, or a way to the outside.

mod builtins;
pub(super) mod collections;
pub(super) mod functions;
mod native;
pub(super) mod operators;
mod strings;

use std::any::TypeId;
use std::sync::LazyLock;

use rhai::{AST, Array, Dynamic, Engine, EvalAltResult, NativeCallContext, ParseError, Position, Scope};

use self::functions::{BUILTINS, COMPARISONS, Comparison, METHODS};
use super::Language;
use super::budget;
use super::direct::RequestMapping;
use super::error::{ConditionError, Result};
use super::request::RequestView;
use super::value::Value;

/// Most levels of Rhai's expressions. Lowered text is several levels deeper than its Python.
const MAX_DEPTH: usize = 128;
/// Most levels of a condition in Rhai; every level takes stack when it is evaluated.
const MAX_NATIVE_DEPTH: usize = 24;
/// Most steps of Rhai itself in one evaluation; a Python condition has no loops, so its length bounds them before this
/// does.
const MAX_OPERATIONS: u64 = 20_000;
/// Longest text that a condition in Rhai may handle, in bytes.
const MAX_NATIVE_TEXT: usize = 16 << 20;
/// Most items of an array or map that a condition in Rhai may write.
const MAX_NATIVE_ITEMS: usize = 1_000;

/// The helper of an operator with two operands.
type BinaryHelper = fn(&Value, &Value) -> Result<Value>;

static PYTHON: LazyLock<Engine> = LazyLock::new(python_engine);
static NATIVE: LazyLock<Engine> = LazyLock::new(native::engine);

/// The body of `any(… for …)` or `all(… for …)`: compiled apart, since Rhai's loops are switched off.
#[derive(Debug)]
pub(super) struct Generator {
    pub(super) body: AST,
    /// Variables that are bound around the generator, then those that it binds itself.
    pub(super) variables: Vec<String>,
    /// Number of variables that the generator binds itself.
    pub(super) targets: usize,
}

/// Compiles text that the lowering wrote.
pub(super) fn compile_lowered(text: &str) -> std::result::Result<AST, ParseError> {
    PYTHON.compile(text)
}

/// Compiles an expression that a person wrote in Rhai.
pub(super) fn compile_native(text: &str) -> std::result::Result<AST, ParseError> {
    NATIVE.compile_expression(text)
}

/// Tells whether the condition holds.
pub(super) fn holds(ast: &AST, language: Language, request: &RequestView) -> Result<bool> {
    run(ast, language, request)?.as_bool().map_err(|type_name| {
        ConditionError::wrong_type(format!("a Rhai condition must give true or false, not {type_name}"))
    })
}

/// Evaluates the expression.
pub(super) fn value(ast: &AST, language: Language, request: &RequestView) -> Result<Value> {
    let value = run(ast, language, request)?;
    match language {
        Language::Python => Ok(Value::from_dynamic(&value)),
        Language::Rhai => native::value(&value),
    }
}

fn run(ast: &AST, language: Language, request: &RequestView) -> Result<Dynamic> {
    let engine = match language {
        Language::Python => &PYTHON,
        Language::Rhai => &NATIVE,
    };
    let mut scope = Scope::new();
    scope.push("request", request.clone());
    engine.eval_ast_with_scope::<Dynamic>(&mut scope, ast).map_err(|error| caught(*error))
}

fn python_engine() -> Engine {
    let mut engine = bounded();
    engine.set_max_expr_depths(MAX_DEPTH);
    engine.register_type_with_name::<Value>("value");
    register_request(&mut engine);
    register_operators(&mut engine);
    for builtin in BUILTINS {
        for arity in builtin.arguments.clone() {
            register(&mut engine, &format!("py_{}", builtin.name), arity, builtin.call);
        }
    }
    for method in METHODS {
        let call = method.call;
        for arity in method.arguments.clone() {
            register(&mut engine, &format!("m_{}", method.name), arity + 1, move |values| match values {
                [receiver, arguments @ ..] => call(receiver, arguments),
                [] => Ok(Value::None),
            });
        }
    }
    engine
}

/// Makes an engine that can do nothing yet, with the bounds that every engine has.
fn bounded() -> Engine {
    let mut engine = Engine::new_raw();
    engine.set_max_operations(MAX_OPERATIONS);
    engine.set_allow_looping(false);
    engine.disable_symbol("eval");
    engine
}

fn register_request(engine: &mut Engine) {
    let at = |index: i64| usize::try_from(index).unwrap_or(usize::MAX);
    engine
        .register_fn("field", move |request: &mut RequestView, index: i64| hand_out(request.field(at(index)).cloned()));
    engine.register_fn("constant", move |request: &mut RequestView, index: i64| {
        request.program().constants.get(at(index)).cloned().unwrap_or(Value::None).into_dynamic()
    });
    engine.register_fn("header", |request: &mut RequestView, name: Dynamic| {
        hand_out(
            name_of(&name)
                .and_then(|name| request.header(&name)?.ok_or_else(|| RequestMapping::Headers.missing(&name))),
        )
    });
    engine.register_fn("header", |request: &mut RequestView, name: Dynamic, default: Dynamic| {
        let value = name_of(&name).and_then(|name| request.header(&name)).map_err(raise)?;
        thrown(Ok(value.map_or(default, Value::into_dynamic)))
    });
    engine.register_fn("has_header", |request: &mut RequestView, name: Dynamic| {
        thrown(name_of(&name).and_then(|name| Ok(request.header(&name)?.is_some())))
    });
    engine.register_fn("argument", |request: &mut RequestView, name: Dynamic| {
        hand_out(
            name_of(&name)
                .and_then(|name| request.argument(&name).ok_or_else(|| RequestMapping::Arguments.missing(&name))),
        )
    });
    engine.register_fn("argument", |request: &mut RequestView, name: Dynamic, default: Dynamic| {
        let name = name_of(&name).map_err(raise)?;
        thrown(Ok(request.argument(&name).map_or(default, Value::into_dynamic)))
    });
    engine.register_fn("has_argument", |request: &mut RequestView, name: Dynamic| {
        thrown(name_of(&name).map(|name| request.argument(&name).is_some()))
    });
    engine.register_fn("text", |request: &mut RequestView| {
        hand_out(budget::charge_text(request.payload_size()).map(|()| request.text()))
    });
    register_properties(engine);
}

/// Registers the plain names that both languages read.
fn register_properties(engine: &mut Engine) {
    engine.register_type_with_name::<RequestView>("request");
    engine.register_get("method", |request: &mut RequestView| request.method().into_dynamic());
    engine.register_get("path", |request: &mut RequestView| request.path().into_dynamic());
    engine.register_get("content_type", |request: &mut RequestView| request.content_type().into_dynamic());
    engine.register_get("key", |request: &mut RequestView| hand_out(request.key()));
    engine.register_get("topic", |request: &mut RequestView| request.topic().into_dynamic());
    engine.register_get("partition", |request: &mut RequestView| request.partition().into_dynamic());
}

fn register_operators(engine: &mut Engine) {
    let operators: [(&str, BinaryHelper); 8] = [
        ("py_add", operators::add),
        ("py_subtract", operators::subtract),
        ("py_multiply", operators::multiply),
        ("py_divide", operators::divide),
        ("py_floor_divide", operators::floor_divide),
        ("py_remainder", operators::remainder),
        ("py_power", operators::power),
        ("py_item", collections::item),
    ];
    for (name, call) in operators {
        engine.register_fn(name, move |left: Dynamic, right: Dynamic| {
            hand_out(call(&Value::from_dynamic(&left), &Value::from_dynamic(&right)))
        });
    }
    for Comparison { helper, test } in COMPARISONS {
        engine.register_fn(*helper, move |left: Dynamic, right: Dynamic| {
            thrown(test(&Value::from_dynamic(&left), &Value::from_dynamic(&right)))
        });
    }
    engine.register_fn("py_truth", |value: Dynamic| operators::truth(&Value::from_dynamic(&value)));
    engine.register_fn("py_is_none", |value: Dynamic| value.is_unit());
    engine.register_fn("py_is", |value: Dynamic, constant: bool| value.as_bool() == Ok(constant));
    engine.register_fn("py_is_instance", |value: Dynamic, type_name: &str| {
        thrown(builtins::is_instance(&Value::from_dynamic(&value), type_name))
    });
    register(engine, "py_negate", 1, |values| values.first().map_or(Ok(Value::None), operators::negate));
    register(engine, "py_plus", 1, |values| values.first().map_or(Ok(Value::None), operators::plus));
    register(engine, "py_slice", 4, |values| match values {
        [container, low, high, step] => collections::slice(container, low, high, step),
        _ => Ok(Value::None),
    });
    engine.register_fn("py_list", |items: Array| display(&items).map(|items| Value::List(items.into()).into_dynamic()));
    engine
        .register_fn("py_tuple", |items: Array| display(&items).map(|items| Value::Tuple(items.into()).into_dynamic()));
    let types = [TypeId::of::<RequestView>(), TypeId::of::<i64>(), TypeId::of::<Dynamic>(), TypeId::of::<Array>()];
    engine.register_raw_fn("any_of", types, |context, arguments| generate(&context, arguments, true));
    engine.register_raw_fn("all_of", types, |context, arguments| generate(&context, arguments, false));
}

/// Registers a helper for this number of arguments of any type.
fn register(
    engine: &mut Engine,
    name: &str,
    arity: usize,
    call: impl Fn(&[Value]) -> Result<Value> + Send + Sync + 'static,
) {
    engine.register_raw_fn(name, vec![TypeId::of::<Dynamic>(); arity], move |_, arguments| {
        let values: Vec<Value> = arguments.iter().map(|argument| Value::from_dynamic(argument)).collect();
        hand_out(call(&values))
    });
}

/// Evaluates a generator's body for one element after the other, until one decides: for `any` the first that holds,
/// for `all` the first that does not.
fn generate(
    context: &NativeCallContext<'_>,
    arguments: &mut [&mut Dynamic],
    deciding: bool,
) -> Result<bool, Box<EvalAltResult>> {
    let [request, index, iterable, captured] = arguments else { return Ok(!deciding) };
    let (Some(request), Ok(index)) = (request.read_lock::<RequestView>(), index.as_int()) else { return Ok(!deciding) };
    let program = request.program();
    let generator = usize::try_from(index).ok().and_then(|index| program.generators.get(index));
    let (Some(generator), Some(captured)) = (generator, captured.read_lock::<Array>()) else { return Ok(!deciding) };
    for element in collections::elements(&Value::from_dynamic(iterable)).map_err(raise)? {
        // Each element starts an evaluation inside the evaluation, which the budget must pay for.
        budget::charge(budget::ELEMENT).map_err(raise)?;
        let mut scope = Scope::new();
        scope.push("request", request.clone());
        // `for x in …` binds the element itself, `for a, b in …` its parts.
        let own = if generator.targets == 1 {
            vec![element]
        } else {
            unpacked(&element, generator.targets).map_err(raise)?
        };
        let values = captured.iter().cloned().chain(own.into_iter().map(Value::into_dynamic));
        for (name, value) in generator.variables.iter().zip(values) {
            scope.push_dynamic(name.as_str(), value);
        }
        if context.engine().eval_ast_with_scope::<bool>(&mut scope, &generator.body)? == deciding {
            return Ok(deciding);
        }
    }
    Ok(!deciding)
}

/// Implements `for a, b in …`.
fn unpacked(element: &Value, targets: usize) -> Result<Vec<Value>> {
    let parts = collections::elements(element)?;
    if parts.len() == targets {
        Ok(parts)
    } else {
        Err(ConditionError::wrong_value(format!("expected {targets} values to unpack, got {}", parts.len())))
    }
}

fn display(items: &[Dynamic]) -> Result<Vec<Value>, Box<EvalAltResult>> {
    budget::charge(items.len()).map_err(raise)?;
    Ok(items.iter().map(Value::from_dynamic).collect())
}

fn name_of(name: &Dynamic) -> Result<rhai::ImmutableString> {
    match Value::from_dynamic(name) {
        Value::Str(name) => Ok(name),
        other => Err(ConditionError::wrong_type(format!("a name must be str, not {}", other.type_name()))),
    }
}

fn hand_out(result: Result<Value>) -> Result<Dynamic, Box<EvalAltResult>> {
    result.map(Value::into_dynamic).map_err(raise)
}

fn thrown<T>(result: Result<T>) -> Result<T, Box<EvalAltResult>> {
    result.map_err(raise)
}

/// Sends an error through Rhai; [`caught`] takes it out again, without the position that Rhai adds, since that is a
/// position in the lowered text.
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
