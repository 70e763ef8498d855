//! The state that a batcher shares with its calls, which go on when the batcher is gone.

use std::sync::Arc;

use parking_lot::Mutex;

use super::queue::BatchQueue;
use crate::pipeline::route::load::RouteLoad;
use crate::pipeline::route::queue::WaitQueue;
use crate::telemetry::{BatchMetrics, RouteMetrics};

/// Queue and measurements of the requests of one route that are joined.
#[derive(Debug)]
pub(super) struct BatchState {
    /// Queue, locked for the moment that it takes to enter or to leave, never over a call.
    pub(super) queue: Mutex<BatchQueue>,
    pub(super) route: BatchedRoute,
}

/// The parts of a route that batches use.
#[derive(Debug)]
pub(in crate::pipeline) struct BatchedRoute {
    pub(in crate::pipeline) model_uri: Arc<str>,
    /// Bytes of the largest answer to one request.
    pub(in crate::pipeline) largest_answer: usize,
    pub(in crate::pipeline) load: Arc<RouteLoad>,
    pub(in crate::pipeline) wait_queue: Arc<WaitQueue>,
    pub(in crate::pipeline) metrics: Arc<RouteMetrics>,
    pub(in crate::pipeline) batch_metrics: BatchMetrics,
}
