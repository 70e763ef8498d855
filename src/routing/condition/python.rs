//! The parser: turns a person's text into Python's syntax tree.

use ruff_python_ast::Expr;
use ruff_python_parser::parse_expression;
use ruff_text_size::Ranged;

use super::error::ConditionProblem;

/// A syntax tree, and its text.
pub(super) struct Parsed<'a> {
    pub(super) tree: Expr,
    source: &'a str,
    /// Bytes that were put before the text to parse it.
    added: usize,
}

/// Parses one expression. An expression of several lines, as in YAML's block texts, needs no parentheses around it,
/// unlike in Python.
pub(super) fn parse(source: &str) -> Result<Parsed<'_>, ConditionProblem> {
    if source.trim().is_empty() {
        return Err(ConditionProblem::at(source, 0, "the condition is empty", Some("leave the key out instead")));
    }
    let is_one_line = !source.trim_end().contains('\n') && !source.starts_with(char::is_whitespace);
    let (result, added) = if is_one_line {
        (parse_expression(source.trim_end()), 0)
    } else {
        (parse_expression(&format!("({source}\n)")), 1)
    };
    let parsed = result.map_err(|error| {
        let offset = error.location.start().to_usize().saturating_sub(added);
        ConditionProblem::at(source, offset, format!("not a Python expression: {}", error.error), None)
    })?;
    if let Some(error) = parsed.unsupported_syntax_errors().first() {
        let offset = error.range.start().to_usize().saturating_sub(added);
        return Err(ConditionProblem::at(source, offset, format!("not a Python expression: {error}"), None));
    }
    let tree = parsed.into_expr();
    if added > 0 && tree.start().to_usize() == 0 {
        // The added parentheses became part of the expression: `1) and (2`, or a tuple.
        return Err(ConditionProblem::at(source, 0, "not one Python expression", None));
    }
    Ok(Parsed { tree, source, added })
}

impl<'a> Parsed<'a> {
    /// Tells whether a text holds half of a character, in whose place the parser puts U+FFFD.
    pub(super) fn holds_half_a_character(&self, literal: &impl Ranged, text: &str) -> bool {
        if !text.contains(char::REPLACEMENT_CHARACTER) {
            return false;
        }
        let written = self.text(literal);
        let meant = ["\u{fffd}", "\\ufffd", "\\U0000fffd", "\\N{"];
        !meant.iter().any(|meant| written.contains(meant) || written.contains(&meant.replace("fffd", "FFFD")))
    }

    /// Returns the text of a part.
    pub(super) fn text(&self, part: &impl Ranged) -> &'a str {
        let [start, end] = [part.start(), part.end()].map(|at| at.to_usize().saturating_sub(self.added));
        self.source.get(start..end).unwrap_or_default()
    }

    /// Makes a problem with this part of the text.
    pub(super) fn problem(
        &self,
        node: &impl Ranged,
        message: impl Into<String>,
        hint: Option<&str>,
    ) -> ConditionProblem {
        ConditionProblem::at(self.source, node.start().to_usize().saturating_sub(self.added), message, hint)
    }
}

/// Tells whether an expression is a literal, or made of such.
pub(super) fn is_literal(part: &Expr) -> bool {
    match part {
        Expr::Tuple(tuple) => tuple.elts.iter().all(is_literal),
        Expr::List(list) => list.elts.iter().all(is_literal),
        Expr::Set(set) => set.elts.iter().all(is_literal),
        Expr::UnaryOp(operation) => is_literal(&operation.operand),
        part => part.is_literal_expr(),
    }
}
