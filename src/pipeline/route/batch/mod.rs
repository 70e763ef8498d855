//! Dynamic batching: requests of one route that wait for its model at the same time are called together. A request that
//! gets a lease takes along those that can be joined with it; a request that finds the model free goes at once, and
//! alone.

mod call;
mod queue;
mod state;
mod ticket;

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::poll;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::clock::now;
use super::queue::ServiceTimes;
use crate::config;
use crate::intake::ExpectedAnswers;
use crate::invocation::body::Payload;
use crate::message::{Deadline, Fault, Reply, Request, Step};
use crate::models::{CallFailure, Lease, ModelHandle};
use crate::pipeline::headroom::Headroom;
use call::BatchCall;
use queue::{BatchQueue, BatchWaiter, Taken};
use state::BatchState;
pub(super) use state::BatchedRoute;
use ticket::SingleCall;
pub(in crate::pipeline) use ticket::{BatchTicket, ModelAccess};

/// Joins the requests of one route that wait for its model.
#[derive(Debug)]
pub(in crate::pipeline) struct Batcher {
    settings: config::Batch,
    /// Tells whether the route says of its model that it answers each row as if the row were alone.
    vouches: bool,
    /// Notifies those who wait for companions whenever a request has entered.
    entered: Notify,
    state: Arc<BatchState>,
}

/// Holds a request's position in the queue, until its turn comes or it goes away.
struct BatchPosition<'a> {
    batcher: &'a Batcher,
    number: u64,
    ticket: oneshot::Receiver<BatchTicket>,
}

impl Batcher {
    /// Makes a batcher without requests. `vouches` tells whether the route says of its model that it answers each row
    /// as if the row were alone, and `isolates_bad_rows` whether the model's host tells which requests of a call it
    /// refuses.
    pub(super) fn new(settings: config::Batch, vouches: bool, isolates_bad_rows: bool, route: BatchedRoute) -> Self {
        let queue = BatchQueue::new(settings.max_rows, settings.target_latency, isolates_bad_rows);
        let state = Arc::new(BatchState { queue: Mutex::new(queue), service_times: ServiceTimes::default(), route });
        Self { settings, vouches, entered: Notify::new(), state }
    }

    /// Tells whether the requests for this model are known not to go together.
    pub(in crate::pipeline) fn is_off_for(&self, model: &ModelHandle) -> bool {
        model.is_called_singly(self.vouches)
    }

    /// Counts a request that is called singly since its model always is.
    pub(in crate::pipeline) fn count_single_for_model(&self) {
        self.state.route.batch_metrics.model.inc();
    }

    /// Waits for a lease, and calls the model with all requests that can be joined by then; or waits to be taken along.
    pub(in crate::pipeline) async fn access(
        &self,
        mut leasing: Pin<&mut impl Future<Output = Result<(Lease, ExpectedAnswers), Fault>>>,
        headroom: Headroom<'_>,
        request: &Arc<Request>,
        payload: &Bytes,
        timeout: Duration,
        deadline: Deadline,
    ) -> Result<ModelAccess, Fault> {
        let single = |(lease, expected)| ModelAccess::Single(lease, expected, None);
        // A request that finds the model free goes at once, unless it is configured to wait for companions.
        if self.settings.max_wait.is_zero()
            && let Poll::Ready(lease) = poll!(leasing.as_mut())
        {
            return lease.map(single);
        }
        let begun = Instant::now();
        let Some(mut position) = self.enter(request, payload, deadline) else {
            self.state.route.batch_metrics.payload.inc();
            return leasing.await.map(single);
        };
        // From here on another request's task may take this one along at any time.
        let (lease, expected) = tokio::select! {
            biased;
            Ok(ticket) = &mut position.ticket => return Ok(ModelAccess::Batched(ticket)),
            lease = leasing => lease?,
        };
        self.wait_for_companions(&position, begun).await;
        match self.take(&position, &lease) {
            Taken::ByOther => match (&mut position.ticket).await {
                Ok(ticket) => Ok(ModelAccess::Batched(ticket)),
                Err(_) => Ok(ModelAccess::Single(lease, expected, None)),
            },
            Taken::Single(single) => Ok(ModelAccess::Single(lease, expected, Some(single))),
            Taken::Batch(group) => {
                // The batch runs in a task of its own: it goes on when the caller of this request goes away.
                let expected = headroom.expect(1 + group.others.len());
                let (batch, ticket) = BatchCall::new(*group, lease, Arc::clone(&self.state), expected, timeout);
                tokio::spawn(batch.run());
                Ok(ModelAccess::Batched(ticket))
            }
        }
    }

    /// Sheds a request with this deadline, if the waiters before it take longer than it has left, even if each call from
    /// now on is as quick as the quickest of the latest. `places` are those of its model.
    pub(super) fn sheds(&self, deadline: Deadline, places: usize) -> Option<Fault> {
        let call = self.state.service_times.quickest_at(now())?;
        let before = self.state.queue.lock().expected_wait(places, call)?;
        deadline.require(before, Step::Queueing(before)).err()
    }

    /// Learns from a call for one request, which is described if the batcher has read it.
    pub(in crate::pipeline) fn record_single_call(
        &self,
        single: Option<&SingleCall>,
        result: &Result<Reply, CallFailure>,
        took: Duration,
    ) {
        if result.as_ref().is_err_and(|failure| failure.fault.retryable) {
            return;
        }
        // A refusal is quicker than any answer, and says nothing of how long a call takes.
        if result.is_ok() {
            self.state.service_times.record_at(took, now());
        }
        let Some(single) = single else { return };
        let mut queue = self.state.queue.lock();
        if result.is_ok() {
            queue.size.record(single.rows, took);
        }
        queue.record_single_call(single, result.is_err());
    }

    /// Enters a request into the queue; none when its payload cannot be joined with any.
    fn enter(&self, request: &Arc<Request>, payload: &Bytes, deadline: Deadline) -> Option<BatchPosition<'_>> {
        let payload = Payload::read(request.content_type(), payload)?;
        let fits =
            payload.rows() < self.settings.max_rows && payload.size() < self.settings.max_bytes.as_u64() as usize;
        let (sender, ticket) = oneshot::channel();
        let waiter = BatchWaiter { payload, request: Arc::clone(request), deadline, key: None, ticket: sender };
        let number = fits.then(|| self.state.queue.lock().enter(waiter))?;
        self.entered.notify_waiters();
        Some(BatchPosition { batcher: self, number, ticket })
    }

    /// Waits for companions for as long as the settings say, unless there are enough.
    async fn wait_for_companions(&self, position: &BatchPosition<'_>, begun: Instant) {
        let until = begun + self.settings.max_wait;
        while Instant::now() < until {
            let entered = self.entered.notified();
            if self.state.queue.lock().is_complete(position.number) || timeout_at(until, entered).await.is_err() {
                break;
            }
        }
    }

    /// Takes a request out of the queue whose lease has come, and those that go with it.
    fn take(&self, position: &BatchPosition<'_>, lease: &Lease) -> Taken {
        let mode = |form| lease.row_independence().batch_mode(form, self.vouches, self.settings.verify);
        let BatchState { queue, route, .. } = &*self.state;
        let batch_metrics = &route.batch_metrics;
        let taken = queue.lock().take(position.number, lease.signature(), mode, &self.settings, batch_metrics);
        if let Taken::Single(single) = &taken {
            batch_metrics.rows.observe(single.rows as f64);
        }
        taken
    }
}

impl Drop for BatchPosition<'_> {
    fn drop(&mut self) {
        self.batcher.state.queue.lock().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Code, Headers, Source, Stage};
    use crate::pipeline::route::load::RouteLoad;
    use crate::telemetry::Metrics;

    #[test]
    fn shedding_goes_by_answers_when_refusals_are_quicker() {
        let metrics = Metrics::new().unwrap();
        let route = BatchedRoute {
            model_uri: "models:/m/1".into(),
            largest_answer: 1_000,
            load: Arc::<RouteLoad>::default(),
            metrics: Arc::new(metrics.route("e", "main")),
            batch_metrics: metrics.batch("e", "main"),
        };
        let batcher = Batcher::new(config::Batch::default(), true, false, route);
        let payload = Bytes::from_static(br#"{"dataframe_split": {"columns": ["x"], "data": [[1]]}}"#);
        let request = Arc::new(Request {
            source: Source { topic: "t".into(), partition: 0, offset: 0 },
            timestamp: None,
            key: None,
            payload: Some(payload.clone()),
            headers: Headers::default(),
            parked: None,
        });
        let waiting: Vec<_> = (0..200).map(|_| batcher.enter(&request, &payload, Deadline::NONE).unwrap()).collect();
        let soon = Deadline::NONE.within(Duration::from_secs(5));
        let fault = Fault::permanent(Code::BadRequest, Stage::Invoke, "no such column");
        let failure = CallFailure { fault, crashed: false, disconnected: false, in_company: false };
        let reply = || Reply { body: Bytes::new(), content_type: "application/json".into() };
        for _ in 0..8 {
            assert!(batcher.sheds(soon, 1).is_none(), "nothing is known yet");
            batcher.record_single_call(None, &Err(failure.clone()), Duration::from_micros(10));
            batcher.record_single_call(None, &Ok(reply()), Duration::from_secs(4));
        }
        (0..20).for_each(|_| batcher.record_single_call(None, &Err(failure.clone()), Duration::from_micros(10)));
        assert!(batcher.sheds(soon, 1).is_some());
        assert!(batcher.sheds(soon, 100).is_none() && batcher.sheds(Deadline::NONE, 1).is_none());
        drop(waiting);
        assert!(batcher.sheds(soon, 1).is_none(), "nobody waits");
    }
}
