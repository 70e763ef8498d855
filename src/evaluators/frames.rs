//! The JSON heads of the frames to an evaluator, and the answer that comes for each request.

use std::collections::VecDeque;

use bytes::BytesMut;
use serde::Serialize;

use super::evaluator::Begin;
use super::job::Job;
use super::wsgi::Environ;
use crate::models::frame::Frame;
use crate::routing::{Answers, ConditionError, Question, ResultKind, Value};

/// The head of a frame to an evaluator.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Head<'a> {
    /// Tells what expressions may use; comes first.
    Begin(&'a Begin),
    /// Tells the expressions of an endpoint.
    Learn {
        id: u64,
        /// The text of each expression, and whether its value is wanted and not only the truth of that.
        expressions: Vec<(&'a str, bool)>,
        names: &'a [(String, String)],
    },
    /// Tells that questions which were learned will not come again.
    Forget {},
    /// Asks for the answers to several requests; their keys and payloads are the body.
    Evaluate(Vec<RequestHead<'a>>),
}

/// A request in the head of a frame.
#[derive(Serialize)]
pub(super) struct RequestHead<'a> {
    question: u64,
    environ: Environ<'a>,
    /// Topic, partition, offset and timestamp.
    record: (&'a str, i32, i64, Option<i64>),
    /// The bytes of the key, and of the payload behind it.
    key: Option<usize>,
    payload: usize,
}

impl<'a> Head<'a> {
    pub(super) fn learn(question: &'a Question) -> Self {
        let wants_value = |wants| matches!(wants, ResultKind::Value);
        let expressions = question.expressions.iter().map(|it| (&*it.source, wants_value(it.wants))).collect();
        Self::Learn { id: question.id, expressions, names: &question.names }
    }

    pub(super) fn evaluate(jobs: &'a VecDeque<Job>) -> Self {
        Self::Evaluate(jobs.iter().map(RequestHead::of).collect())
    }
}

impl<'a> RequestHead<'a> {
    fn of(job: &'a Job) -> Self {
        let request = &*job.request;
        let source = &request.source;
        Self {
            question: job.question.id,
            environ: Environ::of(request),
            record: (&source.topic, source.partition, source.offset, request.timestamp),
            key: request.key.as_ref().map(bytes::Bytes::len),
            payload: request.payload.as_ref().map_or(0, bytes::Bytes::len),
        }
    }
}

/// Joins the keys and payloads of requests.
pub(super) fn body(jobs: &VecDeque<Job>) -> BytesMut {
    let mut body = BytesMut::with_capacity(jobs.iter().map(Job::size).sum());
    for job in jobs {
        body.extend_from_slice(job.request.key.as_deref().unwrap_or_default());
        body.extend_from_slice(job.request.payload.as_deref().unwrap_or_default());
    }
    body
}

/// Reads the answer for one request: the head has the error of each expression or null, and the body has the values.
/// `None` if that makes no sense.
pub(super) fn answers(frame: &Frame, question: &Question) -> Option<Answers> {
    let errors: Vec<Option<String>> = serde_json::from_slice(&frame.head).ok()?;
    let Ok(Value::List(values)) = Value::from_json(&frame.body) else { return None };
    if errors.len() != question.expressions.len() || values.len() != errors.len() {
        return None;
    }
    let answer = |(error, value): (Option<String>, &Value)| match error {
        None => Ok(value.clone()),
        Some(error) if is_excess(&error) => Err(ConditionError::exceeded(&error)),
        Some(error) => Err(ConditionError::failed(&error)),
    };
    Some(errors.into_iter().zip(values.iter()).map(answer).collect())
}

/// Tells whether an expression took more than it may, rather than met a request that it does not fit.
fn is_excess(error: &str) -> bool {
    ["MemoryError", "RecursionError"].iter().any(|name| error.starts_with(name))
}
