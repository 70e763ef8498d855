//! Commands to the watcher, and the report that it answers with.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::oneshot;

use super::policy::CanaryState;
use super::subject::CanarySubject;

/// Tells the watcher what to do, with a channel for its answer where there is one.
#[derive(Debug)]
pub(super) enum Command {
    Set(Vec<CanarySubject>),
    Report(oneshot::Sender<Vec<CanaryReport>>),
    /// Endpoint, route, action; the answer is false for an unknown canary.
    Act(String, String, OperatorAction, oneshot::Sender<bool>),
    Close(oneshot::Sender<()>),
}

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
