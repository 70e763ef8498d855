//! The compilation of operators and comparisons.

use std::cmp::Ordering;

use ruff_python_ast::{CmpOp, Expr, ExprBinOp, ExprCompare, Operator};

use super::request::mapping;
use super::{Compiled, Compiler};
use crate::routing::condition::error::ConditionError;
use crate::routing::condition::operations::functions::{Binary, Comparison};
use crate::routing::condition::operations::{collections, operators};
use crate::routing::condition::tree::Node;
use crate::routing::condition::value::Value;

impl Compiler<'_> {
    pub(super) fn binary(&mut self, operation: &ExprBinOp) -> Compiled {
        let call: Binary = match operation.op {
            Operator::Add => operators::add,
            Operator::Sub => operators::subtract,
            Operator::Mult => operators::multiply,
            Operator::Div => operators::divide,
            Operator::FloorDiv => operators::floor_divide,
            Operator::Mod if matches!(&*operation.left, Expr::StringLiteral(_)) => {
                let hint = Some("write an f-string, or join text with + and str()");
                return Err(self.problem(operation, "formatting text with % is not compiled", hint));
            }
            Operator::Mod => operators::remainder,
            Operator::Pow => operators::power,
            Operator::BitAnd => operators::and,
            Operator::BitOr => operators::or,
            Operator::BitXor => operators::exclusive_or,
            Operator::LShift | Operator::RShift | Operator::MatMult => {
                let message = format!("the operator `{}` is not compiled", operation.op.as_str());
                return Err(self.problem(operation, message, None));
            }
        };
        let operands = [self.node(&operation.left)?, self.node(&operation.right)?];
        let [Node::Constant(left), Node::Constant(right)] = &operands else {
            return Ok(Node::Binary(call, Box::new(operands)));
        };
        let are_numbers = [left, right].iter().all(|value| matches!(value, Value::Int(_) | Value::Float(_)));
        match call(left, right) {
            Ok(value) if are_numbers => Ok(Node::Constant(value)),
            // Python's numbers grow.
            Err(error) if error == ConditionError::overflow() => {
                Err(self.problem(operation, "this number is beyond 64 bits", Some("write it as a float")))
            }
            _ => Ok(Node::Binary(call, Box::new(operands))),
        }
    }

    pub(super) fn comparison(&mut self, comparison: &ExprCompare) -> Compiled {
        let (operators, operands) = (&*comparison.ops, &*comparison.comparators);
        if let ([operator @ (CmpOp::In | CmpOp::NotIn)], [container]) = (operators, operands)
            && let Some(mapping) = mapping(container)
        {
            let has = Node::Has(mapping, Box::new(self.node(&comparison.left)?));
            return Ok(if *operator == CmpOp::In { has } else { Node::Not(Box::new(has)) });
        }
        let mut links = Vec::with_capacity(operators.len());
        let mut left = &*comparison.left;
        let first = self.node(left)?;
        for (operator, right) in operators.iter().zip(operands) {
            let is_singleton = |operand: &Expr| matches!(operand, Expr::NoneLiteral(_) | Expr::BooleanLiteral(_));
            if matches!(operator, CmpOp::Is | CmpOp::IsNot) && !is_singleton(left) && !is_singleton(right) {
                let message = "`is` is only compiled with None, True and False";
                return Err(self.problem(right, message, Some("write `==`")));
            }
            let is_searched = matches!(operator, CmpOp::In | CmpOp::NotIn);
            let is_call = matches!(right, Expr::Call(_));
            let node = if is_searched && is_call { self.iterable(right)? } else { self.node(right)? };
            links.push((test(*operator), node));
            left = right;
        }
        Ok(Node::Compare(Box::new(first), links.into()))
    }
}

fn test(operator: CmpOp) -> Comparison {
    match operator {
        CmpOp::Eq => operators::equal,
        CmpOp::NotEq => |left, right| operators::equal(left, right).map(|equal| !equal),
        CmpOp::Lt => |left, right| Ok(operators::compare(left, right, "<")? == Some(Ordering::Less)),
        CmpOp::LtE => |left, right| Ok(operators::compare(left, right, "<=")?.is_some_and(Ordering::is_le)),
        CmpOp::Gt => |left, right| Ok(operators::compare(left, right, ">")? == Some(Ordering::Greater)),
        CmpOp::GtE => |left, right| Ok(operators::compare(left, right, ">=")?.is_some_and(Ordering::is_ge)),
        CmpOp::In => |needle, container| collections::contains(container, needle),
        CmpOp::NotIn => |needle, container| collections::contains(container, needle).map(|is_in| !is_in),
        CmpOp::Is => |left, right| Ok(is_same_singleton(left, right)),
        CmpOp::IsNot => |left, right| Ok(!is_same_singleton(left, right)),
    }
}

fn is_same_singleton(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::None, Value::None) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        _ => false,
    }
}
