//! Copies of requests for other routes, whose answers nobody waits for.
//!
//! A copy leaves when its request has been answered. It shares the request's memory, of which copies hold a bounded
//! part; where there is no room it is dropped at once. It does not hold up the request's offset, nor shutdown.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::route::call::call;
use super::dispatch::{Chosen, Progress};
use super::snapshot::Snapshot;
use crate::message::{Code, Fault, Outcome, Reply, Request, ServedBy, Stage};
use crate::replies::{Primary, ShadowAnswer, ShadowPublisher};
use crate::routing::Endpoint;
use crate::telemetry::{Metrics, ShadowMetrics};

/// Copies of one route's requests that are under way, at most.
const MAX_COPIES: usize = 64;
/// The bytes of their requests, and of the answers they are compared with, at most.
const MAX_BYTES: usize = 64 << 20;
/// How long shutdown waits for copies that are under way, and then for their records.
const GRACE: Duration = Duration::from_secs(1);

/// All copies. Cheap to clone.
#[derive(Clone)]
pub struct Shadows {
    publisher: Arc<ShadowPublisher>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// The shadow of a route.
#[derive(Debug)]
pub(super) struct Shadow {
    /// The index of the route that the copies go to.
    route: usize,
    copies: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    metrics: Arc<ShadowMetrics>,
}

/// A copy for which there is room.
pub(super) struct Copy {
    snapshot: Arc<Snapshot>,
    endpoint: usize,
    route: usize,
    request: Arc<Request>,
    primary: Primary,
    metrics: Arc<ShadowMetrics>,
    _room: [OwnedSemaphorePermit; 2],
}

impl Shadow {
    /// Copies go to the route with this alias and index.
    pub(super) fn new(endpoint: &str, alias: &str, route: usize, metrics: &Metrics) -> Self {
        Self {
            route,
            copies: Arc::new(Semaphore::new(MAX_COPIES)),
            bytes: Arc::new(Semaphore::new(MAX_BYTES)),
            metrics: Arc::new(metrics.shadow(endpoint, alias)),
        }
    }

    /// Room for a copy of so many bytes; when there is none, that is counted.
    fn room(&self, bytes: usize) -> Option<[OwnedSemaphorePermit; 2]> {
        let copy = Arc::clone(&self.copies).try_acquire_owned().ok();
        let bytes = u32::try_from(bytes).ok();
        let bytes = bytes.and_then(|bytes| Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok());
        let room = copy.zip(bytes).map(|(copy, bytes)| [copy, bytes]);
        if room.is_none() {
            self.metrics.dropped.inc();
        }
        room
    }
}

impl Snapshot {
    /// A copy of a request that has been answered, if its route has a shadow, and if there is room for it.
    pub(super) fn copy(
        self: &Arc<Self>,
        request: &Arc<Request>,
        progress: &Progress,
        result: &Result<Reply, Fault>,
    ) -> Option<Copy> {
        let Chosen { endpoint, route } = progress.chosen?;
        let shadow = self.targets_at(endpoint).get(route)?.shadow.as_ref()?;
        let answer = result.as_ref().map_or(0, |reply| reply.body.len());
        let room = shadow.room(request.size() + answer)?;
        let (route, took) = (progress.served_by.route.clone(), progress.took);
        Some(Copy {
            snapshot: Arc::clone(self),
            endpoint,
            route: shadow.route,
            request: Arc::clone(request),
            primary: Primary { route, took, result: result.clone() },
            metrics: Arc::clone(&shadow.metrics),
            _room: room,
        })
    }
}

impl Shadows {
    /// No copies yet; their answers go to that publisher.
    pub fn new(publisher: ShadowPublisher) -> Self {
        Self { publisher: Arc::new(publisher), tasks: TaskTracker::new(), stopping: CancellationToken::new() }
    }

    /// Sends a copy off.
    pub(super) fn send(&self, copy: Copy) {
        let (publisher, stopping) = (Arc::clone(&self.publisher), self.stopping.clone());
        self.tasks.spawn(async move {
            match stopping.run_until_cancelled(copy.answer()).await.flatten() {
                Some(answer) => publisher.publish(&copy.request, &copy.primary, &answer, Arc::clone(&copy.metrics)),
                None => copy.metrics.dropped.inc(),
            }
        });
    }

    /// Waits a moment for the copies that are under way, and drops those that are not answered by then.
    pub async fn shutdown(&self) {
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::info!(left = self.tasks.len(), "copies for shadow routes are dropped");
            self.stopping.cancel();
            self.tasks.wait().await;
        }
        let publisher = Arc::clone(&self.publisher);
        let _ = spawn_blocking(move || publisher.flush(GRACE)).await;
    }
}

impl Copy {
    /// What the shadow route says. None when its model was so busy with others that there was no place for this call.
    async fn answer(&self) -> Option<ShadowAnswer> {
        let endpoint = self.snapshot.table.at(self.endpoint)?;
        let (route, payload) = (endpoint.routes.get(self.route)?, self.request.payload.clone()?);
        let mut answer = ShadowAnswer {
            outcome: Outcome {
                served_by: ServedBy {
                    endpoint: Some(Arc::clone(&endpoint.name)),
                    route: Some(Arc::clone(&route.alias)),
                    model_uri: Some(Arc::clone(&route.model_uri)),
                    ..ServedBy::default()
                },
                result: Err(unanswered(endpoint)),
            },
            took: None,
        };
        answer.outcome.result = match self.ask(endpoint, payload, &mut answer).await {
            Err(fault) if answer.took.is_none() && fault.code == Code::DeadlineExceeded => return None,
            result => result,
        };
        Some(answer)
    }

    async fn ask(&self, endpoint: &Endpoint, payload: Bytes, answer: &mut ShadowAnswer) -> Result<Reply, Fault> {
        let target = &self.snapshot.targets(endpoint)[self.route];
        let lease = target.model.spare_lease(Some(Instant::now() + endpoint.timeout)).await?;
        let served_by = &mut answer.outcome.served_by;
        served_by.model_version = Some(Arc::clone(lease.version()));
        served_by.attempts = 1;
        self.metrics.sent.inc();
        let begun = Instant::now();
        let called =
            call(lease, Arc::clone(&self.request), payload, target.largest_answer, endpoint.timeout, None).await;
        answer.took = Some(begun.elapsed());
        target.metrics.invocation_duration.observe(begun.elapsed().as_secs_f64());
        let answer = called.map(|answer| answer.and_then(|reply| target.within_limit(reply)));
        answer.map_or_else(|| Err(unanswered(endpoint)), |answer| answer.map_err(|failure| failure.fault))
    }
}

fn unanswered(endpoint: &Endpoint) -> Fault {
    let message = format!("the shadow route of endpoint `{}` did not answer", endpoint.name);
    Fault::passing(Code::DeadlineExceeded, Stage::Invoke, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_bounded_by_count_and_by_bytes() {
        let shadow = Shadow::new("e", "candidate", 1, &Metrics::new().unwrap());
        let rooms: Vec<_> = (0..MAX_COPIES).map_while(|_| shadow.room(1)).collect();
        assert_eq!(rooms.len(), MAX_COPIES);
        assert!(shadow.room(1).is_none());
        drop(rooms);
        let large = shadow.room(MAX_BYTES).unwrap();
        assert!(shadow.room(1).is_none());
        drop(large);
        assert!(shadow.room(MAX_BYTES + 1).is_none());
        assert_eq!(shadow.copies.available_permits(), MAX_COPIES);
    }
}
