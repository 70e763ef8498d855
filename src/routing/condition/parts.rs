//! The parts of a condition, whose values show why it holds or does not, as a failing assertion shows them.

use std::sync::Arc;

use ruff_python_ast::{Expr, UnaryOp};

use super::error::Result;
use super::python::{Parsed, is_literal};
use super::question::{Answers, Question, ResultKind};
use super::value::Value;
use super::{ConditionId, Conditions, ConditionsBuilder, ExpressionId, Language, Way, python};
use crate::message::Request;

/// Most parts of one condition.
const MOST: usize = 16;

/// The parts of one condition: the operands of its `and`, `or` and comparisons, what its methods are called on, and the
/// arguments of its calls. They are compiled apart from the condition, which bears no trace of them.
#[derive(Debug)]
pub struct Parts {
    conditions: Conditions,
    texts: Vec<(String, ExpressionId)>,
}

/// The use of a part in its condition, which says what is wanted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartUse {
    /// Truth of the part counts alone: CPython may have no other value that can be shown, such as that of a match.
    Truth,
    /// The value counts.
    Value,
    /// The value is shown if no CPython is needed for it: it may be anything, such as a module.
    Detail,
}

impl Conditions {
    /// Compiles the parts of a condition; there are none of Rhai.
    pub fn parts(&self, id: ConditionId) -> Parts {
        let mut builder = ConditionsBuilder::with_names(&self.0.sources).unwrap_or_default();
        let mut known: Vec<(String, ExpressionId)> = Vec::new();
        if self.language(id) == Language::Python
            && let Ok(parsed) = python::parse(self.source(id))
        {
            let mut texts = Vec::new();
            operands(&parsed.tree, &parsed, &mut texts);
            for (text, part_use) in texts {
                if known.len() < MOST
                    && known.iter().all(|(known, _)| known != text)
                    && let Some(expression) = builder.part(text, part_use)
                {
                    known.push((text.to_owned(), expression));
                }
            }
        }
        Parts { conditions: builder.build(), texts: known }
    }
}

impl ConditionsBuilder {
    /// Compiles a part, unless it cannot be evaluated by itself, or is not worth to be.
    fn part(&mut self, text: &str, part_use: PartUse) -> Option<ExpressionId> {
        let wants = if part_use == PartUse::Truth { ResultKind::Truth } else { ResultKind::Value };
        let index = self.add_wanted(text, wants).ok()?;
        if part_use == PartUse::Detail && self.conditions[index].code.way() == Way::Python {
            self.conditions.pop();
            self.questions.pop();
            return None;
        }
        Some(ExpressionId(index))
    }
}

impl Parts {
    /// Returns the parts that CPython evaluates; none where all are compiled.
    pub fn question(&self) -> Option<&Arc<Question>> {
        self.conditions.question()
    }

    /// Evaluates the parts for a request, with what CPython said to [`Self::question`]. Without that, only what is
    /// compiled is there.
    pub fn values(&self, request: &Arc<Request>, answers: Option<Arc<Answers>>) -> Vec<(String, Result<Value>)> {
        let is_asked = answers.is_some();
        let evaluation = self.conditions.evaluation(request, answers);
        let is_known = |id: &ExpressionId| is_asked || self.conditions.way(ConditionId(id.0)) != Way::Python;
        let known = self.texts.iter().filter(|(_, id)| is_known(id));
        known.map(|(text, id)| (text.clone(), evaluation.value(*id))).collect()
    }
}

/// Lists the texts of the parts of an expression.
fn operands<'s>(expression: &Expr, parsed: &Parsed<'s>, texts: &mut Vec<(&'s str, PartUse)>) {
    match expression {
        Expr::BoolOp(operation) => {
            for operand in &operation.values {
                add(operand, PartUse::Truth, parsed, texts);
                operands(operand, parsed, texts);
            }
        }
        Expr::UnaryOp(operation) if operation.op == UnaryOp::Not => {
            add(&operation.operand, PartUse::Truth, parsed, texts);
            operands(&operation.operand, parsed, texts);
        }
        Expr::Compare(comparison) => {
            add(&comparison.left, PartUse::Value, parsed, texts);
            comparison.comparators.iter().for_each(|operand| add(operand, PartUse::Value, parsed, texts));
        }
        Expr::Call(call) => {
            if let Expr::Attribute(method) = &*call.func {
                add(&method.value, PartUse::Detail, parsed, texts);
            }
            call.arguments.args.iter().for_each(|argument| add(argument, PartUse::Detail, parsed, texts));
        }
        _ => {}
    }
}

/// Adds a part whose value its text does not show.
fn add<'s>(part: &Expr, part_use: PartUse, parsed: &Parsed<'s>, texts: &mut Vec<(&'s str, PartUse)>) {
    if !is_literal(part) {
        texts.push((parsed.text(part), part_use));
    }
}
