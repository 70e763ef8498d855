//! The lowering of the parts of `request`: the payload, headers, query and record.

use ruff_python_ast::{Expr, ExprCall};

use super::{Lowered, Lowering, RhaiCode};
use crate::routing::condition::direct::RequestMapping;
use crate::routing::condition::path::{JsonPath, JsonStep};

/// Most steps of one path into the payload.
const MAX_STEPS: usize = 64;

impl Lowering<'_> {
    /// Lowers what reads the request; nothing for any other expression.
    pub(super) fn request(&mut self, expression: &Expr) -> Lowered<Option<RhaiCode>> {
        if let Some(code) = self.payload(expression)? {
            return Ok(Some(code));
        }
        match expression {
            Expr::Subscript(subscript) => match mapping(&subscript.value) {
                Some(mapping) => {
                    let key = self.value(&subscript.slice)?.text;
                    Ok(Some(RhaiCode::value(format!("request.{}({key})", mapping.helper()))))
                }
                None => Ok(None),
            },
            Expr::Call(call) => self.request_call(call),
            Expr::Attribute(attribute) if is_request(&attribute.value) => {
                let name = attribute.attr.as_str();
                let hint = match name {
                    "method" | "path" | "content_type" | "key" | "topic" | "partition" => {
                        return Ok(Some(RhaiCode::value(format!("request.{name}"))));
                    }
                    "headers" | "args" => {
                        format!("read one: request.{name}['x'], request.{name}.get('x') or 'x' in request.{name}")
                    }
                    "data" => "use request.get_data(as_text=True)".to_owned(),
                    "mimetype" => "use request.content_type".to_owned(),
                    "body" | "payload" | "value" => "use request.json() or request.get_data(as_text=True)".to_owned(),
                    _ => "use json(), headers, args, method, path, content_type, key, topic or partition".to_owned(),
                };
                let message = format!("`request.{name}` is not supported here");
                Err(self.problem(&attribute.attr, message, Some(&hint)))
            }
            _ => Ok(None),
        }
    }

    /// Implements `'x' in request.headers`.
    pub(super) fn in_mapping(&mut self, needle: &Expr, container: &Expr) -> Lowered<Option<String>> {
        match mapping(container) {
            Some(mapping) => Ok(Some(format!("request.has_{}({})", mapping.helper(), self.value(needle)?.text))),
            None => Ok(None),
        }
    }

    fn request_call(&mut self, call: &ExprCall) -> Lowered<Option<RhaiCode>> {
        let Expr::Attribute(method) = &*call.func else { return Ok(None) };
        if let Some(mapping) = mapping(&method.value) {
            let arguments = &*call.arguments.args;
            if method.attr.as_str() != "get" || !matches!(arguments.len(), 1 | 2) || !call.arguments.keywords.is_empty()
            {
                let hint = Some("use .get('x'), .get('x', default), ['x'], or 'x' in …; convert with int() or float()");
                return Err(self.problem(&method.attr, "this is not supported on headers and args", hint));
            }
            let key = self.value(&arguments[0])?.text;
            let default = match arguments.get(1) {
                Some(default) => self.value(default)?.text,
                None => "()".to_owned(),
            };
            return Ok(Some(RhaiCode::value(format!("request.{}({key}, {default})", mapping.helper()))));
        }
        if !is_request(&method.value) {
            return Ok(None);
        }
        match method.attr.as_str() {
            "get_data" => {
                let as_text = match (&*call.arguments.args, &*call.arguments.keywords) {
                    ([], [only]) => {
                        only.arg.as_ref().is_some_and(|name| name.as_str() == "as_text")
                            && matches!(&only.value, Expr::BooleanLiteral(literal) if literal.value)
                    }
                    _ => false,
                };
                if !as_text {
                    let hint = Some("use request.get_data(as_text=True)");
                    return Err(self.problem(call, "bytes are not supported", hint));
                }
                Ok(Some(RhaiCode::value("request.text()".to_owned())))
            }
            "json" | "get_json" => {
                let hint = Some("use request.json()");
                Err(self.problem(call, "these arguments are not supported", hint))
            }
            name => {
                let hint = Some("use json(), headers, args, method, path, content_type, key, topic or partition");
                Err(self.problem(&method.attr, format!("`request.{name}()` is not supported"), hint))
            }
        }
    }

    fn payload(&mut self, expression: &Expr) -> Lowered<Option<RhaiCode>> {
        Ok(self.path(expression)?.map(|path| RhaiCode::value(format!("request.field({path})"))))
    }

    /// Finds or adds the entry in the table of paths for `request.json()` and every constant step that follows.
    pub(super) fn path(&mut self, expression: &Expr) -> Lowered<Option<usize>> {
        let mut steps = Vec::new();
        let mut at = expression;
        while !is_payload(at) {
            let Some((inner, step)) = self.step(at)? else { return Ok(None) };
            steps.push(step);
            at = inner;
            if steps.len() > MAX_STEPS {
                return Err(self.problem(expression, "this path has too many steps", Some("use at most 64")));
            }
        }
        steps.reverse();
        let identity = format!("{steps:?}");
        let paths = &mut self.tables.paths;
        let known = paths.iter().position(|path| format!("{:?}", path.steps) == identity);
        let index = known.unwrap_or_else(|| {
            let text = path_text(&steps);
            paths.push(JsonPath::new(steps, text));
            paths.len() - 1
        });
        Ok(Some(index))
    }

    /// Splits off the last step of a chain.
    fn step<'e>(&mut self, expression: &'e Expr) -> Lowered<Option<(&'e Expr, JsonStep)>> {
        Ok(match expression {
            Expr::Subscript(subscript) => {
                let step = match &*subscript.slice {
                    Expr::StringLiteral(key) if !self.parsed.holds_half_a_character(key) => {
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
                if method.attr.as_str() != "get" || default.len() > 1 || self.parsed.holds_half_a_character(key) {
                    return Ok(None);
                }
                let default = match default.first() {
                    Some(default) => self.constant(default)?,
                    None => Some(super::Value::None),
                };
                default.map(|default| (&*method.value, JsonStep::Get(key.value.to_str().into(), default)))
            }
            _ => None,
        })
    }
}

pub(super) fn is_request(expression: &Expr) -> bool {
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

/// Tells whether an expression is `request.json`, `request.json()` or `request.get_json()`, the last also with `force`
/// and `cache`, which change nothing here.
fn is_payload(expression: &Expr) -> bool {
    match expression {
        Expr::Attribute(attribute) => is_request(&attribute.value) && attribute.attr.as_str() == "json",
        Expr::Call(call) => match &*call.func {
            Expr::Attribute(method) if is_request(&method.value) && call.arguments.args.is_empty() => {
                let keywords = &call.arguments.keywords;
                match method.attr.as_str() {
                    "json" => keywords.is_empty(),
                    "get_json" => keywords.iter().all(|keyword| {
                        keyword.arg.as_ref().is_some_and(|name| matches!(name.as_str(), "force" | "cache"))
                            && matches!(keyword.value, Expr::BooleanLiteral(_))
                    }),
                    _ => false,
                }
            }
            _ => false,
        },
        _ => false,
    }
}

impl RequestMapping {
    /// Returns the name of the mapping's reader in Rhai.
    fn helper(self) -> &'static str {
        match self {
            Self::Headers => "header",
            Self::Arguments => "argument",
        }
    }
}

/// Formats a path as errors show it.
fn path_text(steps: &[JsonStep]) -> String {
    let mut text = "request.json()".to_owned();
    for step in steps {
        match step {
            JsonStep::Key(key) => text.push_str(&format!("['{key}']")),
            JsonStep::Index(index) => text.push_str(&format!("[{index}]")),
            JsonStep::Get(key, super::Value::None) => text.push_str(&format!(".get('{key}')")),
            JsonStep::Get(key, _) => text.push_str(&format!(".get('{key}', …)")),
        }
    }
    text
}
