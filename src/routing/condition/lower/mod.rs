//! The lowering of Python's syntax tree to Rhai text, in which every operation is a call of one of the engine's
//! helpers.
//!
//! The text is fully parenthesised and calls Python's operators by name (`py_less(a, b)`), so that none of Rhai's own
//! meaning gets in. An expression that is not understood is refused here, with its place and what to write instead.

mod calls;
pub(super) mod direct;
mod generators;
mod operators;
mod request;

use ruff_python_ast::{Expr, Number, UnaryOp};
use ruff_text_size::Ranged;

use super::engine::collections;
use super::error::ConditionProblem;
use super::path::JsonPath;
use super::python::Parsed;
use super::value::Value;

/// Most levels of an expression; a deeper one is refused.
const MAX_DEPTH: usize = 24;

/// The tables that the conditions of one endpoint share: lowered text refers to their entries by index.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) paths: Vec<JsonPath>,
    pub(super) constants: Vec<Value>,
    pub(super) generators: Vec<GeneratorText>,
}

/// A generator's body in Rhai, and its variables: those bound around it, then `targets` of its own.
#[derive(Debug)]
pub(super) struct GeneratorText {
    pub(super) body: String,
    pub(super) variables: Vec<String>,
    pub(super) targets: usize,
}

/// A piece of lowered Rhai text.
struct RhaiCode {
    text: String,
    /// True if the text always gives a Rhai `bool`.
    is_bool: bool,
}

type Lowered<T = RhaiCode> = Result<T, ConditionProblem>;

/// Lowers a whole condition to Rhai text that gives a `bool`.
pub(super) fn truth(parsed: &Parsed<'_>, tables: &mut Tables) -> Lowered<String> {
    Lowering::new(parsed, tables).truth(&parsed.tree)
}

/// Lowers a whole expression to Rhai text that gives its value.
pub(super) fn value(parsed: &Parsed<'_>, tables: &mut Tables) -> Lowered<String> {
    Ok(Lowering::new(parsed, tables).value(&parsed.tree)?.text)
}

struct Lowering<'a> {
    parsed: &'a Parsed<'a>,
    tables: &'a mut Tables,
    depth: usize,
    /// Number of generators around the expression.
    nested: usize,
    /// Number of temporaries so far, so that each has a name of its own.
    temporaries: usize,
    /// Variables of generators in scope, by their Python names, with their names in Rhai.
    variables: Vec<(String, String)>,
}

impl RhaiCode {
    fn value(text: String) -> Self {
        Self { text, is_bool: false }
    }

    fn bool(text: String) -> Self {
        Self { text, is_bool: true }
    }

    /// Converts the text to one that gives a Rhai `bool`, by Python's idea of what counts as true.
    fn into_truth(self) -> String {
        if self.is_bool { self.text } else { format!("py_truth({})", self.text) }
    }
}

impl<'a> Lowering<'a> {
    fn new(parsed: &'a Parsed<'a>, tables: &'a mut Tables) -> Self {
        Self { parsed, tables, depth: 0, nested: 0, temporaries: 0, variables: Vec::new() }
    }
}

impl Lowering<'_> {
    /// Lowers for where only the truth of the value counts.
    fn truth(&mut self, expression: &Expr) -> Lowered<String> {
        self.deeper(expression, |lowering| match expression {
            Expr::BoolOp(operation) => {
                let operands: Vec<String> =
                    operation.values.iter().map(|operand| lowering.truth(operand)).collect::<Lowered<_>>()?;
                Ok(format!("({})", operands.join(if operation.op.is_and() { " && " } else { " || " })))
            }
            Expr::UnaryOp(operation) if operation.op == UnaryOp::Not => {
                Ok(format!("(!{})", lowering.truth(&operation.operand)?))
            }
            Expr::If(choice) => {
                let (test, body) = (lowering.truth(&choice.test)?, lowering.truth(&choice.body)?);
                Ok(format!("(if {test} {{ {body} }} else {{ {} }})", lowering.truth(&choice.orelse)?))
            }
            _ => lowering.value(expression).map(RhaiCode::into_truth),
        })
    }

    /// Lowers for where the value itself is needed.
    fn value(&mut self, expression: &Expr) -> Lowered {
        self.deeper(expression, |lowering| lowering.value_at_depth(expression))
    }

    fn value_at_depth(&mut self, expression: &Expr) -> Lowered {
        if let Some(constant) = self.constant(expression)? {
            return Ok(self.constant_code(constant));
        }
        if let Some(code) = self.request(expression)? {
            return Ok(code);
        }
        match expression {
            Expr::BoolOp(operation) => self.bool_operation(operation),
            Expr::BinOp(operation) => self.binary_operation(operation),
            Expr::UnaryOp(operation) => self.unary_operation(expression, operation),
            Expr::Compare(comparison) => self.comparison(comparison),
            Expr::If(choice) => {
                let test = self.truth(&choice.test)?;
                let (body, other) = (self.value(&choice.body)?, self.value(&choice.orelse)?);
                let text = format!("(if {test} {{ {} }} else {{ {} }})", body.text, other.text);
                Ok(RhaiCode { text, is_bool: body.is_bool && other.is_bool })
            }
            Expr::Call(call) => self.call(call),
            Expr::Subscript(subscript) => {
                let container = self.value(&subscript.value)?.text;
                if let Expr::Slice(slice) = &*subscript.slice {
                    let mut bound = |bound: &Option<Box<Expr>>| match bound {
                        Some(bound) => self.value(bound).map(|code| code.text),
                        None => Ok("()".to_owned()),
                    };
                    let (low, high, step) = (bound(&slice.lower)?, bound(&slice.upper)?, bound(&slice.step)?);
                    return Ok(RhaiCode::value(format!("py_slice({container}, {low}, {high}, {step})")));
                }
                let key = self.value(&subscript.slice)?.text;
                Ok(RhaiCode::value(format!("py_item({container}, {key})")))
            }
            Expr::Name(name) => match self.variables.iter().rev().find(|(known, _)| *known == name.id.as_str()) {
                Some((_, variable)) => Ok(RhaiCode::value(variable.clone())),
                None => Err(self.unknown_name(expression, name.id.as_str())),
            },
            Expr::List(list) => self.display("py_list", &list.elts),
            Expr::Tuple(tuple) => self.display("py_tuple", &tuple.elts),
            other => Err(self.unsupported(other)),
        }
    }

    /// Lowers a list or a tuple with parts that only the request decides.
    fn display(&mut self, make: &str, elements: &[Expr]) -> Lowered {
        let elements: Vec<String> =
            elements.iter().map(|element| Ok(self.value(element)?.text)).collect::<Lowered<_>>()?;
        Ok(RhaiCode::value(format!("{make}([{}])", elements.join(", "))))
    }

    /// Returns the value of an expression that is the same for every request: a literal, or a collection of literals.
    /// None for any other.
    fn constant(&mut self, expression: &Expr) -> Lowered<Option<Value>> {
        self.deeper(expression, |lowering| lowering.constant_at_depth(expression))
    }

    fn constant_at_depth(&mut self, expression: &Expr) -> Lowered<Option<Value>> {
        Ok(match expression {
            Expr::NoneLiteral(_) => Some(Value::None),
            Expr::BooleanLiteral(literal) => Some(Value::Bool(literal.value)),
            Expr::StringLiteral(literal) if self.parsed.holds_half_a_character(literal) => {
                let message = "half of a character (U+D800 to U+DFFF) cannot be written here";
                return Err(self.problem(expression, message, Some("compare with whole characters")));
            }
            Expr::StringLiteral(literal) => Some(Value::text(literal.value.to_str())),
            Expr::NumberLiteral(literal) => Some(match &literal.value {
                Number::Int(int) => match int.as_i64() {
                    Some(int) => Value::Int(int),
                    None => {
                        return Err(self.problem(
                            expression,
                            "this number is beyond 64 bits",
                            Some("write it as a float"),
                        ));
                    }
                },
                Number::Float(float) => Value::Float(*float),
                Number::Complex { .. } => {
                    return Err(self.problem(expression, "complex numbers are not supported", None));
                }
            }),
            Expr::UnaryOp(operation) if operation.op == UnaryOp::USub => match self.constant(&operation.operand)? {
                Some(Value::Int(int)) => int.checked_neg().map(Value::Int),
                Some(Value::Float(float)) => Some(Value::Float(-float)),
                _ => None,
            },
            Expr::List(list) => self.constants(&list.elts)?.map(|items| Value::List(items.into())),
            Expr::Tuple(tuple) => self.constants(&tuple.elts)?.map(|items| Value::Tuple(items.into())),
            Expr::Set(set) => match self.constants(&set.elts)? {
                Some(items) => Some(self.made_of_constants(expression, collections::set_of(items))?),
                None => return Err(self.not_constant(expression, "a set", "use a list or a tuple")),
            },
            Expr::Dict(dict) => {
                let keys: Option<Vec<&Expr>> = dict.items.iter().map(|item| item.key.as_ref()).collect();
                let Some(keys) = keys else { return Err(self.problem(expression, "`**` is not supported", None)) };
                let mut pairs = Vec::with_capacity(keys.len());
                for (key, item) in keys.into_iter().zip(&dict.items) {
                    match (self.constant(key)?, self.constant(&item.value)?) {
                        (Some(key), Some(value)) => pairs.push((key, value)),
                        _ => {
                            return Err(self.not_constant(
                                expression,
                                "a dictionary",
                                "use comparisons joined by `and` and `or`",
                            ));
                        }
                    }
                }
                Some(self.made_of_constants(expression, collections::dict_of(pairs))?)
            }
            _ => None,
        })
    }

    fn constants(&mut self, elements: &[Expr]) -> Lowered<Option<Vec<Value>>> {
        elements.iter().map(|element| self.constant(element)).collect()
    }

    fn made_of_constants(&self, expression: &Expr, made: super::error::Result<Value>) -> Lowered<Value> {
        made.map_err(|error| self.problem(expression, error.to_string(), None))
    }

    fn not_constant(&self, expression: &Expr, what: &str, hint: &str) -> ConditionProblem {
        self.problem(expression, format!("{what} may hold only literals"), Some(hint))
    }

    /// Writes a constant as a Rhai literal where there is one for it, else refers to the table.
    fn constant_code(&mut self, constant: Value) -> RhaiCode {
        match &constant {
            Value::None => RhaiCode::value("()".to_owned()),
            Value::Bool(bool) => RhaiCode::bool(bool.to_string()),
            Value::Int(int) if *int != i64::MIN => RhaiCode::value(format!("({int})")),
            Value::Str(text) if !text.chars().any(char::is_control) => {
                RhaiCode::value(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
            }
            _ => {
                self.tables.constants.push(constant);
                RhaiCode::value(format!("request.constant({})", self.tables.constants.len() - 1))
            }
        }
    }

    fn temporary(&mut self) -> String {
        self.temporaries += 1;
        format!("t{}", self.temporaries)
    }

    fn deeper<T>(&mut self, at: &impl Ranged, lower: impl FnOnce(&mut Self) -> Lowered<T>) -> Lowered<T> {
        if self.depth >= 2 * MAX_DEPTH {
            return Err(self.problem(at, "the expression is nested too deeply", Some("split it over several routes")));
        }
        self.depth += 1;
        let lowered = lower(self);
        self.depth -= 1;
        lowered
    }

    fn problem(&self, at: &impl Ranged, message: impl Into<String>, hint: Option<&str>) -> ConditionProblem {
        self.parsed.problem(at, message, hint)
    }

    fn unknown_name(&self, at: &Expr, name: &str) -> ConditionProblem {
        let hint = match name {
            "request" => {
                "use one of its parts: request.json(), request.headers['x'], request.args, request.method, request.path, request.key, request.topic, request.partition"
            }
            "true" | "True" => "write True",
            "false" | "False" => "write False",
            "null" | "nil" | "undefined" | "none" => "write None",
            "json" | "headers" | "args" | "method" | "path" | "key" | "topic" | "partition" => {
                "write `request.` before it"
            }
            _ => "only `request` is known; text needs quotes around it",
        };
        self.problem(at, format!("`{name}` is not a value here"), Some(hint))
    }

    fn unsupported(&self, expression: &Expr) -> ConditionProblem {
        let (what, hint) = match expression {
            Expr::FString(_) | Expr::TString(_) => {
                ("f-strings are not supported", "join text with +, and str() for numbers")
            }
            Expr::Lambda(_) => ("lambda is not supported", "write the expression itself"),
            Expr::ListComp(_) | Expr::SetComp(_) | Expr::DictComp(_) => {
                ("comprehensions are not supported", "use any(… for … in …) or all(… for … in …)")
            }
            Expr::Generator(_) => ("a generator is only supported in any() and all()", "use any(… for … in …)"),
            Expr::Named(_) => ("`:=` is not supported", "write the expression out, or use == to compare"),
            Expr::Await(_) | Expr::Yield(_) | Expr::YieldFrom(_) => {
                ("a condition cannot wait or yield", "leave it out")
            }
            Expr::BytesLiteral(_) => ("bytes are not supported", "leave out the b before the quotes"),
            Expr::Starred(_) => ("`*` before a value is not supported", "write the values out"),
            Expr::Attribute(attribute) => {
                let message = format!("`.{}` is not supported here", attribute.attr);
                let hint = "methods are called with (), and JSON is read with ['key']";
                return self.problem(expression, message, Some(hint));
            }
            _ => ("this is not supported in a condition", "use comparisons joined by `and` and `or`"),
        };
        self.problem(expression, what, Some(hint))
    }
}
