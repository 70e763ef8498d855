//! `tests`: requests and the routes they must take, which `signalbox check` tries.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A request, and what must become of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTest {
    /// What it is about.
    pub name: Option<String>,
    /// The endpoint that is called. Default: the only one.
    pub endpoint: Option<String>,
    /// The request's headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The record's key.
    pub key: Option<String>,
    /// The payload: a text as it stands, anything else as JSON.
    pub body: Option<serde_json::Value>,
    /// The alias of the route that must be taken.
    pub route: Option<String>,
    /// The code of the fault that the request must get instead, such as `CONDITION_FAILED`.
    pub fault: Option<String>,
}
