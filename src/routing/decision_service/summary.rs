//! The summary of a request for the decision service: JSON of a bounded size, with the same bytes for requests that the
//! service cannot tell apart.

use std::io::Cursor;

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
    pub(in crate::routing) fn summary(
        &self,
        request: &Request,
        evaluation: &Evaluation,
    ) -> Result<Bytes, DecisionError> {
        let Some(decision_input) = &self.decision_input else {
            return Err(failed("the endpoint has no outside decision"));
        };
        let headers = decision_input.headers.iter().filter_map(|name| {
            let value = request.headers.get_ignoring_case(name).and_then(|value| std::str::from_utf8(value).ok())?;
            Some(entry(name, value, || format!("header '{name}'")))
        });
        // A value that fails, or that JSON cannot hold, is null.
        let values = decision_input.values.iter().map(|(name, expression)| {
            entry(name, &evaluation.value(*expression).ok(), || format!("the value '{name}'"))
        });
        let summary = format!(
            r#"{{"input":{{"endpoint":{},"headers":{{{}}},"values":{{{}}}}}}}"#,
            bounded(&*self.name, || "the endpoint's name".to_owned())?,
            headers.collect::<Result<Vec<_>, _>>()?.join(","),
            values.collect::<Result<Vec<_>, _>>()?.join(",")
        );
        if summary.len() > MAX_SUMMARY {
            return Err(failed(format!("the summary is longer than {} KiB, so it was not asked", MAX_SUMMARY >> 10)));
        }
        Ok(summary.into())
    }
}

fn entry<T: Serialize + ?Sized>(name: &str, value: &T, what: impl Fn() -> String) -> Result<String, DecisionError> {
    Ok(format!("{}:{}", bounded(name, &what)?, bounded(value, what)?))
}

/// Writes a value as JSON of a bounded size, so that JSON which is too long is not written out first.
fn bounded<T: Serialize + ?Sized>(value: &T, what: impl Fn() -> String) -> Result<String, DecisionError> {
    let mut json = Cursor::new([0; MAX_VALUE]);
    match serde_json::to_writer(&mut json, value) {
        Ok(()) => {
            let length = json.position() as usize;
            Ok(String::from_utf8_lossy(&json.get_ref()[..length]).into_owned())
        }
        Err(error) if error.is_io() => {
            Err(failed(format!("{} is longer than {MAX_VALUE} bytes as JSON, so it was not asked", what())))
        }
        Err(_) => Ok("null".to_owned()),
    }
}
