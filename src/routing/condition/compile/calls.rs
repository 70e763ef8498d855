//! The compilation of calls: functions and methods, found by name in the tables of [`functions`].
//!
//! [`functions`]: crate::routing::condition::operations::functions

use ruff_python_ast::{Expr, ExprCall};
use ruff_text_size::Ranged;

use super::{Compiled, Compiler, arguments};
use crate::routing::condition::operations::functions::{
    DEFAULTED, FUNCTIONS, Function, Helper, IS_INSTANCE, ITERATORS, METHODS,
};
use crate::routing::condition::python::is_literal;
use crate::routing::condition::tree::{Arguments, Node};
use crate::routing::condition::value::Value;

/// Types that `isinstance` knows.
const TYPES: [&str; 8] = ["str", "int", "float", "bool", "list", "dict", "tuple", "set"];

impl Compiler<'_> {
    pub(super) fn call(&mut self, call: &ExprCall) -> Compiled {
        let Expr::Name(name) = &*call.func else { return self.method(call) };
        let name = name.id.as_str();
        let operands = &*call.arguments.args;
        let is_variable = self.scopes.iter().flatten().any(|variable| variable == name);
        if is_variable || self.tables.names.iter().any(|known| known.name == name) {
            return Err(self.problem(call, format!("a call of the variable `{name}` is not compiled"), None));
        }
        match (name, operands, &*call.arguments.keywords) {
            ("any" | "all", [Expr::Generator(generator)], []) => {
                let element = |compiler: &mut Self| compiler.node(&generator.elt);
                let comprehension = self.comprehension(&generator.generators, false, element)?;
                Ok(Node::Quantified(name == "any", Box::new(comprehension)))
            }
            ("isinstance", [value, types], []) => self.is_instance(value, types),
            // Python evaluates the default before it begins with a generator, which shows where both fail.
            ("min" | "max", [iterable], [default])
                if default.arg.as_ref().is_some_and(|name| name.as_str() == "default")
                    && (!iterable.is_generator_expr() || is_literal(&default.value)) =>
            {
                let operands = vec![self.unordered(iterable)?, self.node(&default.value)?];
                find(DEFAULTED, name)
                    .map_or_else(|| Err(self.unsupported(call, name)), |of| Ok(called(of.call, operands)))
            }
            ("set" | "sorted" | "min" | "max", [iterable], []) => {
                let iterable = self.unordered(iterable)?;
                self.called(name, call, vec![iterable])
            }
            _ => {
                let Some(function) = find(FUNCTIONS, name) else { return Err(self.unsupported(call, name)) };
                let operands = self.operands(call, function)?;
                Ok(called(function.call, operands))
            }
        }
    }

    /// Compiles a function whose result is only looked through; nothing for any other.
    pub(super) fn iterator(&mut self, call: &ExprCall) -> Compiled<Option<Node>> {
        let Expr::Name(name) = &*call.func else { return Ok(None) };
        let is_variable = self.scopes.iter().flatten().any(|variable| variable == name.id.as_str());
        let Some(function) = find(ITERATORS, name.id.as_str()).filter(|_| !is_variable) else { return Ok(None) };
        Ok(Some(called(function.call, self.operands(call, function)?)))
    }

    fn method(&mut self, call: &ExprCall) -> Compiled {
        let Expr::Attribute(attribute) = &*call.func else {
            return Err(self.problem(&*call.func, "only calls of functions and methods are compiled", None));
        };
        let name = attribute.attr.as_str();
        let Some(method) = find(METHODS, name) else {
            return Err(self.problem(&attribute.attr, format!("the method `.{name}()` is not compiled"), None));
        };
        let mut operands = vec![self.node(&attribute.value)?];
        operands.extend(self.operands(call, method)?);
        Ok(called(method.call, operands))
    }

    fn operands(&mut self, call: &ExprCall, function: &Function) -> Compiled<Vec<Node>> {
        let (operands, name) = (&*call.arguments.args, function.name);
        if let Some(keyword) = call.arguments.keywords.first() {
            let hint = Some("give the arguments by their position");
            return Err(self.problem(keyword, format!("arguments of `{name}()` by name are not compiled"), hint));
        }
        if !function.arguments.contains(&operands.len()) {
            let message = format!("`{name}()` with {} argument(s) is not compiled", operands.len());
            return Err(self.problem(call, message, None));
        }
        let is_reader = function.is_reader;
        operands.iter().map(|it| if is_reader { self.iterable(it) } else { self.node(it) }).collect()
    }

    /// Compiles what is looked through where the order does not count.
    fn unordered(&mut self, iterable: &Expr) -> Compiled {
        let Expr::Generator(generator) = iterable else { return self.iterable(iterable) };
        self.collected(super::collections::list_of, false, &generator.elt, &generator.generators)
    }

    /// Makes a call of a function of the table.
    pub(super) fn called(&self, name: &str, at: &impl Ranged, operands: Vec<Node>) -> Compiled {
        let function = find(FUNCTIONS, name).ok_or_else(|| self.unsupported(at, name))?;
        Ok(called(function.call, operands))
    }

    /// Compiles `isinstance(x, str)` and `isinstance(x, (int, float))`.
    fn is_instance(&mut self, value: &Expr, types: &Expr) -> Compiled {
        let of = match types {
            Expr::Tuple(tuple) => &*tuple.elts,
            single => std::slice::from_ref(single),
        };
        let name = |of: &Expr| match of {
            Expr::Name(name) if TYPES.contains(&name.id.as_str()) => Some(Value::text(name.id.as_str())),
            _ => None,
        };
        let Some(names) = of.iter().map(name).collect::<Option<_>>() else {
            let hint = format!("use one of {}, or a tuple of them", TYPES.join(", "));
            return Err(self.problem(types, "isinstance() of these types is not compiled", Some(&hint)));
        };
        Ok(Node::Call(IS_INSTANCE, Box::new(self.node(value)?), Arguments::Constant(names)))
    }

    fn unsupported(&self, at: &impl Ranged, name: &str) -> super::ConditionProblem {
        self.problem(at, format!("the function `{name}()` is not compiled here"), None)
    }
}

/// Makes a call, of one operand at least.
fn called(call: Helper, mut operands: Vec<Node>) -> Node {
    let rest = operands.split_off(1.min(operands.len()));
    let first = operands.pop().unwrap_or(Node::Constant(Value::None));
    Node::Call(call, Box::new(first), arguments(rest))
}

fn find(functions: &'static [Function], name: &str) -> Option<&'static Function> {
    functions.iter().find(|function| function.name == name)
}
