//! The lowering of simple conditions to the direct evaluator. The conditions have been lowered to Rhai before, so their
//! errors are reported already.

use ruff_python_ast::{CmpOp, Expr, ExprCall, ExprCompare, UnaryOp};

use super::request::{is_request, mapping};
use super::{Lowering, Tables};
use crate::routing::condition::direct::{DirectTerm, DirectTest, Singleton};
use crate::routing::condition::engine::functions::{BUILTINS, COMPARISONS, METHODS};
use crate::routing::condition::python::Parsed;
use crate::routing::condition::request::property;
use crate::routing::condition::value::Value;

/// Lowers a whole condition, if it is simple enough.
pub(in crate::routing::condition) fn test(parsed: &Parsed<'_>, tables: &mut Tables) -> Option<DirectTest> {
    Lowering::new(parsed, tables).test(&parsed.tree)
}

/// Lowers a whole expression, if it is simple enough.
pub(in crate::routing::condition) fn term(parsed: &Parsed<'_>, tables: &mut Tables) -> Option<DirectTerm> {
    Lowering::new(parsed, tables).term(&parsed.tree)
}

impl Lowering<'_> {
    fn test(&mut self, expression: &Expr) -> Option<DirectTest> {
        match expression {
            Expr::BoolOp(operation) => {
                let tests = operation.values.iter().map(|operand| self.test(operand)).collect::<Option<_>>()?;
                Some(if operation.op.is_and() { DirectTest::All(tests) } else { DirectTest::Any(tests) })
            }
            Expr::UnaryOp(operation) if operation.op == UnaryOp::Not => {
                Some(DirectTest::Not(Box::new(self.test(&operation.operand)?)))
            }
            Expr::Compare(comparison) => self.compare(comparison),
            _ => self.term(expression).map(DirectTest::Truth),
        }
    }

    /// Lowers a comparison of two values; chains of comparisons are left to the engine.
    fn compare(&mut self, comparison: &ExprCompare) -> Option<DirectTest> {
        let ([operator], [right]) = (&*comparison.ops, &*comparison.comparators) else { return None };
        let left = &*comparison.left;
        let test = match operator {
            CmpOp::Is | CmpOp::IsNot => {
                let (constant, other) = singleton_of(right).map(|constant| (constant, left)).or_else(|| {
                    let constant = singleton_of(left)?;
                    Some((constant, right))
                })?;
                DirectTest::Is(self.term(other)?, constant)
            }
            CmpOp::In | CmpOp::NotIn if mapping(right).is_some() => DirectTest::Has(mapping(right)?, self.name(left)?),
            CmpOp::In | CmpOp::NotIn => DirectTest::Compare(
                *COMPARISONS.iter().find(|it| it.helper == "py_in")?,
                self.term(left)?,
                self.term(right)?,
            ),
            _ => {
                let helper = super::operators::helper(*operator)?;
                let comparison = COMPARISONS.iter().find(|comparison| comparison.helper == helper)?;
                DirectTest::Compare(*comparison, self.term(left)?, self.term(right)?)
            }
        };
        let is_negated = matches!(operator, CmpOp::IsNot | CmpOp::NotIn);
        Some(if is_negated { DirectTest::Not(Box::new(test)) } else { test })
    }

    fn term(&mut self, expression: &Expr) -> Option<DirectTerm> {
        if let Some(constant) = self.constant(expression).ok()? {
            return Some(DirectTerm::Constant(constant));
        }
        if let Some(path) = self.path(expression).ok()? {
            return Some(DirectTerm::Field(path));
        }
        match expression {
            Expr::Subscript(subscript) => {
                Some(DirectTerm::Named(mapping(&subscript.value)?, self.name(&subscript.slice)?, None))
            }
            Expr::Attribute(attribute) if is_request(&attribute.value) => {
                property(attribute.attr.as_str()).map(DirectTerm::Property)
            }
            Expr::Call(call) if call.arguments.keywords.is_empty() => self.called(call),
            _ => None,
        }
    }

    fn called(&mut self, call: &ExprCall) -> Option<DirectTerm> {
        let arguments = &*call.arguments.args;
        match (&*call.func, arguments) {
            (Expr::Name(name), [argument]) => {
                let function = BUILTINS.iter().find(|builtin| builtin.name == name.id.as_str())?;
                Some(DirectTerm::Function(function.call, Box::new(self.term(argument)?)))
            }
            (Expr::Attribute(method), _) if is_request(&method.value) => None,
            (Expr::Attribute(method), _) => match mapping(&method.value) {
                Some(mapping) => {
                    let default = match arguments {
                        [_] => Value::None,
                        [_, default] => self.constant(default).ok()??,
                        _ => return None,
                    };
                    Some(DirectTerm::Named(mapping, self.name(arguments.first()?)?, Some(default)))
                }
                None => {
                    let name = method.attr.as_str();
                    let known = METHODS.iter().find(|method| method.name == name)?;
                    let receiver = self.term(&method.value)?;
                    let arguments = self.constants(arguments).ok()??;
                    Some(DirectTerm::Method(known.call, Box::new(receiver), arguments))
                }
            },
            _ => None,
        }
    }

    fn name(&mut self, expression: &Expr) -> Option<Box<str>> {
        match self.constant(expression).ok()?? {
            Value::Str(name) => Some(name.as_str().into()),
            _ => None,
        }
    }
}

fn singleton_of(expression: &Expr) -> Option<Singleton> {
    match expression {
        Expr::NoneLiteral(_) => Some(Singleton::None),
        Expr::BooleanLiteral(literal) => Some(Singleton::Bool(literal.value)),
        _ => None,
    }
}
