//! Metrics of one call, counted however the call ends, also when its caller hangs up and nothing more of it runs.

use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;

use super::endpoints::BoundEndpoint;
use crate::telemetry::Metrics;

/// Status label of a call whose caller hung up, after nginx.
const HUNG_UP: &str = "499";

/// Counts one call, and measures its duration, when it is dropped.
pub(super) struct CallMetrics {
    endpoint: Arc<BoundEndpoint>,
    metrics: Metrics,
    started: Instant,
    status: Option<StatusCode>,
}

impl CallMetrics {
    pub(super) fn start(endpoint: Arc<BoundEndpoint>, metrics: Metrics) -> Self {
        Self { endpoint, metrics, started: Instant::now(), status: None }
    }

    pub(super) fn finish(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for CallMetrics {
    fn drop(&mut self) {
        let status = self.status.as_ref().map_or(HUNG_UP, StatusCode::as_str);
        match status {
            "200" => self.endpoint.answered.inc(),
            _ => self.metrics.shim_requests.with_label_values(&[self.endpoint.name.as_str(), status]).inc(),
        }
        self.endpoint.duration.observe(self.started.elapsed().as_secs_f64());
    }
}
