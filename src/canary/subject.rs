//! Canaries as the routing table describes them.

use std::sync::Arc;

use super::statistics::RouteStatistics;
use crate::config;
use crate::routing::CanaryShare;

/// Names a canary and holds the shared counters and the share that the watcher needs for it.
#[derive(Debug)]
pub struct CanarySubject {
    /// The endpoint's name.
    pub endpoint: Arc<str>,
    /// The route's alias.
    pub route: Arc<str>,
    /// The model URI that the route calls; another model is another canary.
    pub model_uri: Arc<str>,
    /// The steps of the share, and the conditions under which the canary is aborted.
    pub canary: config::Canary,
    /// The share that routing decisions read. It is 0 until the canary's state has been read from the state topic.
    pub share: Arc<CanaryShare>,
    /// The outcomes of the canary's own requests.
    pub own: Arc<RouteStatistics>,
    /// The outcomes of the requests of the routes that the canary is compared with.
    pub others: Vec<Arc<RouteStatistics>>,
}
