//! The parts of a condition, whose values show why it holds or does not, as a failing assertion shows them.

use ruff_python_ast::{Expr, UnaryOp};

use super::error::Result;
use super::python::Parsed;
use super::value::Value;
use super::{ConditionId, ConditionsBuilder, Evaluation, Language, python};

/// Most parts of one condition.
const MOST: usize = 16;

impl Evaluation {
    /// Evaluates the parts of a condition that are compiled: the operands of its `and`, `or` and comparisons, and what its
    /// methods are called on. Each is compiled for this, so that conditions bear no trace of it.
    pub fn parts(&self, id: ConditionId) -> Vec<(String, Result<Value>)> {
        let program = self.request.program();
        let Some(condition) = program.conditions.get(id.0) else { return Vec::new() };
        if super::language(&condition.source) == Language::Rhai {
            return Vec::new();
        }
        let Ok(parsed) = python::parse(&condition.source) else { return Vec::new() };
        let mut texts = Vec::new();
        operands(&parsed.tree, &parsed, &mut texts);
        let mut builder = ConditionsBuilder::with_names(&program.sources).unwrap_or_default();
        let mut expressions = Vec::new();
        for text in texts {
            if expressions.len() < MOST
                && expressions.iter().all(|(known, _)| known != text)
                && let Ok(expression) = builder.add_expression(text)
            {
                expressions.push((text.to_owned(), expression));
            }
        }
        let conditions = builder.build();
        let evaluation = conditions.evaluation(self.request.request(), None);
        let is_compiled = |id| conditions.way(id) == super::Way::Compiled;
        let compiled = expressions.into_iter().filter(|(_, expression)| is_compiled(ConditionId(expression.0)));
        compiled.map(|(text, expression)| (text, evaluation.value(expression))).collect()
    }
}

/// Lists the texts of the parts of an expression.
fn operands<'s>(expression: &Expr, parsed: &Parsed<'s>, texts: &mut Vec<&'s str>) {
    match expression {
        Expr::BoolOp(operation) => {
            for operand in &operation.values {
                add(operand, parsed, texts);
                operands(operand, parsed, texts);
            }
        }
        Expr::UnaryOp(operation) if operation.op == UnaryOp::Not => {
            add(&operation.operand, parsed, texts);
            operands(&operation.operand, parsed, texts);
        }
        Expr::Compare(comparison) => {
            add(&comparison.left, parsed, texts);
            comparison.comparators.iter().for_each(|operand| add(operand, parsed, texts));
        }
        Expr::Call(call) => {
            if let Expr::Attribute(method) = &*call.func {
                add(&method.value, parsed, texts);
            }
        }
        _ => {}
    }
}

/// Adds a part whose value its text does not show.
fn add<'s>(part: &Expr, parsed: &Parsed<'s>, texts: &mut Vec<&'s str>) {
    if !is_literal(part) {
        texts.push(parsed.text(part));
    }
}

fn is_literal(part: &Expr) -> bool {
    match part {
        Expr::Tuple(tuple) => tuple.elts.iter().all(is_literal),
        Expr::List(list) => list.elts.iter().all(is_literal),
        Expr::Set(set) => set.elts.iter().all(is_literal),
        Expr::UnaryOp(operation) => is_literal(&operation.operand),
        part => part.is_literal_expr(),
    }
}
