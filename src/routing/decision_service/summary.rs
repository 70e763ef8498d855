//! The summary of a request for the decision service: JSON of a bounded size, with the same bytes for requests that the
//! service cannot tell apart.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use reqwest::Url;
use serde::Serialize;

use super::{DecisionError, failed};
use crate::config;
use crate::message::Request;
use crate::routing::condition::{ConditionProblem, ConditionsBuilder, Evaluation, ExpressionId};
use crate::routing::table::Endpoint;

/// Longest value of a header or an expression, as JSON, in bytes; with a longer one the service is not asked.
const MAX_VALUE: usize = 1 << 10;
/// Longest summary, in bytes; with a longer one the service is not asked.
const MAX_SUMMARY: usize = 16 << 10;

/// Headers and expressions that go into the summary of an endpoint's requests.
#[derive(Debug)]
pub(in crate::routing) struct DecisionInput {
    /// Address of the service, without what a URL may hold of secrets.
    pub(in crate::routing) service: String,
    headers: Vec<String>,
    values: Vec<(String, ExpressionId)>,
}

impl DecisionInput {
    /// Compiles the expressions with the conditions of the endpoint.
    pub(in crate::routing) fn build(
        decision: &config::Decision,
        conditions: &mut ConditionsBuilder,
        mut refuse: impl FnMut(String, ConditionProblem),
    ) -> Self {
        let mut values = Vec::with_capacity(decision.values.len());
        for (name, source) in &decision.values {
            match conditions.add_expression(source) {
                Ok(expression) => values.push((name.clone(), expression)),
                Err(problem) => refuse(format!("decision.values.{name}"), problem),
            }
        }
        let service = Url::parse(&decision.url).map(|url| url.origin().ascii_serialization());
        Self { service: service.unwrap_or_default(), headers: decision.headers.clone(), values }
    }
}

impl Endpoint {
    /// Writes the summary of a request. A missing header is left out; a value that cannot be had is null.
    ///
    /// # Errors
    /// Fails when the summary would be too long.
    pub(in crate::routing) fn summary(&self, request: &Arc<Request>) -> Result<Bytes, DecisionError> {
        let Some(decision_input) = &self.decision_input else {
            return Err(failed("the endpoint has no outside decision"));
        };
        let evaluation = self.conditions.evaluation(request, None);
        let mut summary = SummaryWriter { json: BoundedBuffer::new(MAX_SUMMARY) };
        summary.text("{\"input\":{\"endpoint\":")?;
        summary.bounded(&*self.name, || "the endpoint's name".to_owned())?;
        summary.text(",\"headers\":{")?;
        let mut separator = "";
        for name in &decision_input.headers {
            let value = request.headers.get_ignoring_case(name).and_then(|value| std::str::from_utf8(value).ok());
            let Some(value) = value else { continue };
            summary.entry(separator, name, value, || format!("header '{name}'"))?;
            separator = ",";
        }
        summary.text("},\"values\":{")?;
        let mut separator = "";
        for (name, expression) in &decision_input.values {
            summary.value(separator, name, &evaluation, *expression)?;
            separator = ",";
        }
        summary.text("}}}")?;
        Ok(summary.json.bytes.into())
    }
}

struct SummaryWriter {
    json: BoundedBuffer,
}

impl SummaryWriter {
    fn value(
        &mut self,
        separator: &str,
        name: &str,
        evaluation: &Evaluation,
        expression: ExpressionId,
    ) -> Result<(), DecisionError> {
        // A value that fails, or that JSON cannot hold, is null.
        let value = evaluation.value(expression).ok();
        self.entry(separator, name, &value, || format!("the value '{name}'"))
    }

    fn entry<T: Serialize + ?Sized>(
        &mut self,
        separator: &str,
        name: &str,
        value: &T,
        what: impl Fn() -> String,
    ) -> Result<(), DecisionError> {
        self.text(separator)?;
        self.bounded(name, &what)?;
        self.text(":")?;
        self.bounded(value, what)
    }

    fn bounded<T: Serialize + ?Sized>(&mut self, value: &T, what: impl Fn() -> String) -> Result<(), DecisionError> {
        let mut written = BoundedBuffer::new(MAX_VALUE);
        match serde_json::to_writer(&mut written, value) {
            Ok(()) => self.raw(&written.bytes),
            Err(_) if written.is_exceeded => {
                Err(failed(format!("{} is longer than {MAX_VALUE} bytes as JSON, so it was not asked", what())))
            }
            Err(_) => self.text("null"),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), DecisionError> {
        self.raw(text.as_bytes())
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), DecisionError> {
        let too_long = |_| failed(format!("the summary is longer than {} KiB, so it was not asked", MAX_SUMMARY >> 10));
        self.json.write_all(bytes).map_err(too_long)
    }
}

/// A buffer of bounded size, so that JSON which is too long is not written out first.
struct BoundedBuffer {
    bytes: Vec<u8>,
    limit: usize,
    is_exceeded: bool,
}

impl BoundedBuffer {
    fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, is_exceeded: false }
    }
}

impl Write for BoundedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            self.is_exceeded = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
