//! Answers: replies taken apart into one prediction for each row, and the faults of requests.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The end of a row.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// A prediction, as JSON without line breaks.
    Prediction(Bytes),
    Failed(RowFault),
}

/// Tells why a row has no prediction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowFault {
    pub(super) code: String,
    pub(super) message: String,
    /// Correlation id of the request; none where the row could not be sent.
    pub(super) correlation: Option<String>,
}

/// Fault with which a request was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestFault {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
    /// True if the same request may succeed later.
    pub(super) may_pass: bool,
    /// Time after which to come back.
    pub(super) retry_after: Option<Duration>,
}

/// Reply to a request, as it came.
#[derive(Debug, Clone)]
pub(super) struct ReceivedReply {
    /// Number of the request, from its correlation id.
    pub(super) request: u64,
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

#[derive(Deserialize)]
struct PredictionsBody<'a> {
    #[serde(borrow)]
    predictions: &'a RawValue,
}

#[derive(Deserialize)]
struct FaultBody {
    error_code: Option<String>,
    message: Option<String>,
    retryable: Option<bool>,
}

/// Prediction of every row of a model that predicts nothing, as `builtin:noop`.
const NOTHING: Bytes = Bytes::from_static(b"null");

/// Code of an answer that cannot be taken apart.
pub(super) const UNUSABLE: &str = "UNUSABLE_ANSWER";

impl ReceivedReply {
    /// Takes the answer to a request of this many rows apart. With `whole`, all of it is the prediction of one row.
    ///
    /// # Errors
    /// When the reply is a fault, or has not one prediction for each row.
    pub(super) fn predictions(&self, rows: usize, whole: bool) -> Result<Vec<Bytes>, RequestFault> {
        if !(200..300).contains(&self.status) {
            return Err(self.fault());
        }
        let text = std::str::from_utf8(&self.body).map_err(|_| unusable("the answer is not UTF-8 text".to_owned()))?;
        let missing = |reason: String| unusable(format!("the answer has no 'predictions': {reason}"));
        // A list would be taken for the object's values.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(missing("it is no object".to_owned()));
        }
        let body = serde_json::from_str::<PredictionsBody<'_>>(text).map_err(|error| missing(error.to_string()))?;
        let shared = |value: &RawValue| on_one_line(self.body.slice_ref(value.get().as_bytes()));
        if whole {
            return Ok(vec![shared(body.predictions); rows]);
        }
        let predictions = body.predictions.get();
        match super::json::elements(predictions) {
            Some(elements) if elements.len() == rows => Ok(elements.into_iter().map(shared).collect()),
            Some(elements) if elements.is_empty() => Ok(vec![NOTHING; rows]),
            Some(elements) => Err(unusable(format!(
                "the model gave {} predictions for {rows} rows; if it does not answer row by row, --whole takes its \
                 answer to each row as it is",
                elements.len()
            ))),
            None => Err(unusable(
                "the model's predictions are not a list, one for each row; --whole takes its answer to each row as it is"
                    .to_owned(),
            )),
        }
    }

    fn fault(&self) -> RequestFault {
        let body = serde_json::from_slice::<FaultBody>(&self.body).ok();
        let (code, message, retryable) =
            body.map_or((None, None, None), |body| (body.error_code, body.message, body.retryable));
        RequestFault {
            status: self.status,
            code: code.unwrap_or_else(|| format!("STATUS_{}", self.status)),
            message: message.unwrap_or_else(|| String::from_utf8_lossy(&self.body).chars().take(1_000).collect()),
            may_pass: retryable.unwrap_or(matches!(self.status, 408 | 429 | 502 | 503 | 504)),
            retry_after: self.retry_after,
        }
    }
}

impl RequestFault {
    /// Reports a request that nobody has answered in its time.
    pub(super) fn silence(message: String) -> Self {
        Self { status: 504, code: "DEADLINE_EXCEEDED".to_owned(), message, may_pass: true, retry_after: None }
    }

    /// Tells whether there is more to do than there can be done, so that fewer requests at once help.
    pub(super) fn is_for_want_of_room(&self) -> bool {
        matches!(self.status, 429 | 503 | 504)
    }

    /// Tells whether no part of the request was tried, so that trying again costs nothing.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.status, 429 | 503)
    }

    /// Tells whether the whole run asks for what there is not, or what it may not have.
    pub(super) fn is_of_the_run(&self) -> bool {
        matches!(self.status, 401 | 403 | 404 | 415)
    }
}

fn unusable(message: String) -> RequestFault {
    RequestFault { status: 500, code: UNUSABLE.to_owned(), message, may_pass: false, retry_after: None }
}

/// Joins the lines of a JSON value: line breaks in it are blanks between its parts, never parts of a string.
fn on_one_line(value: Bytes) -> Bytes {
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    match value.iter().any(is_break) {
        true => value.iter().map(|byte| if is_break(byte) { b' ' } else { *byte }).collect(),
        false => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &'static str) -> ReceivedReply {
        ReceivedReply { request: 1, status, retry_after: None, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn each_row_has_its_prediction_as_it_came() {
        let answer = reply(200, "{\"predictions\": [1.50, {\"label\":\n\"x\"}, null], \"more\": [2]}");
        assert_eq!(answer.predictions(3, false).unwrap(), ["1.50", "{\"label\": \"x\"}", "null"]);
        assert_eq!(answer.predictions(1, true).unwrap(), ["[1.50, {\"label\": \"x\"}, null]"]);
        let nothing = reply(200, "{\"predictions\": []}");
        assert_eq!(nothing.predictions(2, false).unwrap(), ["null", "null"]);
        assert_eq!(nothing.predictions(1, true).unwrap(), ["[]"]);
    }

    #[test]
    fn answer_that_does_not_fit_says_what_helps() {
        let says = |body, rows| reply(200, body).predictions(rows, false).unwrap_err();
        let fault = says("{\"predictions\": [1]}", 2);
        assert!(!fault.may_pass && fault.message.contains("1 predictions for 2 rows"), "{fault:?}");
        assert!(says("{\"predictions\": {\"a\": [1]}}", 1).message.contains("--whole"));
        assert!(says("[1]", 1).message.starts_with("the answer has no 'predictions'"));
    }

    #[test]
    fn fault_tells_whether_to_try_again() {
        let fault = reply(
            503,
            r#"{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "m", "retryable": true, "stage": "load", "correlation_id": "1"}"#,
        );
        let fault = fault.predictions(1, false).unwrap_err();
        assert_eq!((fault.code.as_str(), fault.may_pass), ("TEMPORARILY_UNAVAILABLE", true));
        assert!(fault.is_refusal() && fault.is_for_want_of_room() && !fault.is_of_the_run());
        let other = reply(502, "<html>").predictions(1, false).unwrap_err();
        assert_eq!((other.code.as_str(), &*other.message, other.may_pass), ("STATUS_502", "<html>", true));
        assert!(!reply(400, "{\"error_code\": \"BAD_REQUEST\"}").predictions(1, false).unwrap_err().may_pass);
    }
}
