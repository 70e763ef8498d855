//! The lowering of calls: built-in functions and methods, found by name in the engine's table.

use std::ops::RangeInclusive;

use ruff_python_ast::{Expr, ExprCall};

use super::{ConditionProblem, Lowered, Lowering, RhaiCode};
use crate::routing::condition::engine::functions::{BUILTINS, METHODS};

/// Types that `isinstance` knows.
const TYPES: [&str; 7] = ["str", "int", "float", "bool", "list", "dict", "tuple"];

impl Lowering<'_> {
    pub(super) fn call(&mut self, call: &ExprCall) -> Lowered {
        if let Some(keyword) = call.arguments.keywords.first() {
            let hint = Some("give the arguments by their position");
            return Err(self.problem(keyword, "arguments by name are not supported", hint));
        }
        match &*call.func {
            Expr::Name(name) => self.function(call, name.id.as_str()),
            Expr::Attribute(attribute) => {
                let name = attribute.attr.as_str();
                let Some(method) = METHODS.iter().find(|method| method.name == name) else {
                    let hint = nearest(name).map_or_else(
                        || {
                            let known: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
                            format!("supported are {}", known.join(", "))
                        },
                        |near| format!("use .{near}()"),
                    );
                    return Err(self.problem(
                        &attribute.attr,
                        format!("the method `.{name}()` is not supported"),
                        Some(&hint),
                    ));
                };
                self.check_count(call, name, &method.arguments)?;
                let mut values = vec![self.value(&attribute.value)?.text];
                values.extend(self.arguments(call)?);
                Ok(RhaiCode { text: format!("m_{name}({})", values.join(", ")), is_bool: method.gives_bool })
            }
            other => Err(self.problem(other, "only functions and methods can be called", None)),
        }
    }

    fn function(&mut self, call: &ExprCall, name: &str) -> Lowered {
        if let ("any" | "all", [Expr::Generator(generator)]) = (name, &*call.arguments.args) {
            return self.generator(generator, name == "any");
        }
        if name == "isinstance" {
            return self.is_instance(call);
        }
        let Some(builtin) = BUILTINS.iter().find(|builtin| builtin.name == name) else {
            let known: Vec<&str> = BUILTINS.iter().map(|builtin| builtin.name).collect();
            let hint = format!("supported are {}, isinstance", known.join(", "));
            return Err(self.problem(call, format!("the function `{name}()` is not supported"), Some(&hint)));
        };
        self.check_count(call, name, &builtin.arguments)?;
        let arguments = self.arguments(call)?.join(", ");
        Ok(RhaiCode { text: format!("py_{name}({arguments})"), is_bool: builtin.gives_bool })
    }

    /// Lowers `isinstance(x, str)` and `isinstance(x, (int, float))`.
    fn is_instance(&mut self, call: &ExprCall) -> Lowered {
        self.check_count(call, "isinstance", &(2..=2))?;
        let [value, types] = &*call.arguments.args else { return Err(self.not_types(call)) };
        let types = match types {
            Expr::Tuple(tuple) => &*tuple.elts,
            single => std::slice::from_ref(single),
        };
        let value = self.value(value)?.text;
        let held = self.temporary();
        let mut tests = Vec::with_capacity(types.len());
        for type_name in types {
            match type_name {
                Expr::Name(name) if TYPES.contains(&name.id.as_str()) => {
                    tests.push(format!("py_is_instance({held}, \"{}\")", name.id));
                }
                other => return Err(self.not_types(other)),
            }
        }
        let tests = if tests.is_empty() { "false".to_owned() } else { tests.join(" || ") };
        Ok(RhaiCode::bool(format!("({{ let {held} = {value}; {tests} }})")))
    }

    fn not_types(&self, at: &impl ruff_text_size::Ranged) -> ConditionProblem {
        let hint = format!("use one of {}, or a tuple of them", TYPES.join(", "));
        self.problem(at, "isinstance() needs the name of a type", Some(&hint))
    }

    fn check_count(&self, call: &ExprCall, name: &str, allowed: &RangeInclusive<usize>) -> Lowered<()> {
        let count = call.arguments.args.len();
        if allowed.contains(&count) {
            return Ok(());
        }
        let expected = if allowed.start() == allowed.end() {
            allowed.start().to_string()
        } else {
            format!("{} to {}", allowed.start(), allowed.end())
        };
        Err(self.problem(call, format!("`{name}()` takes {expected} argument(s) here, not {count}"), None))
    }

    fn arguments(&mut self, call: &ExprCall) -> Lowered<Vec<String>> {
        call.arguments.args.iter().map(|argument| Ok(self.value(argument)?.text)).collect()
    }
}

/// Returns the Python method that a person means who writes this name.
fn nearest(name: &str) -> Option<&'static str> {
    Some(match name {
        "startsWith" | "starts_with" | "startwith" => "startswith",
        "endsWith" | "ends_with" | "endwith" => "endswith",
        "toLowerCase" | "to_lower" | "casefold" | "lowercase" => "lower",
        "toUpperCase" | "to_upper" | "uppercase" => "upper",
        "trim" => "strip",
        "indexOf" | "index_of" | "index" => "find",
        "isnumeric" | "isdecimal" => "isdigit",
        _ => return None,
    })
}
