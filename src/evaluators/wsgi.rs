//! A request as a WSGI environment, of which Flask makes its own request. The path is still percent-encoded, and path and
//! query have characters where WSGI wants bytes: the evaluator sees to that.

use std::borrow::Cow;

use serde::ser::{Serialize, Serializer};

use crate::message::{Request, header};

/// Request line of a plain Kafka record, which has none of HTTP.
const DEFAULT_TARGET: &str = "POST /invocations";

/// The variables of a WSGI environment that depend on the request.
pub(super) struct Environ<'a>(Vec<(String, Option<Cow<'a, str>>)>);

impl<'a> Environ<'a> {
    /// Makes the environment of a request.
    pub(super) fn of(request: &'a Request) -> Self {
        let line = request.headers.text(header::HTTP_TARGET).unwrap_or(DEFAULT_TARGET);
        let (method, target) = line.split_once(' ').unwrap_or(("POST", "/"));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let length = request.payload.as_ref().map_or(0, bytes::Bytes::len);
        let mut environ = Self(Vec::with_capacity(request.headers.len() + 5));
        for (name, value) in request.headers.iter() {
            let name = name.to_ascii_uppercase().replace('-', "_");
            if name != "CONTENT_TYPE" && name != "CONTENT_LENGTH" {
                environ.set(format!("HTTP_{name}"), value.map(text_of));
            }
        }
        environ.set("REQUEST_METHOD".to_owned(), Some(method.into()));
        environ.set("PATH_INFO".to_owned(), Some(path.into()));
        environ.set("QUERY_STRING".to_owned(), Some(query.into()));
        environ.set("CONTENT_TYPE".to_owned(), Some(request.content_type().into()));
        environ.set("CONTENT_LENGTH".to_owned(), Some(length.to_string().into()));
        environ
    }

    /// Sets a variable. Of several headers with one name the last counts, and a null value is as none.
    fn set(&mut self, name: String, value: Option<Cow<'a, str>>) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, earlier)) => *earlier = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Serialize for Environ<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))))
    }
}

/// Reads a header's value as text, and as HTTP does where it is not UTF-8.
fn text_of(value: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(value).map_or_else(|_| value.iter().copied().map(char::from).collect(), Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::message::{Headers, HeadersBuilder, Source};

    fn environ(headers: Headers, payload: Option<&'static [u8]>) -> serde_json::Value {
        let source = Source { topic: "t".into(), partition: 0, offset: 0 };
        let payload = payload.map(Bytes::from_static);
        let request = Request { source, timestamp: None, key: None, payload, headers, parked: None };
        serde_json::to_value(Environ::of(&request)).unwrap()
    }

    #[test]
    fn environ_of_a_plain_record_is_a_post_of_json() {
        let expected = json!({
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/invocations",
            "QUERY_STRING": "",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": "0",
        });
        assert_eq!(environ(Headers::default(), None), expected);
    }

    #[test]
    fn environ_has_the_request_line_and_the_last_of_each_header() {
        let mut headers = HeadersBuilder::default();
        headers.push("http-target", Some("PUT /caf%C3%A9/x?a=%20é".as_bytes()));
        headers.push("Content-Type", Some(b"text/csv"));
        headers.push("x-tier", Some(b"gold"));
        headers.push("X-Tier", Some("größe".as_bytes()));
        headers.push("x-raw", Some(b"\xe9"));
        headers.push("x-null", Some(b"a"));
        headers.push("x-null", None);
        let expected = json!({
            "HTTP_HTTP_TARGET": "PUT /caf%C3%A9/x?a=%20é",
            "HTTP_X_TIER": "größe",
            "HTTP_X_RAW": "é",
            "REQUEST_METHOD": "PUT",
            "PATH_INFO": "/caf%C3%A9/x",
            "QUERY_STRING": "a=%20é",
            "CONTENT_TYPE": "text/csv",
            "CONTENT_LENGTH": "2",
        });
        assert_eq!(environ(headers.finish(), Some(b"{}")), expected);
    }
}
