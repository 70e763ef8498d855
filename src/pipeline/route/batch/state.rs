//! The state that a batcher shares with its calls, which go on when the batcher is gone.

use std::sync::Arc;

use parking_lot::Mutex;

use super::queue::BatchQueue;
use crate::pipeline::route::load::RouteLoad;
use crate::pipeline::route::queue::ServiceTimes;
use crate::telemetry::{BatchMetrics, RouteMetrics};

/// Queue and measurements of the requests of one route that are joined.
#[derive(Debug)]
pub(super) struct BatchState {
    /// Queue, locked for the moment that it takes to enter or to leave, never over a call.
    pub(super) queue: Mutex<BatchQueue>,
    /// Durations of the latest calls that were answered or late, batches and single ones alike.
    pub(super) service_times: ServiceTimes,
    pub(super) route: BatchedRoute,
}

/// The parts of a route that batches use.
#[derive(Debug)]
pub(in crate::pipeline) struct BatchedRoute {
    /// Model URI, as configured, for the log.
    pub(in crate::pipeline) model_uri: Arc<str>,
    /// Bytes of the largest answer to one request.
    pub(in crate::pipeline) largest_answer: usize,
    pub(in crate::pipeline) load: Arc<RouteLoad>,
    pub(in crate::pipeline) metrics: Arc<RouteMetrics>,
    pub(in crate::pipeline) batch_metrics: BatchMetrics,
}
