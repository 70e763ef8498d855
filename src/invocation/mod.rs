//! Calling a model: one request, or later a batch of them, and what its answer means.

mod answer;
pub mod batch_size;
pub mod body;
pub mod breaker;
mod exceptions;
mod http;
mod looks;
pub mod retry;
pub mod suspicion;
mod traceback;
pub mod trust;

use std::time::Duration;

use bytes::Bytes;

pub(crate) use answer::{Meaning, meaning_of};
pub(crate) use exceptions::ExceptionLog;
pub use http::{Concern, HttpBackend, http_client};
pub(crate) use http::{LARGEST_REPLY, in_words, root_cause, too_large};
pub use traceback::exception_of;

use crate::message::{Fault, Headers, Reply};

/// One call of a model.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// The media type of the payload.
    pub content_type: &'a str,
    /// An MLflow scoring payload, passed on byte for byte.
    pub payload: Bytes,
    /// The request's headers. Those of the wire contract that are carried (`traceparent`, `tracestate`, `x-*`) go with
    /// the call.
    pub headers: &'a Headers,
    /// How long the answer is waited for.
    pub timeout: Duration,
}

/// Requests whose rows are in one call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Several<'a> {
    /// The rows of each, in their order; none where the call is for one.
    pub rows: &'a [usize],
    /// How long what answers may look for those that it refuses.
    pub patience: Duration,
}

/// What requests are answered that are in one call.
#[derive(Debug, Clone)]
pub struct Answers {
    /// As if those that were refused had not been there.
    pub reply: Reply,
    /// The numbers of the refused, in their order: never all.
    pub refused: Vec<usize>,
    /// What the first of the refused were answered alone, in their order. The others are to be called.
    pub told: Vec<Result<Reply, Fault>>,
}

impl From<Reply> for Answers {
    fn from(reply: Reply) -> Self {
        Self { reply, refused: Vec::new(), told: Vec::new() }
    }
}

/// Why a call got no prediction.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What the caller is told.
    pub fault: Fault,
    /// Whether there was no connection, or it broke. Its server may be gone.
    pub disconnected: bool,
}

/// What `builtin:noop` answers.
pub fn noop() -> Reply {
    Reply { content_type: "application/json".to_owned(), body: Bytes::from_static(br#"{"predictions": []}"#) }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { fault, disconnected: false }
    }
}
