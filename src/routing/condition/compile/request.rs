//! The compilation of the parts of `request`: the payload, headers, query and record.

use ruff_python_ast::{Expr, ExprCall, Keyword};

use super::{Compiled, Compiler};
use crate::routing::condition::path::{JsonPath, JsonStep};
use crate::routing::condition::request::{RequestMapping, RequestView, property};
use crate::routing::condition::tree::Node;
use crate::routing::condition::value::Value;

/// Most steps of one path into the payload.
const MAX_STEPS: usize = 64;

/// The ways in which Flask's `get_json` reads a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct JsonReading {
    is_forced: bool,
    is_silent: bool,
}

impl Compiler<'_> {
    /// Compiles what reads the request; nothing for any other expression.
    pub(super) fn request(&mut self, expression: &Expr) -> Compiled<Option<Node>> {
        if let Some(path) = self.path(expression)? {
            return Ok(Some(Node::Field(path)));
        }
        match expression {
            Expr::Subscript(subscript) => match mapping(&subscript.value) {
                Some(mapping) => Ok(Some(Node::Named(mapping, Box::new((self.node(&subscript.slice)?, None))))),
                None => Ok(None),
            },
            Expr::Call(call) => self.request_call(call),
            Expr::Attribute(attribute) if is_request(&attribute.value) => {
                let name = attribute.attr.as_str();
                if let Some(read) = property(name) {
                    return Ok(Some(Node::Property(read)));
                }
                let hint = match name {
                    "headers" | "args" => {
                        format!("read one: request.{name}['x'], request.{name}.get('x') or 'x' in request.{name}")
                    }
                    "data" => "use request.get_data(as_text=True)".to_owned(),
                    _ => return Err(self.problem(&attribute.attr, format!("`request.{name}` is not compiled"), None)),
                };
                Err(self.problem(&attribute.attr, format!("`request.{name}` is not compiled"), Some(&hint)))
            }
            _ => Ok(None),
        }
    }

    fn request_call(&mut self, call: &ExprCall) -> Compiled<Option<Node>> {
        let Expr::Attribute(method) = &*call.func else { return Ok(None) };
        let operands = &*call.arguments.args;
        if let Some(mapping) = mapping(&method.value) {
            if method.attr.as_str() != "get" || !matches!(operands.len(), 1 | 2) || !call.arguments.keywords.is_empty()
            {
                let hint = Some("use .get('x'), .get('x', default), ['x'], or 'x' in …; convert with int() or float()");
                return Err(self.problem(&method.attr, "this is not compiled for headers and args", hint));
            }
            let name = self.node(&operands[0])?;
            let default = operands.get(1).map_or(Ok(Node::Constant(Value::None)), |default| self.node(default))?;
            return Ok(Some(Node::Named(mapping, Box::new((name, Some(default))))));
        }
        if !is_request(&method.value) {
            return Ok(None);
        }
        match (method.attr.as_str(), reading(call)) {
            ("get_data", _) if is_as_text(call) => Ok(Some(Node::Property(RequestView::text))),
            ("get_data", _) => {
                Err(self.problem(call, "bytes are not compiled", Some("use request.get_data(as_text=True)")))
            }
            // A path from the payload's bytes reads no more than it needs, and this must know whether all of it is JSON.
            (_, Some(JsonReading { is_forced: true, .. })) => Ok(Some(Node::Property(RequestView::silent_forced_json))),
            (_, Some(_)) => Ok(Some(Node::Property(RequestView::silent_json))),
            ("json" | "get_json", None) => {
                Err(self.problem(call, "these arguments are not compiled", Some("use request.json()")))
            }
            (name, None) => Err(self.problem(&method.attr, format!("`request.{name}()` is not compiled"), None)),
        }
    }

    /// Finds or adds the entry in the table of paths for `request.json()` and every constant step that follows.
    fn path(&mut self, expression: &Expr) -> Compiled<Option<usize>> {
        let mut steps = Vec::new();
        let mut at = expression;
        let is_forced = loop {
            match payload(at) {
                Some(JsonReading { is_silent: true, .. }) => return Ok(None),
                Some(reading) => break reading.is_forced,
                None => {}
            }
            let Some((inner, step)) = self.step(at)? else { return Ok(None) };
            steps.push(step);
            at = inner;
            if steps.len() > MAX_STEPS {
                let hint = Some("use at most 64");
                return Err(self.problem(expression, "a path of so many steps is not compiled", hint));
            }
        };
        steps.reverse();
        let identity = format!("{steps:?}");
        let paths = &mut self.tables.paths;
        let known =
            paths.iter().position(|path| path.is_forced == is_forced && format!("{:?}", path.steps) == identity);
        let index = known.unwrap_or_else(|| {
            let text = path_text(&steps);
            paths.push(JsonPath::new(steps, is_forced, text));
            paths.len() - 1
        });
        Ok(Some(index))
    }

    /// Splits off the last step of a chain.
    fn step<'e>(&mut self, expression: &'e Expr) -> Compiled<Option<(&'e Expr, JsonStep)>> {
        Ok(match expression {
            Expr::Subscript(subscript) => {
                let step = match &*subscript.slice {
                    Expr::StringLiteral(key) if !self.parsed.holds_half_a_character(key, key.value.to_str()) => {
                        Some(JsonStep::Key(key.value.to_str().into()))
                    }
                    Expr::NumberLiteral(number) => {
                        number.value.as_int().and_then(|index| index.as_usize()).map(JsonStep::Index)
                    }
                    _ => None,
                };
                step.map(|step| (&*subscript.value, step))
            }
            Expr::Call(call) => {
                let (Expr::Attribute(method), [Expr::StringLiteral(key), default @ ..], []) =
                    (&*call.func, &*call.arguments.args, &*call.arguments.keywords)
                else {
                    return Ok(None);
                };
                let is_whole = !self.parsed.holds_half_a_character(key, key.value.to_str());
                if method.attr.as_str() != "get" || default.len() > 1 || !is_whole {
                    return Ok(None);
                }
                let default = match default.first().map(|default| self.node(default)).transpose()? {
                    Some(Node::Constant(default)) => default,
                    None => Value::None,
                    Some(_) => return Ok(None),
                };
                Some((&*method.value, JsonStep::Get(key.value.to_str().into(), default)))
            }
            _ => None,
        })
    }
}

fn is_request(expression: &Expr) -> bool {
    matches!(expression, Expr::Name(name) if name.id.as_str() == "request")
}

/// Returns the mapping of the expressions `request.headers` and `request.args`.
pub(super) fn mapping(expression: &Expr) -> Option<RequestMapping> {
    match expression {
        Expr::Attribute(attribute) if is_request(&attribute.value) => match attribute.attr.as_str() {
            "headers" => Some(RequestMapping::Headers),
            "args" => Some(RequestMapping::Arguments),
            _ => None,
        },
        _ => None,
    }
}

/// Returns the way in which `request.json`, `request.json()` or `request.get_json()` reads the payload; nothing for any
/// other expression.
fn payload(expression: &Expr) -> Option<JsonReading> {
    match expression {
        Expr::Attribute(attribute) if is_request(&attribute.value) && attribute.attr.as_str() == "json" => {
            Some(JsonReading::default())
        }
        Expr::Call(call) => reading(call),
        _ => None,
    }
}

fn reading(call: &ExprCall) -> Option<JsonReading> {
    let Expr::Attribute(method) = &*call.func else { return None };
    let (name, keywords) = (method.attr.as_str(), &*call.arguments.keywords);
    let takes_keywords = name == "get_json";
    let is_json = is_request(&method.value) && (takes_keywords || name == "json" && keywords.is_empty());
    if !is_json || !call.arguments.args.is_empty() {
        return None;
    }
    let mut reading = JsonReading::default();
    for keyword in keywords {
        match flag(keyword)? {
            ("force", is_set) => reading.is_forced = is_set,
            ("silent", is_set) => reading.is_silent = is_set,
            ("cache", _) => {}
            _ => return None,
        }
    }
    Some(reading)
}

fn is_as_text(call: &ExprCall) -> bool {
    call.arguments.args.is_empty()
        && matches!(&*call.arguments.keywords, [only] if flag(only) == Some(("as_text", true)))
}

/// Returns an argument by name that is `True` or `False`.
fn flag(keyword: &Keyword) -> Option<(&str, bool)> {
    match (&keyword.arg, &keyword.value) {
        (Some(name), Expr::BooleanLiteral(literal)) => Some((name.as_str(), literal.value)),
        _ => None,
    }
}

/// Formats a path as errors show it.
fn path_text(steps: &[JsonStep]) -> String {
    let mut text = "request.json()".to_owned();
    for step in steps {
        match step {
            JsonStep::Key(key) => text.push_str(&format!("['{key}']")),
            JsonStep::Index(index) => text.push_str(&format!("[{index}]")),
            JsonStep::Get(key, Value::None) => text.push_str(&format!(".get('{key}')")),
            JsonStep::Get(key, _) => text.push_str(&format!(".get('{key}', …)")),
        }
    }
    text
}
