//! The lowering of operators: each becomes a call of the helper that has Python's meaning.

use ruff_python_ast::{CmpOp, Expr, ExprBinOp, ExprBoolOp, ExprCompare, ExprUnaryOp, Operator, UnaryOp};

use super::{Lowered, Lowering, RhaiCode};

impl Lowering<'_> {
    /// Lowers `and` and `or` where their value counts, which is one of the operands.
    pub(super) fn bool_operation(&mut self, operation: &ExprBoolOp) -> Lowered {
        let operands: Vec<RhaiCode> =
            operation.values.iter().map(|operand| self.value(operand)).collect::<Lowered<_>>()?;
        let is_and = operation.op.is_and();
        if operands.iter().all(|operand| operand.is_bool) {
            let texts: Vec<String> = operands.into_iter().map(|operand| operand.text).collect();
            return Ok(RhaiCode::bool(format!("({})", texts.join(if is_and { " && " } else { " || " }))));
        }
        if operands.len() > super::MAX_DEPTH {
            return Err(self.problem(operation, "too many operands whose value is used", Some("wrap it in bool()")));
        }
        let mut operands = operands.into_iter().rev();
        let mut rest = operands.next().map(|last| last.text).unwrap_or_default();
        for operand in operands {
            let held = self.temporary();
            let (when_true, when_false) = if is_and { (&rest, &held) } else { (&held, &rest) };
            rest = format!(
                "({{ let {held} = {}; if py_truth({held}) {{ {when_true} }} else {{ {when_false} }} }})",
                operand.text
            );
        }
        Ok(RhaiCode::value(rest))
    }

    pub(super) fn binary_operation(&mut self, operation: &ExprBinOp) -> Lowered {
        let helper = match operation.op {
            Operator::Add => "py_add",
            Operator::Sub => "py_subtract",
            Operator::Mult => "py_multiply",
            Operator::Div => "py_divide",
            Operator::FloorDiv => "py_floor_divide",
            Operator::Mod if matches!(&*operation.left, Expr::StringLiteral(_)) => {
                let hint = "join text with +, and str() for numbers";
                return Err(self.problem(operation, "formatting text with % is not supported", Some(hint)));
            }
            Operator::Mod => "py_remainder",
            Operator::Pow => "py_power",
            Operator::BitAnd => return Err(self.no_bits(operation, "&", "write `and`")),
            Operator::BitOr => return Err(self.no_bits(operation, "|", "write `or`")),
            Operator::BitXor => return Err(self.no_bits(operation, "^", "write `!=`, or `**` for a power")),
            Operator::LShift | Operator::RShift | Operator::MatMult => {
                return Err(self.no_bits(operation, operation.op.as_str(), "use + - * / // % and **"));
            }
        };
        let (left, right) = (self.value(&operation.left)?.text, self.value(&operation.right)?.text);
        Ok(RhaiCode::value(format!("{helper}({left}, {right})")))
    }

    fn no_bits(&self, operation: &ExprBinOp, sign: &str, hint: &str) -> super::ConditionProblem {
        self.problem(operation, format!("the operator `{sign}` is not supported"), Some(hint))
    }

    pub(super) fn unary_operation(&mut self, expression: &Expr, operation: &ExprUnaryOp) -> Lowered {
        match operation.op {
            UnaryOp::Not => self.truth(expression).map(RhaiCode::bool),
            UnaryOp::USub => Ok(RhaiCode::value(format!("py_negate({})", self.value(&operation.operand)?.text))),
            UnaryOp::UAdd => Ok(RhaiCode::value(format!("py_plus({})", self.value(&operation.operand)?.text))),
            UnaryOp::Invert => Err(self.problem(operation, "the operator `~` is not supported", Some("write `not`"))),
        }
    }

    /// Lowers a comparison, chained or not: each operand is evaluated once, and none after the first link that does not
    /// hold.
    pub(super) fn comparison(&mut self, comparison: &ExprCompare) -> Lowered {
        if let ([operator @ (CmpOp::In | CmpOp::NotIn)], [container]) = (&*comparison.ops, &*comparison.comparators)
            && let Some(test) = self.in_mapping(&comparison.left, container)?
        {
            return Ok(RhaiCode::bool(if *operator == CmpOp::In { test } else { format!("(!{test})") }));
        }
        let mut text = String::new();
        let mut closing = String::new();
        let mut left_expression = &*comparison.left;
        let mut left = self.operand(left_expression)?;
        let last = comparison.ops.len().saturating_sub(1);
        for (at, (operator, right_expression)) in comparison.ops.iter().zip(&comparison.comparators).enumerate() {
            let right = self.operand(right_expression)?;
            // The last link needs no temporary: no other link reads its right operand.
            if at == last {
                let test = self.link(comparison, *operator, (left_expression, &left), (right_expression, &right))?;
                text.push_str(&test);
                break;
            }
            // The first left operand, and each right one, is held in a temporary, since two links read it.
            if at == 0 {
                let held = self.temporary();
                text.push_str(&format!("({{ let {held} = {left}; "));
                left = held;
            }
            let held = self.temporary();
            let test = self.link(comparison, *operator, (left_expression, &left), (right_expression, &held))?;
            text.push_str(&format!("{}let {held} = {right}; if {test} {{ ", if at == 0 { "" } else { "({ " }));
            closing.push_str(" } else { false } })");
            (left, left_expression) = (held, right_expression);
        }
        if comparison.ops.len() > super::MAX_DEPTH / 2 {
            return Err(self.problem(comparison, "too many links in one comparison", Some("join them with `and`")));
        }
        Ok(RhaiCode::bool(text + closing.as_str()))
    }

    fn operand(&mut self, expression: &Expr) -> Lowered<String> {
        Ok(self.value(expression)?.text)
    }

    fn link(
        &self,
        comparison: &ExprCompare,
        operator: CmpOp,
        (left_expression, left): (&Expr, &str),
        (right_expression, right): (&Expr, &str),
    ) -> Lowered<String> {
        match helper(operator) {
            Some(helper) if operator == CmpOp::NotIn => Ok(format!("(!{helper}({left}, {right}))")),
            Some(helper) => Ok(format!("{helper}({left}, {right})")),
            None => {
                let test = match (left_expression, right_expression) {
                    (_, Expr::NoneLiteral(_)) => format!("py_is_none({left})"),
                    (Expr::NoneLiteral(_), _) => format!("py_is_none({right})"),
                    (_, Expr::BooleanLiteral(literal)) => format!("py_is({left}, {})", literal.value),
                    (Expr::BooleanLiteral(literal), _) => format!("py_is({right}, {})", literal.value),
                    _ => {
                        let message = "`is` is only supported with None, True and False";
                        return Err(self.problem(comparison, message, Some("write `==`")));
                    }
                };
                Ok(if operator == CmpOp::Is { test } else { format!("(!{test})") })
            }
        }
    }
}

/// Returns the helper that compares two values; `is` has none.
pub(super) fn helper(operator: CmpOp) -> Option<&'static str> {
    match operator {
        CmpOp::Eq => Some("py_equal"),
        CmpOp::NotEq => Some("py_unequal"),
        CmpOp::Lt => Some("py_less"),
        CmpOp::LtE => Some("py_at_most"),
        CmpOp::Gt => Some("py_greater"),
        CmpOp::GtE => Some("py_at_least"),
        CmpOp::In | CmpOp::NotIn => Some("py_in"),
        CmpOp::Is | CmpOp::IsNot => None,
    }
}
