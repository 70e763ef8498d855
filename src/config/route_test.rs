//! The section `tests`: requests and the routes they must take, which `signalbox check` tries.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{HeadersBuilder, Request, Source, header};

/// A request, and the route or fault in which its decision must end.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteTest {
    /// Name of the test, for reports.
    pub name: Option<String>,
    /// Endpoint that is called. Default: the only one.
    pub endpoint: Option<String>,
    /// Headers of the request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Key of the record.
    pub key: Option<String>,
    /// Payload: a text as it stands, anything else as JSON.
    pub body: Option<serde_json::Value>,
    /// Alias of the route that must be taken.
    pub route: Option<String>,
    /// Code of the fault that the request must get instead, such as `CONDITION_FAILED`.
    pub fault: Option<String>,
}

impl RouteTest {
    /// Makes the request, as it would be read from Kafka.
    pub fn request(&self) -> Request {
        let mut headers = HeadersBuilder::default();
        if let Some(endpoint) = &self.endpoint {
            headers.push(header::ENDPOINT, Some(endpoint.as_bytes()));
        }
        for (name, value) in &self.headers {
            headers.push(name, Some(value.as_bytes()));
        }
        let body = self.body.as_ref().map(|body| match body {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        Request {
            source: Source { topic: "signalbox-test".into(), partition: 0, offset: 0 },
            timestamp: None,
            key: self.key.clone().map(Into::into),
            payload: body.map(Into::into),
            headers: headers.finish(),
            parked: None,
        }
    }
}
