//! The check of an expression before a request comes: the way in which it is evaluated, and whether its truth depends
//! on the request at all.

use std::sync::Arc;

use super::error::ConditionProblem;
use super::question::ResultKind;
use super::{CompiledCode, ConditionsBuilder, Language, Way, language, names, python};
use crate::message::{Headers, Request, Source};

/// An expression that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedExpression {
    /// Way in which it is evaluated.
    pub way: Way,
    /// The part that keeps it from being compiled, where CPython evaluates it, and what could be written instead.
    pub reason: Option<ConditionProblem>,
    /// Truth of the expression, where that is the same for every request.
    pub constant: Option<ConstantTruth>,
}

/// The truth of an expression that does not depend on the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConstantTruth {
    /// Expression is true for every request.
    True,
    /// Expression is true for no request.
    False,
    /// Expression is the one or the other, and only CPython or Rhai knows which.
    Unknown,
}

impl ConditionsBuilder {
    /// Compiles an expression, and tells what is known of it.
    ///
    /// # Errors
    /// Fails when it is refused.
    pub fn check(&mut self, source: &str, wants: ResultKind) -> Result<CheckedExpression, ConditionProblem> {
        let index = self.add_wanted(source, wants)?;
        let code = &self.conditions[index].code;
        let (way, reason, known) = match code {
            CompiledCode::Tree(node) => (code.way(), None, node.constant_truth()),
            CompiledCode::Python(_, reason) => (code.way(), Some(reason.clone()), None),
            CompiledCode::Native(_) => (code.way(), None, None),
        };
        let constant = match known {
            Some(truth) => Some(truth.into()),
            None if self.looks_at_request(source) => None,
            None if way == Way::Compiled => truth_without_request(source).map(ConstantTruth::from),
            None => Some(ConstantTruth::Unknown),
        };
        Ok(CheckedExpression { way, reason, constant })
    }

    /// Tells whether an expression uses the request, or a name that may.
    fn looks_at_request(&self, source: &str) -> bool {
        if language(source) == Language::Rhai {
            return source.contains("request");
        }
        python::parse(source).is_ok_and(|parsed| {
            names::looks_at_request(&parsed) || self.sources.iter().any(|(name, _)| names::has_name(&parsed, name))
        })
    }
}

/// Evaluates a compiled expression that does not look at the request.
fn truth_without_request(source: &str) -> Option<bool> {
    let mut alone = ConditionsBuilder::new();
    let id = alone.add(source).ok()?;
    let source = Source { topic: "".into(), partition: 0, offset: 0 };
    let headers = Headers::default();
    let request = Arc::new(Request { source, timestamp: None, key: None, payload: None, headers, parked: None });
    alone.build().evaluation(&request, None).holds(id).ok()
}

impl From<bool> for ConstantTruth {
    fn from(truth: bool) -> Self {
        if truth { Self::True } else { Self::False }
    }
}
