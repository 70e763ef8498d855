//! `model_request_condition`: an expression over the request that says whether a route takes it.
//!
//! **Which language.** A condition that starts with `rhai:` is [Rhai]; every other one is Python. Nothing is guessed
//! from what follows.
//!
//! **How.** Python is parsed ([`python`]), lowered to Rhai text that keeps Python's meaning ([`lower`]), and run in a
//! sandboxed engine ([`engine`]) against a [`request`] that reads the payload only as far as it is asked to ([`path`]).
//! What is simple enough is told by the same helpers without the engine ([`direct`]). All conditions of one endpoint are compiled together, so that what they read of a request is read once.
//!
//! **Where it differs from Python.** Whole numbers are 64 bits wide; beyond that the condition fails instead of growing.
//! `keys()`, `values()` and `items()` can only be looked through; sets have no order; `str()` takes scalars only;
//! `isdigit()`, `int()` and `float()` know ASCII digits only; a value is read up to 500 levels deep. All that fails, it
//! never gives another answer. Another answer is only possible for a body that is no JSON after the leaf that was asked
//! for, for `isalpha()` on combining marks, and for the last 2,048 characters for private use, which stand for halves of
//! others here. Whatever else is not known is refused when the condition is loaded.
//!
//! **JSON** is what Python's `json` reads ([`json`]), since that is what the model will read.
//!
//! **Values.** The same expressions serve where the value itself is wanted and not only its truth, such as `sticky_by`:
//! see [`ConditionsBuilder::add_expression`] and [`Evaluation::value`].
//!
//! [Rhai]: https://rhai.rs

mod budget;
mod direct;
mod engine;
mod error;
mod json;
mod lower;
mod path;
mod python;
mod request;
mod value;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use rhai::{AST, ParseError};
use serde::Serialize;

use self::direct::{DirectTerm, DirectTest};
use self::engine::Generator;
use self::engine::operators;
pub use self::error::{ConditionError, ConditionProblem};
use self::lower::Tables;
use self::request::RequestView;
pub(super) use self::value::Value;
use crate::message::Request;

/// The prefix of conditions in Rhai.
const RHAI_PREFIX: &str = "rhai:";
/// The longest condition, in bytes.
const MAX_SOURCE: usize = 16 << 10;
/// The stack that conditions are compiled on: enough for the syntax tree of any text of that length.
const COMPILER_STACK: usize = 128 << 20;

/// What a condition is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// A Python expression.
    Python,
    /// A Rhai expression, after `rhai:`.
    Rhai,
}

/// One condition of a [`Conditions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConditionId(usize);

/// An expression among the conditions of a [`Conditions`], of which the value is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpressionId(usize);

/// What of an expression is wanted.
#[derive(Debug, Clone, Copy)]
enum ResultKind {
    Truth,
    Value,
}

/// Collects the conditions of one endpoint.
#[derive(Debug, Default)]
pub struct ConditionsBuilder {
    tables: Tables,
    generators: Vec<Generator>,
    conditions: Vec<CompiledCondition>,
    /// Whether even what is simple is left to the engine, so that the two can be compared.
    is_engine_only: bool,
}

/// The conditions of one endpoint, ready to run on any thread.
#[derive(Debug, Clone)]
pub struct Conditions(Arc<Program>);

/// The conditions of one endpoint, and one request: what a condition read of it, the next one finds read.
#[derive(Debug)]
pub struct Evaluation(RequestView);

#[derive(Debug)]
struct CompiledCondition {
    source: Box<str>,
    language: Language,
    code: CompiledCode,
}

/// What a condition compiles to.
#[derive(Debug)]
enum CompiledCode {
    DirectTest(DirectTest),
    DirectTerm(DirectTerm),
    Engine(AST),
}

/// What all conditions of an endpoint compile to.
#[derive(Debug)]
struct Program {
    conditions: Vec<CompiledCondition>,
    paths: Vec<path::JsonPath>,
    constants: Vec<Value>,
    generators: Vec<Generator>,
}

/// Which language a condition is written in, by the rule above.
pub fn language(source: &str) -> Language {
    if source.trim_start().starts_with(RHAI_PREFIX) { Language::Rhai } else { Language::Python }
}

/// Whether a condition compiles, and what it is written in.
pub fn check(source: &str) -> Result<Language, ConditionProblem> {
    ConditionsBuilder::new().add(source)?;
    Ok(language(source))
}

/// Whether an expression compiles of which the value is wanted, and what it is written in.
pub fn check_expression(source: &str) -> Result<Language, ConditionProblem> {
    ConditionsBuilder::new().add_expression(source)?;
    Ok(language(source))
}

impl ConditionsBuilder {
    /// No conditions yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`Self::new`], for the engine alone.
    #[cfg(test)]
    fn engine_only() -> Self {
        Self { is_engine_only: true, ..Self::default() }
    }

    /// Compiles a condition. One that is refused changes nothing.
    pub fn add(&mut self, source: &str) -> Result<ConditionId, ConditionProblem> {
        self.add_wanted(source, ResultKind::Truth).map(ConditionId)
    }

    /// Compiles an expression whose value is wanted. One that is refused changes nothing.
    pub fn add_expression(&mut self, source: &str) -> Result<ExpressionId, ConditionProblem> {
        self.add_wanted(source, ResultKind::Value).map(ExpressionId)
    }

    fn add_wanted(&mut self, source: &str, wanted: ResultKind) -> Result<usize, ConditionProblem> {
        if source.len() > MAX_SOURCE {
            let message = format!("the condition is longer than {MAX_SOURCE} bytes");
            return Err(ConditionProblem::at(source, 0, message, Some("split it over several routes")));
        }
        let generators = self.generators.len();
        let compiled = std::thread::scope(|scope| {
            let compiler = std::thread::Builder::new().name("conditions".to_owned()).stack_size(COMPILER_STACK);
            let compiling = compiler.spawn_scoped(scope, || {
                budget::start(0);
                self.compile(source, wanted)
            });
            compiling.map(|thread| thread.join().ok()).ok().flatten()
        });
        let failed = || ConditionProblem::at(source, 0, "the compiler could not be run on this condition", None);
        let (language, code) = compiled.unwrap_or_else(|| Err(failed())).inspect_err(|_| {
            // Whatever else it left in the tables is not referred to; these two go in step.
            self.tables.generators.truncate(generators);
            self.generators.truncate(generators);
        })?;
        self.conditions.push(CompiledCondition { source: source.into(), language, code });
        Ok(self.conditions.len() - 1)
    }

    fn compile(&mut self, source: &str, wanted: ResultKind) -> Result<(Language, CompiledCode), ConditionProblem> {
        let language = language(source);
        let code = match language {
            Language::Rhai => CompiledCode::Engine(compile_native(source)?),
            Language::Python => {
                let parsed = python::parse(source)?;
                let text = match wanted {
                    ResultKind::Truth => lower::truth(&parsed, &mut self.tables)?,
                    ResultKind::Value => lower::value(&parsed, &mut self.tables)?,
                };
                if let Some(code) = self.directly(&parsed, wanted) {
                    return Ok((language, code));
                }
                let refused = |error: ParseError| {
                    if matches!(error.err_type(), rhai::ParseErrorType::ExprTooDeep) {
                        let hint = Some("split it over several routes");
                        return ConditionProblem::at(source, 0, "the expression is nested too deeply", hint);
                    }
                    tracing::error!(%error, lowered = %text, "lowered condition does not compile");
                    ConditionProblem::at(
                        source,
                        0,
                        "Signalbox cannot compile this condition, by a defect of its own",
                        None,
                    )
                };
                while let Some(generator) = self.tables.generators.get(self.generators.len()) {
                    let body = engine::compile_lowered(&generator.body).map_err(refused)?;
                    let (variables, targets) = (generator.variables.clone(), generator.targets);
                    self.generators.push(Generator { body, variables, targets });
                }
                CompiledCode::Engine(engine::compile_lowered(&text).map_err(refused)?)
            }
        };
        Ok((language, code))
    }

    /// What is simple enough to go without the engine.
    fn directly(&mut self, parsed: &python::Parsed<'_>, wanted: ResultKind) -> Option<CompiledCode> {
        if self.is_engine_only {
            return None;
        }
        match wanted {
            ResultKind::Truth => lower::direct::test(parsed, &mut self.tables).map(CompiledCode::DirectTest),
            ResultKind::Value => lower::direct::term(parsed, &mut self.tables).map(CompiledCode::DirectTerm),
        }
    }

    /// The conditions that were added.
    pub fn build(self) -> Conditions {
        let Tables { paths, constants, .. } = self.tables;
        Conditions(Arc::new(Program { conditions: self.conditions, paths, constants, generators: self.generators }))
    }
}

impl Conditions {
    /// Starts on one request. Reads nothing of it yet.
    pub fn evaluation(&self, request: &Arc<Request>) -> Evaluation {
        Evaluation(RequestView::new(Arc::clone(request), Arc::clone(&self.0)))
    }

    /// Which language a condition is written in.
    pub fn language(&self, id: ConditionId) -> Language {
        self.0.conditions.get(id.0).map_or(Language::Python, |condition| condition.language)
    }

    /// A condition as it was written.
    pub fn source(&self, id: ConditionId) -> &str {
        self.0.conditions.get(id.0).map_or("", |condition| &condition.source)
    }

    /// An expression as it was written.
    pub fn expression(&self, id: ExpressionId) -> &str {
        self.source(ConditionId(id.0))
    }
}

impl Evaluation {
    /// Whether the condition holds for this request.
    pub fn holds(&self, id: ConditionId) -> Result<bool, ConditionError> {
        let CompiledCondition { code, language, .. } = self.start(id.0)?;
        match code {
            CompiledCode::DirectTest(test) => test.holds(&self.0),
            CompiledCode::DirectTerm(term) => Ok(operators::truth(&*term.value(&self.0)?)),
            CompiledCode::Engine(ast) => engine::holds(ast, *language, &self.0),
        }
    }

    /// What the expression gives for this request.
    pub(super) fn value(&self, id: ExpressionId) -> Result<Value, ConditionError> {
        let CompiledCondition { code, language, .. } = self.start(id.0)?;
        match code {
            CompiledCode::DirectTest(test) => test.holds(&self.0).map(Value::Bool),
            CompiledCode::DirectTerm(term) => term.value(&self.0).map(Cow::into_owned),
            CompiledCode::Engine(ast) => engine::value(ast, *language, &self.0),
        }
    }

    fn start(&self, index: usize) -> Result<&CompiledCondition, ConditionError> {
        budget::start(self.0.payload_size());
        let missing = || ConditionError::Failed("no such condition".to_owned());
        self.0.program().conditions.get(index).ok_or_else(missing)
    }
}

impl fmt::Display for Language {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Python => "Python",
            Self::Rhai => "Rhai",
        })
    }
}

fn compile_native(source: &str) -> Result<AST, ConditionProblem> {
    let start = source.find(RHAI_PREFIX).map_or(0, |at| at + RHAI_PREFIX.len());
    // Blanks instead of the prefix keep Rhai's positions those of the whole text.
    let (prefix, expression) = source.split_at(start);
    let blank: String = prefix.chars().map(|character| if character == '\n' { '\n' } else { ' ' }).collect();
    engine::compile_native(&(blank + expression)).map_err(|error| {
        let position = error.position();
        ConditionProblem {
            line: position.line().unwrap_or(1),
            column: position.position().unwrap_or(1),
            message: format!("not a Rhai expression: {}", error.err_type()),
            hint: None,
        }
    })
}

#[cfg(test)]
mod tests;
