//! Shadow traffic: copies of requests for other routes, whose answers no caller waits for.
//!
//! A copy leaves when its request has been answered. The copy shares the request's memory, of which copies hold a bounded
//! part; where there is no room it is dropped at once. A copy does not hold up the request's offset, nor shutdown.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::route::call::call_until_deadline;
use super::snapshot::Snapshot;
use super::trace::{ChosenRoute, RequestTrace};
use crate::message::{Code, Deadline, Fault, Outcome, Reply, Request, ServedBy, Stage};
use crate::replies::{PrimaryAnswer, ShadowAnswer, ShadowPublisher};
use crate::routing::Endpoint;
use crate::telemetry::ShadowMetrics;

/// Time in seconds that shutdown waits for copies that are under way, and then for their records; later ones are lost.
const GRACE: Duration = Duration::from_secs(1);

/// Sends copies of requests to shadow routes. Cheap to clone.
#[derive(Clone)]
pub struct ShadowSender {
    publisher: Arc<ShadowPublisher>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// Copies a request for which there was room.
pub(super) struct ShadowCopy {
    snapshot: Arc<Snapshot>,
    endpoint: usize,
    route: usize,
    request: Arc<Request>,
    primary: PrimaryAnswer,
    metrics: Arc<ShadowMetrics>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl ShadowSender {
    /// Publishes the answers of shadow routes with this publisher.
    pub fn new(publisher: ShadowPublisher) -> Self {
        Self { publisher: Arc::new(publisher), tasks: TaskTracker::new(), stopping: CancellationToken::new() }
    }

    /// Sends a copy in a task of its own.
    pub(super) fn send(&self, copy: ShadowCopy) {
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

impl ShadowCopy {
    /// Copies a request that has been answered, if its route has a shadow, and if there is room for the copy.
    pub(super) fn of(
        snapshot: &Arc<Snapshot>,
        request: &Arc<Request>,
        trace: &RequestTrace,
        result: &Result<Reply, Fault>,
    ) -> Option<Self> {
        let ChosenRoute { endpoint, route } = trace.chosen?;
        let shadow = snapshot.routes(snapshot.table.at(endpoint)?).get(route)?.shadow.as_ref()?;
        let answer = result.as_ref().map_or(0, |reply| reply.body.len());
        let permits = shadow.reserve(request.size() + answer)?;
        let (route, took) = (trace.served_by.route.clone(), trace.took);
        Some(Self {
            snapshot: Arc::clone(snapshot),
            endpoint,
            route: shadow.route,
            request: Arc::clone(request),
            primary: PrimaryAnswer { route, took, result: result.clone() },
            metrics: Arc::clone(&shadow.metrics),
            _permits: permits,
        })
    }

    /// Has the shadow route answer; none when its model was so busy with others that there was no place for this call.
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
                result: Err(timed_out(endpoint)),
            },
            took: None,
        };
        answer.outcome.result = match self.call(endpoint, payload, &mut answer).await {
            Err(fault) if answer.took.is_none() && fault.code == Code::DeadlineExceeded => return None,
            result => result,
        };
        Some(answer)
    }

    async fn call(&self, endpoint: &Endpoint, payload: Bytes, answer: &mut ShadowAnswer) -> Result<Reply, Fault> {
        let route = &self.snapshot.routes(endpoint)[self.route];
        let lease = route.model.spare_lease(Deadline::NONE.within(endpoint.timeout)).await?;
        let served_by = &mut answer.outcome.served_by;
        served_by.model_version = Some(Arc::clone(lease.version()));
        served_by.attempts = 1;
        self.metrics.sent.inc();
        let (request, largest) = (Arc::clone(&self.request), route.largest_answer);
        let begun = Instant::now();
        let called = call_until_deadline(lease, request, payload, largest, endpoint.timeout, Deadline::NONE).await;
        answer.took = Some(begun.elapsed());
        route.metrics.invocation_duration.observe(begun.elapsed().as_secs_f64());
        let answer = called.map(|answer| answer.and_then(|reply| route.within_limit(reply)));
        answer.map_or_else(|| Err(timed_out(endpoint)), |answer| answer.map_err(|failure| failure.fault))
    }
}

fn timed_out(endpoint: &Endpoint) -> Fault {
    let message = format!("the shadow route of endpoint `{}` did not answer", endpoint.name);
    Fault::passing(Code::DeadlineExceeded, Stage::Invoke, message)
}
