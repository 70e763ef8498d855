//! Requests of one route that wait for its model at the same time, and go together. Whoever gets a place takes along those
//! that can be joined with it; a request that finds a place free goes at once, and alone.

mod queue;
mod run;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::poll;
use std::task::Poll;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::pipeline::attempt::Alone;
use crate::pipeline::headroom::Headroom;
use super::queue::refused;
use super::Target;
use crate::config;
use crate::intake::Expected;
use crate::invocation::body::Payload;
use crate::message::{Fault, Reply, Request};
use crate::models::{CallFailure, Lease, ModelHandle};
use crate::telemetry::BatchMetrics;
use queue::{Queue, Single, Taken, Waiting};
use run::Batch;

/// The requests of one route that wait for its model.
#[derive(Debug)]
pub(in crate::pipeline) struct Batcher {
    settings: config::Batch,
    /// Whether the route says of its model that it answers each row as if it were alone.
    vouches: bool,
    /// Held for the moment that it takes to enter or to leave, never over a call.
    queue: Mutex<Queue>,
    /// Told whenever a request has entered.
    entered: Notify,
    metrics: BatchMetrics,
}

/// What a request gets when its turn has come.
pub(in crate::pipeline) enum Turn {
    /// A place of its own; and what is known of it, if somebody has looked.
    Own(Lease, Expected, Option<Single>),
    /// It has been taken along.
    Company(Company),
}

/// Somebody who has a place, and calls the model for several.
#[derive(Debug)]
pub(in crate::pipeline) struct Company {
    /// Which version of the model answers.
    pub(in crate::pipeline) version: Arc<str>,
    /// None comes when it was lost.
    pub(in crate::pipeline) answer: oneshot::Receiver<Answered>,
}

/// What became of a request that was taken along.
#[derive(Debug)]
pub(in crate::pipeline) struct Answered {
    pub(in crate::pipeline) result: Result<Reply, CallFailure>,
    /// How many calls it was part of.
    pub(in crate::pipeline) calls: u32,
    /// How long the last of them took.
    pub(in crate::pipeline) took: Duration,
    /// Whether the failure may be another's doing, so that it has to be called alone.
    pub(in crate::pipeline) in_company: bool,
}

/// A request's place in the queue, until its turn comes or it goes away.
struct Place<'a> {
    batcher: &'a Batcher,
    number: u64,
    taken: oneshot::Receiver<Company>,
}

impl Target {
    /// Waits for a turn; with whoever is there, unless it is to be alone.
    pub(in crate::pipeline) async fn turn(
        self: &Arc<Self>,
        headroom: Headroom<'_>,
        request: &Arc<Request>,
        payload: &Bytes,
        timeout: Duration,
        deadline: Option<Instant>,
        alone: Alone,
    ) -> Result<Turn, Fault> {
        let own = |(lease, expected)| Turn::Own(lease, expected, None);
        if alone == Alone::InItsProcess {
            let lease = self.line.wait(deadline, pin!(self.model.lease_alone(deadline))).await?;
            return Ok(own((lease, headroom.expect(1))));
        }
        let mut leasing = pin!(headroom.lease(&self.model, deadline));
        let Some(batcher) = self.batcher.as_ref().filter(|_| alone == Alone::No) else {
            return self.line.wait(deadline, leasing).await.map(own);
        };
        if batcher.is_off_for(&self.model) {
            if let Poll::Ready(lease) = poll!(leasing.as_mut()) {
                return lease.map(own);
            }
            batcher.metrics.model.inc();
            return self.line.wait(deadline, leasing).await.map(own);
        }
        if batcher.settings.max_wait.is_zero()
            && let Poll::Ready(lease) = poll!(leasing.as_mut())
        {
            return lease.map(own);
        }
        let begun = Instant::now();
        let Some(mut place) = batcher.enter(request, payload, deadline) else {
            batcher.metrics.payload.inc();
            return leasing.await.map(own);
        };
        let (lease, expected) = tokio::select! {
            biased;
            Ok(company) = &mut place.taken => return Ok(Turn::Company(company)),
            lease = leasing => lease?,
        };
        batcher.wait_for_company(&place, begun).await;
        match batcher.take(&place, &lease) {
            Taken::Along => match (&mut place.taken).await {
                Ok(company) => Ok(Turn::Company(company)),
                Err(_) => Ok(own((lease, expected))),
            },
            Taken::Alone(single) => Ok(Turn::Own(lease, expected, Some(single))),
            Taken::Several(group) => {
                let expected = headroom.expect(group.members.len());
                let (batch, company) = Batch::of(group, lease, expected, Arc::clone(self), timeout);
                tokio::spawn(batch.run());
                Ok(Turn::Company(company))
            }
        }
    }
}

impl Batcher {
    /// `vouches` whether the route says of its model that it answers each row as if it were alone, and `tells` whether what
    /// answers tells which requests of a call it refuses.
    pub(in crate::pipeline) fn new(settings: config::Batch, vouches: bool, tells: bool, metrics: BatchMetrics) -> Self {
        let queue = Queue::new(settings.max_rows, settings.target_latency, tells);
        Self { queue: Mutex::new(queue), entered: Notify::new(), settings, vouches, metrics }
    }

    /// Whether it is known that the requests for this model do not go together.
    pub(in crate::pipeline) fn is_off_for(&self, model: &ModelHandle) -> bool {
        model.is_called_singly(self.vouches)
    }

    /// Why a request with this deadline need not wait, if that is so: what is before it takes far longer. `places` are
    /// those of its model.
    pub(in crate::pipeline) fn hopeless(&self, deadline: Option<Instant>, places: usize) -> Option<Fault> {
        let left = deadline?.saturating_duration_since(Instant::now());
        let expected = self.queue().expected_wait(places)?;
        (expected > left).then(|| refused(expected, left))
    }

    /// None when the payload cannot be joined with any.
    fn enter(&self, request: &Arc<Request>, payload: &Bytes, deadline: Option<Instant>) -> Option<Place<'_>> {
        let payload = Payload::read(request.content_type(), payload)?;
        let fits =
            payload.rows() < self.settings.max_rows && payload.size() < self.settings.max_bytes.as_u64() as usize;
        let (tell, taken) = oneshot::channel();
        let waiting = Waiting { payload, request: Arc::clone(request), deadline, key: None, taken: tell };
        let number = fits.then(|| self.queue().enter(waiting))?;
        self.entered.notify_waiters();
        Some(Place { batcher: self, number, taken })
    }

    /// Waits for as long as the settings say, unless there is company enough.
    async fn wait_for_company(&self, place: &Place<'_>, begun: Instant) {
        let until = begun + self.settings.max_wait;
        while Instant::now() < until {
            let entered = self.entered.notified();
            if self.queue().is_complete(place.number) || timeout_at(until, entered).await.is_err() {
                break;
            }
        }
    }

    fn take(&self, place: &Place<'_>, lease: &Lease) -> Taken {
        let joining = |form| lease.trust().joining(form, self.vouches, self.settings.verify);
        let taken = self.queue().take(place.number, lease.signature(), joining, &self.settings, &self.metrics);
        if let Taken::Alone(single) = &taken {
            self.metrics.rows.observe(single.rows as f64);
        }
        taken
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes account of a call for one request, of which there may be something known.
    pub(in crate::pipeline) fn called(&self, single: Option<&Single>, result: &Result<Reply, CallFailure>, took: Duration) {
        let is_refused = match result {
            Ok(_) => false,
            Err(failure) if failure.fault.retryable => return,
            Err(_) => true,
        };
        let mut queue = self.queue();
        if !is_refused {
            queue.took(single.map(|single| single.rows), took);
        }
        if let Some(single) = single {
            queue.called(single, is_refused);
        }
    }

    /// Takes account of a call with so many rows.
    pub(in crate::pipeline) fn took(&self, rows: usize, took: Duration) {
        self.queue().size.took(rows, took);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.batcher.queue().leave(self.number);
    }
}
