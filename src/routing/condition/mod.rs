//! Conditions (`model_request_condition`): expressions over the request that decide whether a route takes it.
//!
//! **Language.** A condition that starts with `rhai:` is [Rhai]; every other one is Python. The rest of the text never
//! decides the language.
//!
//! **Evaluation.** Python is parsed ([`python`]) and compiled ([`compile`]) to a [`tree`], which is evaluated by helpers
//! with Python's meaning ([`operations`]) against a [`request`] that reads the payload only as far as the condition needs
//! ([`path`]). All conditions of one endpoint are compiled together, so that each part of a request is read once. Python
//! that is not compiled becomes part of the endpoint's [`question`] to CPython. Rhai has an engine of its own
//! ([`native`]).
//!
//! **Differences of what is compiled from Python.** Whole numbers are 64 bits wide; beyond that the condition fails
//! instead of growing. `values()` and `items()` can only be looked through; sets have no order; `str()` takes scalars
//! only; `isdigit()`, `int()` and `float()` know ASCII digits only; a value is read up to 500 levels deep. All these cases
//! fail, and never give another answer. Another answer is only possible for a body that is no JSON after the leaf that
//! the condition reads, for `isalpha()` on combining marks, for the last digit of a `sum()` of floats, which Python
//! rounds otherwise since 3.12, and for the last 2,048 characters for private use, which stand for halves of others here.
//! Names that nothing knows are refused when the condition is loaded ([`names`]).
//!
//! **Content types** count as in Flask: JSON that is not said to be JSON is only read with `force=True`. Unlike in Flask,
//! what was read so is not there for those who ask without it: no expression changes what another one sees.
//!
//! **JSON** is read as Python's `json` reads it ([`json`]), since the model will read it that way.
//!
//! **Values.** The same expressions serve where the value itself is wanted and not only its truth, such as `sticky_by`:
//! see [`ConditionsBuilder::add_expression`] and [`Evaluation::value`].
//!
//! [Rhai]: https://rhai.rs

mod budget;
mod checked;
mod compile;
mod compiled;
mod error;
mod json;
mod names;
mod native;
mod operations;
mod parts;
mod path;
mod python;
mod question;
mod request;
mod shared;
mod tally;
mod tree;
mod value;

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use rhai::AST;
use serde::Serialize;

pub use self::checked::{CheckedExpression, ConstantTruth};
use self::compile::Tables;
pub use self::compiled::compiled_table;
pub use self::error::{ConditionError, ConditionProblem};
pub use self::names::{BUILTINS, MODULES};
pub use self::parts::Parts;
pub use self::question::{Answers, PythonExpression, Question, ResultKind};
use self::request::RequestView;
use self::tally::{EvaluationCounters, Tally};
use self::tree::{Node, Scope};
pub use self::value::{Dict, Value, ViewOf};
use crate::message::Request;
use crate::telemetry::Metrics;

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

/// The way in which an expression is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As a tree, in this process.
    Compiled,
    /// By CPython, in a process of its own.
    Python,
    /// By Rhai, in this process.
    Rhai,
}

/// Compiles and collects the conditions of one endpoint.
#[derive(Debug, Default)]
pub struct ConditionsBuilder {
    tables: Tables,
    conditions: Vec<CompiledCondition>,
    questions: Vec<PythonExpression>,
    /// Expressions that others use by a name, compiled, and the names with the texts of all of them.
    names: Vec<Node>,
    sources: Vec<(String, String)>,
}

/// The compiled conditions of one endpoint, ready to run on any thread.
#[derive(Debug, Clone)]
pub struct Conditions(Arc<Program>);

/// The evaluation of an endpoint's conditions on one request: each part that a condition read of the request is there
/// for the next one.
#[derive(Debug)]
pub struct Evaluation {
    request: RequestView,
    /// Answers of CPython to the endpoint's question, if it was asked.
    answers: Option<Arc<Answers>>,
    tally: Tally,
}

#[derive(Debug)]
struct CompiledCondition {
    source: Box<str>,
    code: CompiledCode,
}

/// The compiled form of a condition.
#[derive(Debug)]
enum CompiledCode {
    Tree(Node),
    /// The index among the endpoint's questions to CPython, and what keeps the expression from being compiled.
    Python(usize, ConditionProblem),
    Native(AST),
}

/// The compiled form of all conditions of an endpoint.
#[derive(Debug)]
struct Program {
    conditions: Vec<CompiledCondition>,
    paths: Vec<path::JsonPath>,
    /// Expressions that others use by a name.
    names: Vec<Node>,
    /// Names, each with the text of its expression.
    sources: Vec<(String, String)>,
    question: Option<Arc<Question>>,
    /// Counters of evaluations, once they are bound.
    counters: OnceLock<EvaluationCounters>,
}

/// Returns the language of a condition, by the rule above.
pub fn language(source: &str) -> Language {
    if source.trim_start().starts_with(native::PREFIX) { Language::Rhai } else { Language::Python }
}

impl ConditionsBuilder {
    /// Makes a builder without conditions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compiles a condition. A condition that is refused changes nothing.
    pub fn add(&mut self, source: &str) -> Result<ConditionId, ConditionProblem> {
        self.add_wanted(source, ResultKind::Truth).map(ConditionId)
    }

    /// Compiles an expression whose value is wanted. An expression that is refused changes nothing.
    pub fn add_expression(&mut self, source: &str) -> Result<ExpressionId, ConditionProblem> {
        self.add_wanted(source, ResultKind::Value).map(ExpressionId)
    }

    fn add_wanted(&mut self, source: &str, wants: ResultKind) -> Result<usize, ConditionProblem> {
        let code = on_large_stack(source, || self.compile(source, wants))?;
        self.conditions.push(CompiledCondition { source: source.into(), code });
        Ok(self.conditions.len() - 1)
    }

    fn compile(&mut self, source: &str, wants: ResultKind) -> Result<CompiledCode, ConditionProblem> {
        if language(source) == Language::Rhai {
            return native::compile(source).map(CompiledCode::Native);
        }
        let parsed = python::parse(source)?;
        let shared: Vec<&str> = self.sources.iter().map(|(name, _)| name.as_str()).collect();
        names::check(&parsed, &shared)?;
        Ok(match compile::compile(&parsed, &mut self.tables) {
            Ok((node, _)) => CompiledCode::Tree(node),
            Err(reason) => {
                self.questions.push(PythonExpression { source: source.into(), wants });
                CompiledCode::Python(self.questions.len() - 1, reason)
            }
        })
    }

    /// Finishes the conditions that were added.
    pub fn build(self) -> Conditions {
        let Self { tables, conditions, questions, names, sources } = self;
        let question = (!questions.is_empty()).then(|| Arc::new(Question::new(questions, sources.clone())));
        let (paths, counters) = (tables.paths, OnceLock::new());
        Conditions(Arc::new(Program { conditions, paths, names, sources, question, counters }))
    }
}

/// Compiles on a stack that is large enough for any text of the longest that is taken.
fn on_large_stack<T: Send>(
    source: &str,
    compile: impl FnOnce() -> Result<T, ConditionProblem> + Send,
) -> Result<T, ConditionProblem> {
    if source.len() > MAX_SOURCE {
        let message = format!("the condition is longer than {MAX_SOURCE} bytes");
        return Err(ConditionProblem::at(source, 0, message, Some("split it over several routes")));
    }
    let compiled = std::thread::scope(|scope| {
        let compiler = std::thread::Builder::new().name("conditions".to_owned()).stack_size(COMPILER_STACK);
        let compiling = compiler.spawn_scoped(scope, || {
            budget::start(0);
            compile()
        });
        compiling.map(|thread| thread.join().ok()).ok().flatten()
    });
    let failed = || ConditionProblem::at(source, 0, "the compiler could not be run on this condition", None);
    compiled.unwrap_or_else(|| Err(failed()))
}

impl Conditions {
    /// Starts the evaluation of one request, with what CPython said of [`Self::question`]. Reads nothing of the request
    /// yet.
    pub fn evaluation(&self, request: &Arc<Request>, answers: Option<Arc<Answers>>) -> Evaluation {
        let request = RequestView::new(Arc::clone(request), Arc::clone(&self.0));
        Evaluation { request, answers, tally: Tally::default() }
    }

    /// Counts evaluations in these metrics from now on.
    pub fn count_in(&self, metrics: &Metrics) {
        self.0.counters.get_or_init(|| EvaluationCounters::new(metrics));
    }

    /// Returns the expressions that CPython evaluates; none where all are compiled.
    pub fn question(&self) -> Option<&Arc<Question>> {
        self.0.question.as_ref()
    }

    /// Returns the way in which a condition is evaluated.
    pub fn way(&self, id: ConditionId) -> Way {
        self.0.conditions.get(id.0).map_or(Way::Compiled, |condition| condition.code.way())
    }

    /// Returns what keeps a condition from being compiled, where CPython evaluates it: the part that is not known, its
    /// place, and what could be written instead.
    pub fn reason(&self, id: ConditionId) -> Option<&ConditionProblem> {
        match &self.0.conditions.get(id.0)?.code {
            CompiledCode::Python(_, reason) => Some(reason),
            CompiledCode::Tree(_) | CompiledCode::Native(_) => None,
        }
    }

    /// Returns the language of a condition.
    pub fn language(&self, id: ConditionId) -> Language {
        self.way(id).language()
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
        let code = self.start(id.0)?;
        let holds = match code {
            CompiledCode::Tree(node) => node.holds(&Scope::new(&self.request)),
            CompiledCode::Python(index, _) => self.answer(*index).map(operations::operators::truth),
            CompiledCode::Native(ast) => native::holds(ast, &self.request),
        };
        self.tally.count(code.way(), &holds);
        holds
    }

    /// Tells whether the condition holds, as far as that is known without CPython: a condition that fails does not. Counts
    /// nothing.
    pub fn foresee(&self, id: ConditionId) -> Option<bool> {
        match self.start(id.0).ok()? {
            CompiledCode::Tree(node) => Some(node.holds(&Scope::new(&self.request)).unwrap_or(false)),
            CompiledCode::Python(..) => None,
            CompiledCode::Native(ast) => Some(native::holds(ast, &self.request).unwrap_or(false)),
        }
    }

    /// Evaluates the expression for this request.
    pub(super) fn value(&self, id: ExpressionId) -> Result<Value, ConditionError> {
        let code = self.start(id.0)?;
        let value = match code {
            CompiledCode::Tree(node) => node.value(&Scope::new(&self.request)).map(Cow::into_owned),
            CompiledCode::Python(index, _) => self.answer(*index).cloned(),
            CompiledCode::Native(ast) => native::value(ast, &self.request),
        };
        self.tally.count(code.way(), &value);
        value
    }

    fn start(&self, index: usize) -> Result<&CompiledCode, ConditionError> {
        budget::start(self.request.payload_size());
        let missing = || ConditionError::Failed("no such condition".to_owned());
        self.request.program().conditions.get(index).map(|condition| &condition.code).ok_or_else(missing)
    }

    fn answer(&self, index: usize) -> Result<&Value, ConditionError> {
        match self.answers.as_ref().and_then(|answers| answers.get(index)) {
            Some(answer) => answer.as_ref().map_err(Clone::clone),
            None => Err(ConditionError::Failed("this expression needs Python, which was not asked".to_owned())),
        }
    }
}

impl Drop for Evaluation {
    fn drop(&mut self) {
        if let Some(counters) = self.request.program().counters.get() {
            self.tally.add_to(counters);
        }
    }
}

impl CompiledCode {
    fn way(&self) -> Way {
        match self {
            Self::Tree(_) => Way::Compiled,
            Self::Python(..) => Way::Python,
            Self::Native(_) => Way::Rhai,
        }
    }
}

impl Way {
    /// Returns about the time that one evaluation takes.
    pub fn cost(self) -> &'static str {
        match self {
            Self::Compiled => "microseconds",
            Self::Python => "about 0.2 ms",
            Self::Rhai => "tens of microseconds",
        }
    }

    /// Returns the language of the expressions that go this way.
    pub fn language(self) -> Language {
        match self {
            Self::Compiled | Self::Python => Language::Python,
            Self::Rhai => Language::Rhai,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Compiled => "compiled",
            Self::Python => "Python",
            Self::Rhai => "Rhai",
        })
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

#[cfg(test)]
mod tests;
