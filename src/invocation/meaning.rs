//! The meaning of a model's answer that is not a prediction: whose fault it is, and whether to try again.

use std::time::Duration;

use serde::Deserialize;

use super::traceback::exception_of;
use crate::message::{Code, Fault, Stage};

/// Bytes of the longest message; a longer one is cut, since a model may echo the whole payload in it.
const LONGEST_MESSAGE: usize = 2048;

/// First line of a Python traceback; a caller's message ends before it.
const TRACEBACK: &str = "Traceback (most recent call last)";

/// Functions of MLflow that make a model's input of a payload, as a traceback names them. No code of the model runs
/// below them, so an exception there is the caller's fault. Hosts of ours tell more exactly.
const PARSER_FRAMES: [&str; 3] = [", in parse_csv_input\n", ", in parse_parquet_input\n", ", in _convert_input\n"];

/// Begin of MLflow's message when it does not know what was wrong; the exception tells more than the message then.
const UNEXPECTED: &str = "Encountered an unexpected error";

/// Reads an error body of MLflow's scoring server (`message`), or of the web framework below it (`detail`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    message: Option<serde_json::Value>,
    detail: Option<serde_json::Value>,
    stack_trace: Option<String>,
    /// Tells whether a host of ours could not write the model's answer; the message is the host's own then.
    unwritable: bool,
}

/// Tells the meaning of an answer that is no success.
#[derive(Debug)]
pub(crate) struct Meaning {
    /// Fault for the caller.
    pub(crate) fault: Fault,
    /// Traceback, where the model raised an exception, for the log alone.
    pub(crate) traceback: Option<String>,
}

/// Finds the meaning of an answer with this status, which is no success.
///
/// A 400 alone does not tell who is at fault, since MLflow answers 400 as well when the model itself raises; a
/// `stack_trace` in the body does, unless it comes from where MLflow reads the payload. Bodies may be anything, whatever
/// their content type says.
pub(crate) fn meaning_of(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Meaning {
    let error: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
    let said = message_of(&error, body);
    let fault = match &error.stack_trace {
        Some(_) if error.unwritable => permanent(Code::ModelError, said),
        Some(traceback) => {
            let exception = exception_of(traceback).unwrap_or("an exception");
            if PARSER_FRAMES.iter().any(|frame| traceback.contains(frame)) {
                let refused = if said.starts_with(UNEXPECTED) {
                    cut(&format!("MLflow cannot make the model's input of this payload: {exception}"))
                } else {
                    said
                };
                return Meaning { fault: permanent(Code::BadRequest, refused), traceback: None };
            }
            permanent(Code::ModelError, format!("the model raised {}", cut(exception)))
        }
        None => fault_of(status, retry_after, &said),
    };
    Meaning { fault, traceback: error.stack_trace }
}

fn fault_of(status: u16, retry_after: Option<Duration>, said: &str) -> Fault {
    let with_reason = |what: &str| if said.is_empty() { what.to_owned() } else { format!("{what}: {said}") };
    match status {
        400 | 422 if said.is_empty() => {
            permanent(Code::BadRequest, "the model refuses the payload, and does not say why")
        }
        400 | 422 => permanent(Code::BadRequest, said),
        413 => permanent(Code::PayloadTooLarge, with_reason("the model does not take a payload of this size")),
        415 => permanent(Code::UnsupportedMediaType, with_reason("the model does not read this content type")),
        408 | 429 | 503 => {
            let fault = passing(
                Code::TemporarilyUnavailable,
                with_reason(&format!("the model is busy (it answered {status})")),
            );
            Fault { retry_after, ..fault }
        }
        504 => passing(Code::DeadlineExceeded, with_reason("the model's server gave up waiting for the model")),
        300..400 => permanent(
            Code::ModelError,
            format!(
                "the model's address answered with a redirect ({status}), which is not followed; name the address it leads to"
            ),
        ),
        401 | 403 => permanent(
            Code::ModelError,
            with_reason(&format!("the model's server does not let Signalbox in (it answered {status})")),
        ),
        404 | 405 => permanent(
            Code::ModelError,
            with_reason(&format!(
                "what is at the model's address does not serve MLflow's protocol (it answered {status})"
            )),
        ),
        400..500 => permanent(Code::ModelError, with_reason(&format!("the model's server answered {status}"))),
        _ => passing(Code::ModelError, with_reason(&format!("the model's server failed (it answered {status})"))),
    }
}

fn permanent(code: Code, message: impl Into<String>) -> Fault {
    Fault::permanent(code, Stage::Invoke, message)
}

fn passing(code: Code, message: impl Into<String>) -> Fault {
    Fault::passing(code, Stage::Invoke, message)
}

/// Reads the message of a body, fit for a caller: no traceback, no web page, and not too long.
fn message_of(error: &ErrorBody, body: &[u8]) -> String {
    let said = match (&error.message, &error.detail) {
        (Some(serde_json::Value::String(text)), _) | (None, Some(serde_json::Value::String(text))) => text.clone(),
        (Some(value), _) | (None, Some(value)) => value.to_string(),
        (None, None) => std::str::from_utf8(body).unwrap_or_default().to_owned(),
    };
    let said = said.split(TRACEBACK).next().unwrap_or_default().trim();
    if said.starts_with('<') {
        return String::new();
    }
    cut(said)
}

fn cut(text: &str) -> String {
    if text.len() <= LONGEST_MESSAGE {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(LONGEST_MESSAGE)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(status: u16, body: &str) -> Fault {
        meaning_of(status, None, body.as_bytes()).fault
    }

    #[test]
    fn meaning_tells_whose_fault_it_is() {
        let schema = r#"{"error_code":"INVALID_PARAMETER_VALUE","message":"Model is missing inputs ['text'].","sqlstate":"KAM01"}"#;
        let raised = r#"{"error_code":"BAD_REQUEST","message":"Encountered an unexpected error","stack_trace":"Traceback (most recent call last):\n  File \"x\"\nValueError: no\n"}"#;
        let unread = r#"{"error_code":"BAD_REQUEST","message":"Failed to parse input","stack_trace":"Traceback (most recent call last):\n  File \"x\", line 1, in parse_csv_input\npandas.errors.ParserError: no\n"}"#;
        let no_chat = r#"{"error_code":"BAD_REQUEST","message":"Encountered an unexpected error","stack_trace":"Traceback (most recent call last):\n  File \"x\", line 1, in _convert_input\n  File \"y\"\nTypeError: no chat\n"}"#;
        let unwritable = r#"{"message":"the model's answer cannot be written","stack_trace":"Traceback (most recent call last):\n  File \"x\"\nTypeError: Decimal\n","unwritable":true}"#;
        for (status, body, code, retryable, message) in [
            (400, schema, Code::BadRequest, false, "Model is missing inputs ['text']."),
            (422, r#"{"detail":[{"loc":["body"]}]}"#, Code::BadRequest, false, r#"[{"loc":["body"]}]"#),
            (400, "", Code::BadRequest, false, "does not say why"),
            (400, raised, Code::ModelError, false, "the model raised ValueError: no"),
            (500, raised, Code::ModelError, false, "the model raised ValueError: no"),
            (400, unread, Code::BadRequest, false, "Failed to parse input"),
            (400, no_chat, Code::BadRequest, false, "input of this payload: TypeError: no chat"),
            (500, unwritable, Code::ModelError, false, "the model's answer cannot be written"),
            (415, "This predictor only supports …", Code::UnsupportedMediaType, false, "This predictor only supports"),
            (413, "", Code::PayloadTooLarge, false, "size"),
            (429, "", Code::TemporarilyUnavailable, true, "429"),
            (503, "overloaded", Code::TemporarilyUnavailable, true, "overloaded"),
            (504, "Request processing time exceeded limit", Code::DeadlineExceeded, true, "exceeded limit"),
            (500, "Internal Server Error", Code::ModelError, true, "Internal Server Error"),
            (502, "<html>Bad Gateway</html>", Code::ModelError, true, "(it answered 502)"),
            (401, "", Code::ModelError, false, "let Signalbox in"),
            (403, "Permission denied", Code::ModelError, false, "Permission denied"),
            (404, r#"{"detail":"Not Found"}"#, Code::ModelError, false, "Not Found"),
            (307, "", Code::ModelError, false, "redirect"),
            (418, "", Code::ModelError, false, "418"),
        ] {
            let fault = fault(status, body);
            assert_eq!((fault.code, fault.retryable, fault.stage), (code, retryable, Stage::Invoke), "{status} {body}");
            assert!(fault.message.contains(message), "{fault}");
            assert!(!fault.message.contains("File") && !fault.message.contains('<'), "{fault}");
        }
    }

    #[test]
    fn meaning_keeps_retry_after() {
        let after = Some(Duration::from_secs(7));
        assert_eq!(meaning_of(503, after, b"").fault.retry_after, after);
        assert_eq!(meaning_of(500, after, b"").fault.retry_after, None);
    }

    #[test]
    fn message_is_cut_when_long_or_traceback() {
        let long = fault(400, &"é".repeat(5000));
        assert_eq!(long.message.chars().count(), LONGEST_MESSAGE / 2 + 1);
        let traced =
            fault(400, r#"{"message": "Could not parse.\nTraceback (most recent call last):\n  File \"secret.py\""}"#);
        assert_eq!(traced.message, "Could not parse.");
    }

    proptest! {
        #[test]
        fn meaning_exists_for_any_body(status in 300u16..600, body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let fault = meaning_of(status, None, &body).fault;
            prop_assert!(fault.code.status() >= 400 && !fault.message.is_empty());
        }
    }
}
