//! One call of a model: its payload and limits, and its replies or failure.

use std::time::Duration;

use bytes::Bytes;

use crate::message::{Fault, Headers, Reply};

/// Describes one call of a model.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// Media type of the payload.
    pub content_type: &'a str,
    /// MLflow scoring payload, passed on byte for byte.
    pub payload: Bytes,
    /// Headers of the request. Those of the wire contract that are carried (`traceparent`, `tracestate`, `x-*`) go with the
    /// call.
    pub headers: &'a Headers,
    /// Time for which the answer is waited for.
    pub timeout: Duration,
}

/// Describes the requests whose rows are in one call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Several<'a> {
    /// Number of rows of each request, in their order; empty where the call is for one request, or bad rows are not
    /// asked for.
    pub rows: &'a [usize],
    /// Time for which the host may search for the requests that it refuses.
    pub patience: Duration,
}

/// Holds the answers to the requests of one call.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Reply as if the refused requests had not been there.
    pub reply: Reply,
    /// Numbers of the refused requests, in their order: never all. Each of them is still to be called alone.
    pub refused: Vec<usize>,
}

impl From<Reply> for Answers {
    fn from(reply: Reply) -> Self {
        Self { reply, refused: Vec::new() }
    }
}

/// Tells why a call got no prediction.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Fault for the caller.
    pub fault: Fault,
    /// Tells whether there was no connection, or it broke. The server may be gone.
    pub disconnected: bool,
}

/// Answers for `builtin:noop`.
pub fn noop() -> Reply {
    Reply { content_type: "application/json".to_owned(), body: Bytes::from_static(br#"{"predictions": []}"#) }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { fault, disconnected: false }
    }
}
