//! What is known of an expression before a request comes: the way in which it is evaluated, and whether its truth depends on
//! the request at all.

use std::sync::Arc;

use super::error::ConditionProblem;
use super::question::ResultKind;
use super::{CompiledCode, ConditionId, ConditionsBuilder, Language, Way, language, names, python};
use crate::message::{Headers, Request, Source};

/// An expression that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedExpression {
    /// Way in which it is evaluated.
    pub way: Way,
    /// The part that keeps it from being compiled, where CPython evaluates it, and what could be written instead.
    pub reason: Option<ConditionProblem>,
    /// Its truth, where that is the same for every request.
    pub constant: Option<bool>,
}

impl ConditionsBuilder {
    /// Compiles an expression, and tells what is known of it.
    ///
    /// # Errors
    /// Fails when it is refused.
    pub fn check(&mut self, source: &str, wants: ResultKind) -> Result<CheckedExpression, ConditionProblem> {
        let index = self.add_wanted(source, wants)?;
        let code = &self.conditions[index].code;
        let (way, reason, constant) = match code {
            CompiledCode::Tree(node) => (code.way(), None, node.constant_truth()),
            CompiledCode::Python(_, reason) => (code.way(), Some(reason.clone()), None),
            CompiledCode::Native(_) => (code.way(), None, None),
        };
        let constant = constant.or_else(|| self.truth_without_request(source, way));
        Ok(CheckedExpression { way, reason, constant })
    }

    /// Evaluates a compiled expression that does not look at the request.
    fn truth_without_request(&self, source: &str, way: Way) -> Option<bool> {
        let looks_at_request = |source| {
            let parsed = python::parse(source).ok()?;
            Some(
                names::looks_at_request(&parsed) || self.sources.iter().any(|(name, _)| names::has_name(&parsed, name)),
            )
        };
        if way != Way::Compiled || language(source) == Language::Rhai || looks_at_request(source)? {
            return None;
        }
        let mut alone = Self::new();
        let ConditionId(id) = alone.add(source).ok()?;
        let source = Source { topic: "".into(), partition: 0, offset: 0 };
        let headers = Headers::default();
        let request = Arc::new(Request { source, timestamp: None, key: None, payload: None, headers, parked: None });
        alone.build().evaluation(&request, None).holds(ConditionId(id)).ok()
    }
}
