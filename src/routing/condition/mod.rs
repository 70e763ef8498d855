//! Conditions (`model_request_condition`): expressions over the request that decide whether a route takes it.
//!
//! **Language.** A condition that starts with `rhai:` is [Rhai]; every other one is Python. The rest of the text never
//! decides the language.
//!
//! **Evaluation.** Python is parsed ([`python`]), lowered to Rhai text that keeps Python's meaning ([`lower`]), and run
//! in a sandboxed engine ([`engine`]) against a [`request`] that reads the payload only as far as the condition needs
//! ([`path`]). Simple conditions are evaluated by the same helpers without the engine ([`direct`]). All conditions of
//! one endpoint are compiled together, so that each part of a request is read once.
//!
//! **Differences from Python.** Whole numbers are 64 bits wide; beyond that the condition fails instead of growing.
//! `keys()`, `values()` and `items()` can only be looked through; sets have no order; `str()` takes scalars only;
//! `isdigit()`, `int()` and `float()` know ASCII digits only; a value is read up to 500 levels deep. All these cases
//! fail, and never give another answer. Another answer is only possible for a body that is no JSON after the leaf that
//! the condition reads, for `isalpha()` on combining marks, and for the last 2,048 characters for private use, which
//! stand for halves of others here. Everything else that is not known is refused when the condition is loaded.
//!
//! **JSON** is read as Python's `json` reads it ([`json`]), since the model will read it that way.
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
mod question;
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
pub use self::question::{Answers, PythonExpression, Question, ResultKind};
use self::request::RequestView;
pub use self::value::{Dict, Value, ViewOf};
use crate::message::Request;

/// Prefix of conditions in Rhai.
const RHAI_PREFIX: &str = "rhai:";
/// Longest condition, in bytes; a longer one is refused.
const MAX_SOURCE: usize = 16 << 10;
/// Bytes of the stack on which conditions are compiled: enough for the syntax tree of any text of [`MAX_SOURCE`].
const COMPILER_STACK: usize = 128 << 20;

/// The language of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// A Python expression.
    Python,
    /// A Rhai expression, after `rhai:`.
    Rhai,
}

/// Key of a condition of a [`Conditions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConditionId(usize);

/// Key of an expression, whose value is wanted, of a [`Conditions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpressionId(usize);

/// Compiles and collects the conditions of one endpoint.
#[derive(Debug, Default)]
pub struct ConditionsBuilder {
    tables: Tables,
    generators: Vec<Generator>,
    conditions: Vec<CompiledCondition>,
    /// True if simple conditions are left to the engine as well, so that the two can be compared.
    is_engine_only: bool,
}

/// The compiled conditions of one endpoint, ready to run on any thread.
#[derive(Debug, Clone)]
pub struct Conditions(Arc<Program>);

/// The evaluation of an endpoint's conditions on one request: each part that a condition read of the request is there
/// for the next one.
#[derive(Debug)]
pub struct Evaluation(RequestView);

#[derive(Debug)]
struct CompiledCondition {
    source: Box<str>,
    language: Language,
    code: CompiledCode,
}

/// The compiled form of a condition.
#[derive(Debug)]
enum CompiledCode {
    DirectTest(DirectTest),
    DirectTerm(DirectTerm),
    Engine(AST),
}

/// The compiled form of all conditions of an endpoint.
#[derive(Debug)]
struct Program {
    conditions: Vec<CompiledCondition>,
    paths: Vec<path::JsonPath>,
    constants: Vec<Value>,
    generators: Vec<Generator>,
}

/// Returns the language of a condition, by the rule above.
pub fn language(source: &str) -> Language {
    if source.trim_start().starts_with(RHAI_PREFIX) { Language::Rhai } else { Language::Python }
}

/// Compiles a condition, and returns its language.
pub fn check(source: &str) -> Result<Language, ConditionProblem> {
    ConditionsBuilder::new().add(source)?;
    Ok(language(source))
}

/// Compiles an expression whose value is wanted, and returns its language.
pub fn check_expression(source: &str) -> Result<Language, ConditionProblem> {
    ConditionsBuilder::new().add_expression(source)?;
    Ok(language(source))
}

impl ConditionsBuilder {
    /// Makes a builder without conditions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a builder that leaves even simple conditions to the engine.
    #[cfg(test)]
    fn engine_only() -> Self {
        Self { is_engine_only: true, ..Self::default() }
    }

    /// Compiles a condition. A condition that is refused changes nothing.
    pub fn add(&mut self, source: &str) -> Result<ConditionId, ConditionProblem> {
        self.add_wanted(source, ResultKind::Truth).map(ConditionId)
    }

    /// Compiles an expression whose value is wanted. An expression that is refused changes nothing.
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
            // The two tables of generators go in step; entries that a refused condition left in the others are not referred to.
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

    /// Compiles an expression that is simple enough to go without the engine.
    fn directly(&mut self, parsed: &python::Parsed<'_>, wanted: ResultKind) -> Option<CompiledCode> {
        if self.is_engine_only {
            return None;
        }
        match wanted {
            ResultKind::Truth => lower::direct::test(parsed, &mut self.tables).map(CompiledCode::DirectTest),
            ResultKind::Value => lower::direct::term(parsed, &mut self.tables).map(CompiledCode::DirectTerm),
        }
    }

    /// Finishes the conditions that were added.
    pub fn build(self) -> Conditions {
        let Tables { paths, constants, .. } = self.tables;
        Conditions(Arc::new(Program { conditions: self.conditions, paths, constants, generators: self.generators }))
    }
}

impl Conditions {
    /// Starts the evaluation of one request. Reads nothing of it yet.
    pub fn evaluation(&self, request: &Arc<Request>) -> Evaluation {
        Evaluation(RequestView::new(Arc::clone(request), Arc::clone(&self.0)))
    }

    /// Returns the language of a condition.
    pub fn language(&self, id: ConditionId) -> Language {
        self.0.conditions.get(id.0).map_or(Language::Python, |condition| condition.language)
    }

    /// Returns the text of a condition, as it was written.
    pub fn source(&self, id: ConditionId) -> &str {
        self.0.conditions.get(id.0).map_or("", |condition| &condition.source)
    }

    /// Returns the text of an expression, as it was written.
    pub fn expression(&self, id: ExpressionId) -> &str {
        self.source(ConditionId(id.0))
    }
}

impl Evaluation {
    /// Tells whether the condition holds for this request.
    pub fn holds(&self, id: ConditionId) -> Result<bool, ConditionError> {
        let CompiledCondition { code, language, .. } = self.start(id.0)?;
        match code {
            CompiledCode::DirectTest(test) => test.holds(&self.0),
            CompiledCode::DirectTerm(term) => Ok(operators::truth(&*term.value(&self.0)?)),
            CompiledCode::Engine(ast) => engine::holds(ast, *language, &self.0),
        }
    }

    /// Evaluates the expression for this request.
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
