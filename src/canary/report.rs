//! Operators' side of a canary: the report that they read, and what they may do.

use std::sync::Arc;

use serde::Serialize;

use super::policy::CanaryState;

/// Names an intervention of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorAction {
    /// Begins again at the first step.
    Restart,
    /// Takes the share back to nothing.
    Abort,
}

/// Describes one canary for `GET /canaries`.
#[derive(Debug, Clone, Serialize)]
pub struct CanaryReport {
    /// The endpoint's name.
    pub endpoint: Arc<str>,
    /// The route's alias.
    pub route: Arc<str>,
    /// The canary's share of what no condition takes, in percent.
    pub share: f64,
    /// The canary's shares one after the other, in percent.
    pub steps: Vec<f64>,
    /// The canary's state; none until it has been read from the state topic.
    #[serde(rename = "standing")]
    pub state: Option<CanaryState>,
    /// The number of requests that this instance has seen since then.
    pub calls: u64,
    /// The number of those requests that failed.
    pub failures: u64,
    /// The 95th percentile of those requests' latencies, in milliseconds.
    pub p95_ms: f64,
    /// The 95th percentile of the routes that the canary is compared with, in milliseconds.
    pub others_p95_ms: f64,
}
