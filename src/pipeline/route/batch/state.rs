//! The state that a route's batcher shares with its batch calls under way.

use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Duration;

use super::queue::BatchQueue;
use super::ticket::SingleCall;
use crate::message::Reply;
use crate::models::CallFailure;
use crate::pipeline::route::load::RouteLoad;
use crate::telemetry::{BatchMetrics, RouteMetrics};

/// Hands a batcher the part of its route that batch calls use.
#[derive(Debug)]
pub(in crate::pipeline) struct BatchedRoute {
    /// Model URI, as configured, for the log.
    pub(in crate::pipeline) model_uri: Arc<str>,
    pub(in crate::pipeline) load: Arc<RouteLoad>,
    pub(in crate::pipeline) metrics: Arc<RouteMetrics>,
    pub(in crate::pipeline) batch_metrics: BatchMetrics,
    /// Bytes of the largest answer to one request.
    pub(in crate::pipeline) largest_answer: usize,
}

/// Shares the queue of waiting requests and the measurements of their calls.
#[derive(Debug)]
pub(super) struct BatchState {
    /// Queue, locked for the moment that it takes to enter or to leave, never over a call.
    queue: Mutex<BatchQueue>,
    pub(super) route: BatchedRoute,
}

impl BatchState {
    pub(super) fn new(queue: BatchQueue, route: BatchedRoute) -> Self {
        Self { queue: Mutex::new(queue), route }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, BatchQueue> {
        self.queue.lock()
    }

    /// Learns from a call for one request, which is described if the batcher has read it.
    pub(super) fn record_single_call(
        &self,
        single: Option<&SingleCall>,
        result: &Result<Reply, CallFailure>,
        took: Duration,
    ) {
        let is_refused = match result {
            Ok(_) => false,
            Err(failure) if failure.fault.retryable => return,
            Err(_) => true,
        };
        let mut queue = self.queue();
        if !is_refused {
            queue.record_duration(single.map(|single| single.rows), took);
        }
        if let Some(single) = single {
            queue.record_single_call(single, is_refused);
        }
    }
}
