//! The question that an endpoint has for CPython: the expressions that are not compiled, and what came back for them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::ConditionError;
use super::value::Value;

/// The expressions of one endpoint that CPython evaluates; sent once to each evaluator process.
#[derive(Debug)]
pub struct Question {
    /// Number of the question, unique in this process.
    pub id: u64,
    /// Expressions to evaluate, in the order of the answers.
    pub expressions: Vec<PythonExpression>,
    /// Names that the expressions may use, each with the text of its own expression.
    pub names: Vec<(String, String)>,
}

/// An expression that CPython evaluates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonExpression {
    /// Text of the expression, as it was written.
    pub source: Box<str>,
    /// Kind of result that is wanted.
    pub wants: ResultKind,
}

/// The kind of result that is wanted of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultKind {
    /// The truth of the value, as `bool()` gives it.
    Truth,
    /// The value itself.
    Value,
}

/// Answers of an evaluator, by index of the expression.
pub type Answers = Vec<Result<Value, ConditionError>>;

impl Question {
    /// Makes a question with a number of its own.
    pub fn new(expressions: Vec<PythonExpression>, names: Vec<(String, String)>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), expressions, names }
    }
}
