//! The `request` of a condition: Flask's names over a Kafka record, each part read only when a condition needs it.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use super::Program;
use super::budget::charge_text;
use super::error::{ConditionError, Result};
use super::json::{Encoding, TOO_DEEP, transcoded};
use super::operations::collections;
use super::path;
use super::tree::Scope;
use super::value::Value;
use crate::message::{Request, header};

/// Returns the reader of one of the plain names of a request.
pub(super) fn property(name: &str) -> Option<fn(&RequestView) -> Result<Value>> {
    Some(match name {
        "method" => |request| Ok(request.method()),
        "path" => |request| Ok(request.path()),
        "content_type" => |request| Ok(request.content_type()),
        "content_length" => |request| collections::int(request.payload_size()),
        "is_json" => |request| Ok(Value::Bool(request.is_json())),
        "key" => RequestView::key,
        "mimetype" => |request| Ok(Value::text(request.mimetype())),
        "offset" => |request| Ok(Value::Int(request.0.request.source.offset)),
        "partition" => |request| Ok(request.partition()),
        "timestamp" => |request| Ok(request.0.request.timestamp.map_or(Value::None, Value::Int)),
        "topic" => |request| Ok(request.topic()),
        _ => return None,
    })
}

/// Request line of a plain Kafka record, which has none of HTTP.
const DEFAULT_TARGET: &str = "POST /invocations";
/// Flask's words for a body that is not said to be JSON.
const NOT_SAID_TO_BE_JSON: &str = "415 Unsupported Media Type: Did not attempt to load JSON data because the request \
                                   Content-Type was not 'application/json'.";

/// The parts of a request that map names to values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestMapping {
    Headers,
    Arguments,
}

/// One request under evaluation. All conditions of an endpoint share the view, so that each part of the request is read
/// once.
#[derive(Debug, Clone)]
pub(super) struct RequestView(Arc<ViewState>);

#[derive(Debug)]
struct ViewState {
    request: Arc<Request>,
    program: Arc<Program>,
    /// Value at each of the program's paths, once it is read.
    fields: Box<[OnceLock<Result<Value>>]>,
    /// Value of each of the program's names, once it is evaluated.
    shared: Box<[OnceLock<Result<Value>>]>,
    /// Whole payload, for expressions without a constant path.
    body: OnceLock<Result<Value>>,
    /// Payload in UTF-8, when it comes in another encoding of JSON.
    transcoded: OnceLock<Result<Vec<u8>>>,
}

impl RequestView {
    /// Makes a view of a request, before its first condition.
    pub(super) fn new(request: Arc<Request>, program: Arc<Program>) -> Self {
        let fields = program.paths.iter().map(|_| OnceLock::new()).collect();
        let shared = program.names.iter().map(|_| OnceLock::new()).collect();
        let (body, transcoded) = (OnceLock::new(), OnceLock::new());
        Self(Arc::new(ViewState { request, program, fields, shared, body, transcoded }))
    }

    /// Returns the compiled conditions of the endpoint.
    pub(super) fn program(&self) -> &Program {
        &self.0.program
    }

    /// Returns the payload's size in bytes.
    pub(super) fn payload_size(&self) -> usize {
        self.payload().len()
    }

    /// Returns the value at one of the program's constant paths.
    pub(super) fn field(&self, index: usize) -> Result<&Value> {
        let (Some(memo), Some(path)) = (self.0.fields.get(index), self.0.program.paths.get(index)) else {
            return Err(ConditionError::Failed("no such path".to_owned()));
        };
        let value = memo.get_or_init(|| {
            if !path.is_forced && !self.is_json() {
                return Err(ConditionError::Failed(NOT_SAID_TO_BE_JSON.to_owned()).with_place("request.json()"));
            }
            if path.steps.is_empty() { self.body() } else { path.read(self.document()?) }
        });
        value.as_ref().map_err(Clone::clone)
    }

    /// Returns the value of one of the program's names.
    pub(super) fn shared(&self, index: usize) -> Result<&Value> {
        let (Some(memo), Some(node)) = (self.0.shared.get(index), self.0.program.names.get(index)) else {
            return Err(ConditionError::Failed("no such name".to_owned()));
        };
        let value = memo.get_or_init(|| node.value(&Scope::new(self)).map(Cow::into_owned));
        value.as_ref().map_err(Clone::clone)
    }

    /// Returns the whole payload as JSON, whatever it is said to be.
    pub(super) fn body(&self) -> Result<Value> {
        self.0.body.get_or_init(|| path::read_whole(self.document()?)).clone()
    }

    /// Returns `request.get_json(silent=True)`: `None` where the payload is no JSON, or not said to be.
    pub(super) fn silent_json(&self) -> Result<Value> {
        if self.is_json() { self.silent_forced_json() } else { Ok(Value::None) }
    }

    /// Returns `request.get_json(force=True, silent=True)`.
    pub(super) fn silent_forced_json(&self) -> Result<Value> {
        match self.body() {
            // Python reads deeper, or fails as well.
            Err(ConditionError::Failed(message)) if !message.contains(TOO_DEEP) => Ok(Value::None),
            body => body,
        }
    }

    /// Tells whether the payload is said to be JSON, by Flask's rule.
    fn is_json(&self) -> bool {
        match self.0.request.headers.get_ignoring_case(header::CONTENT_TYPE) {
            None | Some(b"application/json") => true,
            Some(_) => {
                let mimetype = self.mimetype();
                mimetype == "application/json" || (mimetype.starts_with("application/") && mimetype.ends_with("+json"))
            }
        }
    }

    /// Returns `request.mimetype`.
    fn mimetype(&self) -> String {
        let content_type = self.0.request.content_type();
        content_type.split(';').next().unwrap_or_default().trim().to_lowercase()
    }

    /// Returns the payload as JSON in UTF-8.
    fn document(&self) -> Result<&[u8]> {
        let payload = self.payload();
        match Encoding::of(payload) {
            Encoding::Utf8(mark) => Ok(payload.get(mark..).unwrap_or_default()),
            encoding => {
                let transcoded = self.0.transcoded.get_or_init(|| transcoded(payload, encoding));
                transcoded.as_deref().map_err(Clone::clone)
            }
        }
    }

    /// Returns `request.get_data(as_text=True)`.
    pub(super) fn text(&self) -> Result<Value> {
        charge_text(self.payload_size())?;
        Ok(Value::text(String::from_utf8_lossy(self.payload()).as_ref()))
    }

    /// Returns `request.headers.get(name)`.
    pub(super) fn header(&self, name: &str) -> Option<Value> {
        // Flask has these two whether they were sent or not.
        if name.eq_ignore_ascii_case("content-type") {
            return Some(self.content_type());
        }
        if name.eq_ignore_ascii_case("content-length") {
            return Some(Value::text(self.payload_size().to_string()));
        }
        let value = self.0.request.headers.get_ignoring_case(name)?;
        // As HTTP has it where it is not UTF-8: each byte is a character.
        let latin = || Value::text(value.iter().copied().map(char::from).collect::<String>());
        Some(std::str::from_utf8(value).map_or_else(|_| latin(), Value::text))
    }

    /// Returns `request.args.get(name)`: the first of that name in the query of the HTTP request line.
    pub(super) fn argument(&self, name: &str) -> Option<Value> {
        let (_, query) = self.target().split_once('?')?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (!pair.is_empty() && decode(key, true) == name).then(|| Value::text(decode(value, true).as_ref()))
        })
    }

    /// Returns `request.method`.
    pub(super) fn method(&self) -> Value {
        Value::text(self.request_line().split_once(' ').map_or("POST", |(method, _)| method))
    }

    /// Returns `request.path`.
    pub(super) fn path(&self) -> Value {
        let target = self.target();
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        Value::text(decode(path, false).as_ref())
    }

    /// Returns `request.content_type`.
    pub(super) fn content_type(&self) -> Value {
        Value::text(self.0.request.content_type())
    }

    /// Returns `request.key`: the record's key as text, or `None`.
    pub(super) fn key(&self) -> Result<Value> {
        let Some(key) = &self.0.request.key else { return Ok(Value::None) };
        let wrong = |_| ConditionError::wrong_value("the bytes are not UTF-8 text").with_place("request.key");
        std::str::from_utf8(key).map(Value::text).map_err(wrong)
    }

    /// Returns `request.topic`.
    pub(super) fn topic(&self) -> Value {
        Value::text(&*self.0.request.source.topic)
    }

    /// Returns `request.partition`.
    pub(super) fn partition(&self) -> Value {
        Value::Int(i64::from(self.0.request.source.partition))
    }

    fn payload(&self) -> &[u8] {
        self.0.request.payload.as_deref().unwrap_or_default()
    }

    /// Returns the HTTP request line, such as `POST /invocations?a=b`, as the shim writes it.
    fn request_line(&self) -> &str {
        self.0.request.headers.text(header::HTTP_TARGET).unwrap_or(DEFAULT_TARGET)
    }

    fn target(&self) -> &str {
        self.request_line().split_once(' ').map_or("/", |(_, target)| target)
    }
}

impl RequestMapping {
    /// Returns the value under a name.
    pub(super) fn get(self, request: &RequestView, name: &str) -> Option<Value> {
        match self {
            Self::Headers => request.header(name),
            Self::Arguments => request.argument(name),
        }
    }

    /// Makes the error for a name that is not there.
    pub(super) fn missing(self, name: &str) -> ConditionError {
        let mapping = match self {
            Self::Headers => "request.headers",
            Self::Arguments => "request.args",
        };
        ConditionError::Failed(format!("{mapping}: KeyError: '{name}'"))
    }
}

/// Undoes percent-encoding; in a query, `+` is a space. Text that is not well encoded stays as it is. What is not UTF-8
/// stays encoded in a query, and has another character in its place in a path: as in Flask.
fn decode(text: &str, is_query: bool) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hexadecimal = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        rest = after;
        match (byte, hexadecimal(0), hexadecimal(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', ..) if is_query => decoded.push(b' '),
            _ => decoded.push(byte),
        }
    }
    if !is_query {
        return Cow::Owned(String::from_utf8_lossy(&decoded).into_owned());
    }
    let mut text = String::with_capacity(decoded.len());
    for chunk in decoded.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_handles_queries_and_paths() {
        assert_eq!(decode("a+b%20c%C3%A9", true), "a b cé");
        assert_eq!(decode("a+b%2", false), "a+b%2");
        assert_eq!(decode("%zz%", true), "%zz%");
        assert_eq!(decode("a%ff%c3b", true), "a%FF%C3b");
        assert_eq!(decode("a%ff", false), "a\u{fffd}");
    }
}
