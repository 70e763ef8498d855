//! Faults: why a request got no prediction, whose fault that is, at which stage, and whether to try again.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

/// Tells why a request got no prediction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code} at {stage}: {message}")]
pub struct Fault {
    /// The kind of fault, which fixes the HTTP status.
    pub code: Code,
    /// The stage that the request had come to.
    pub stage: Stage,
    /// The message: the cause, its place, and the remedy; fit to be shown to the caller, so without tracebacks and
    /// secrets.
    pub message: String,
    /// Tells whether the same request may succeed later.
    pub retryable: bool,
    /// The time after which to come back, if that is known.
    pub retry_after: Option<Duration>,
}

/// Names the kinds of fault, each with its HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// 400: the request cannot be understood, or the model refuses its payload.
    BadRequest,
    /// 401: the caller is not known.
    Unauthenticated,
    /// 403: the caller may not do this.
    PermissionDenied,
    /// 404: no such endpoint, route or model.
    ResourceDoesNotExist,
    /// 413: the request or its reply is larger than what may travel.
    PayloadTooLarge,
    /// 415: the model does not read this media type.
    UnsupportedMediaType,
    /// 422: a condition could not be evaluated on this request.
    ConditionFailed,
    /// 429: more than may wait is waiting already.
    ResourceExhausted,
    /// 499: the caller hung up before a model was called.
    Cancelled,
    /// 500: a defect of Signalbox itself.
    InternalError,
    /// 502: the model failed.
    ModelError,
    /// 503: the model, the registry or the broker is not there now.
    TemporarilyUnavailable,
    /// 504: there was no answer in time.
    DeadlineExceeded,
}

/// Names the stages of a request's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The request is read and its route is chosen.
    Route,
    /// The model is made ready.
    Load,
    /// The model is called.
    Invoke,
    /// The answer is published, or waited for.
    Publish,
}

/// Serialises the value of a fault record and the body of the shim's answer: MLflow's error shape, and more.
#[derive(Serialize)]
struct FaultBody<'a> {
    error_code: &'static str,
    message: &'a str,
    retryable: bool,
    stage: Stage,
    correlation_id: &'a str,
}

impl Fault {
    /// Bytes of the longest message; a longer one is cut. A message may repeat text of the request, and has to fit a
    /// record.
    pub const LONGEST_MESSAGE: usize = 8 * 1024;

    /// Builds a fault that the same request will meet again.
    pub fn permanent(code: Code, stage: Stage, message: impl Into<String>) -> Self {
        Self { code, stage, message: cut(message.into()), retryable: false, retry_after: None }
    }

    /// Builds a fault that may pass.
    pub fn passing(code: Code, stage: Stage, message: impl Into<String>) -> Self {
        Self { code, stage, message: cut(message.into()), retryable: true, retry_after: None }
    }

    /// Adds the time after which to come back.
    #[must_use]
    pub fn with_retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// Returns the reason for people other than the caller. A message that may repeat a part of the request, or of what a
    /// model said of it, is told by its kind alone.
    pub fn reason(&self) -> &str {
        match (self.stage, self.code) {
            (Stage::Route, Code::BadRequest) => "a header of the request, or its payload, cannot be understood",
            (Stage::Route, Code::ResourceDoesNotExist) => "the request names an endpoint or a route that there is not",
            (Stage::Route, Code::ConditionFailed) => "a condition cannot be evaluated on the request",
            (Stage::Invoke, Code::BadRequest) => "the model refuses the payload",
            (Stage::Invoke, Code::UnsupportedMediaType) => "the model does not read this content type",
            (Stage::Invoke, Code::PayloadTooLarge) => "the payload or the answer is too large",
            // The words of a model, or of its server, come after a colon.
            (Stage::Invoke, Code::ModelError | Code::DeadlineExceeded | Code::TemporarilyUnavailable) => {
                let is_of_model = self.message.starts_with("the model");
                let end = self.message.find(": ").or_else(|| self.message.find('\n')).filter(|_| is_of_model);
                &self.message[..end.unwrap_or(self.message.len())]
            }
            _ => &self.message,
        }
    }

    /// Serialises the fault as JSON: `{"error_code", "message", "retryable", "stage", "correlation_id"}`.
    pub fn body(&self, correlation_id: &str) -> Bytes {
        let body = FaultBody {
            error_code: self.code.name(),
            message: &self.message,
            retryable: self.retryable,
            stage: self.stage,
            correlation_id,
        };
        // Strings and booleans always serialise.
        serde_json::to_vec(&body).map(Bytes::from).unwrap_or_default()
    }
}

/// Cuts a message that is too long, so that it ends in an ellipsis.
fn cut(mut message: String) -> String {
    const ELLIPSIS: char = '…';
    if message.len() > Fault::LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(Fault::LONGEST_MESSAGE - ELLIPSIS.len_utf8()));
        message.push(ELLIPSIS);
    }
    message
}

impl Code {
    /// Lists all codes.
    pub const ALL: [Self; 13] = [
        Self::BadRequest,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::ResourceDoesNotExist,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::ConditionFailed,
        Self::ResourceExhausted,
        Self::Cancelled,
        Self::InternalError,
        Self::ModelError,
        Self::TemporarilyUnavailable,
        Self::DeadlineExceeded,
    ];

    /// Returns the HTTP status.
    pub fn status(self) -> u16 {
        self.row().0
    }

    /// Returns the `error_code` of the wire contract.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "BAD_REQUEST"),
            Self::Unauthenticated => (401, "UNAUTHENTICATED"),
            Self::PermissionDenied => (403, "PERMISSION_DENIED"),
            Self::ResourceDoesNotExist => (404, "RESOURCE_DOES_NOT_EXIST"),
            Self::PayloadTooLarge => (413, "PAYLOAD_TOO_LARGE"),
            Self::UnsupportedMediaType => (415, "UNSUPPORTED_MEDIA_TYPE"),
            Self::ConditionFailed => (422, "CONDITION_FAILED"),
            Self::ResourceExhausted => (429, "RESOURCE_EXHAUSTED"),
            Self::Cancelled => (499, "CANCELLED"),
            Self::InternalError => (500, "INTERNAL_ERROR"),
            Self::ModelError => (502, "MODEL_ERROR"),
            Self::TemporarilyUnavailable => (503, "TEMPORARILY_UNAVAILABLE"),
            Self::DeadlineExceeded => (504, "DEADLINE_EXCEEDED"),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Stage {
    /// Returns the stage's word of the wire contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Load => "load",
            Self::Invoke => "invoke",
            Self::Publish => "publish",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_cut_between_characters_when_too_long() {
        for message in ["é".repeat(Fault::LONGEST_MESSAGE), "a".repeat(Fault::LONGEST_MESSAGE + 1)] {
            let fault = Fault::permanent(Code::BadRequest, Stage::Route, message.clone());
            let length = fault.message.len();
            assert!((Fault::LONGEST_MESSAGE - 2..=Fault::LONGEST_MESSAGE).contains(&length), "{length}");
            assert!(fault.message.strip_suffix('…').is_some_and(|start| message.starts_with(start)));
        }
        let message = "a".repeat(Fault::LONGEST_MESSAGE);
        assert_eq!(Fault::passing(Code::BadRequest, Stage::Route, message.clone()).message, message);
    }

    #[test]
    fn reason_repeats_nothing_of_request() {
        let reason = |code, stage, message: &str| Fault::permanent(code, stage, message).reason().to_owned();
        for (code, message) in [
            (Code::ModelError, "the model raised ValueError: secret"),
            (Code::ModelError, "the model's server failed (it answered 500): secret"),
            (Code::TemporarilyUnavailable, "the model is busy (it answered 503): secret"),
            (Code::BadRequest, "secret"),
        ] {
            assert!(!reason(code, Stage::Invoke, message).contains("secret"), "{message}");
        }
        assert_eq!(
            reason(Code::ModelError, Stage::Invoke, "the model raised ValueError: x"),
            "the model raised ValueError"
        );
        assert!(!reason(Code::ConditionFailed, Stage::Route, "KeyError: 'secret'").contains("secret"));
        let ours = "models:/m/3 did not answer: too late";
        assert_eq!(reason(Code::DeadlineExceeded, Stage::Invoke, ours), ours);
    }

    #[test]
    fn body_has_error_shape_of_mlflow_and_more() {
        let fault = Fault::passing(Code::DeadlineExceeded, Stage::Invoke, "no answer \"in time\"");
        let body: serde_json::Value = serde_json::from_slice(&fault.body("order-1")).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "error_code": "DEADLINE_EXCEEDED",
                "message": "no answer \"in time\"",
                "retryable": true,
                "stage": "invoke",
                "correlation_id": "order-1",
            })
        );
    }
}
