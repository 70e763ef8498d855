//! The attempts of one request at one route: past its breaker, within its time, and again where that may help.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::poll;
use tokio::time::{Instant, sleep};

use super::cancellation::Cancellation;
use super::headroom::Headroom;
use super::route::batch::{BatchTicket, ModelAccess};
use super::route::breaker::{BreakerPermit, RouteBreaker};
use super::route::call::call_until_deadline;
use super::route::clock::now;
use super::route::failure::{FailurePoint, RouteFailure};
use super::route::{Isolation, Route};
use super::trace::RequestTrace;
use crate::config::FallbackOn;
use crate::intake::{Mark, Progress};
use crate::invocation::breaker::CallOutcome;
use crate::message::{Deadline, Fault, Reply, Request, Stage, Step};
use crate::models::{CallFailure, Lease};

/// Calls that a request gets of a model whose process crashes on the way. The request may be the one that its process
/// does not survive, and a third call would be one too many.
const MAX_CALLS_ON_CRASH: u32 = 2;

/// Limits the time for the answer of one route.
#[derive(Clone, Copy)]
pub(super) struct TimeLimits {
    /// Timeout of one call of the model.
    pub(super) call: Duration,
    /// Time that a call is given at least before its model is blamed for a request that ran out of time.
    fair_call: Duration,
    /// Deadline of the request.
    request: Deadline,
    /// Deadline of the request at this route.
    pub(super) route: Deadline,
}

/// Calls one route for one request until there is an answer, or no further call may help.
pub(super) struct RouteAttempts<'a> {
    pub(super) route: &'a Arc<Route>,
    pub(super) request: &'a Arc<Request>,
    pub(super) payload: &'a Bytes,
    pub(super) limits: TimeLimits,
    pub(super) headroom: Headroom<'a>,
    pub(super) cancellation: Cancellation<'a>,
    pub(super) trace: &'a mut RequestTrace,
}

/// Holds the end of one call; its answer is none when the call was not answered in time.
struct Called {
    answer: Option<Result<Reply, CallFailure>>,
    took: Duration,
    /// Tells whether other requests were in the same call, one of which may be at fault.
    in_batch: bool,
}

impl TimeLimits {
    /// Starts the clock of a route with this timeout.
    pub(super) fn new(call: Duration, route: Option<Duration>, request: Deadline) -> Self {
        let fair_call = route.map_or(call, |route| route.min(call)) / 2;
        Self { call, fair_call, request, route: route.map_or(request, |route| request.within(route)) }
    }
}

impl RouteAttempts<'_> {
    /// Calls the route, and calls it again as its retries, crashes and lost batches allow.
    pub(super) async fn call_with_retries(mut self) -> Result<Reply, RouteFailure> {
        let route = self.route;
        let _in_flight = route.load.enter();
        let retries = route.retries.as_ref().inspect(|retries| retries.earn());
        let (mut calls, mut earlier, mut isolation) = (0, None, Isolation::Shared);
        loop {
            let failure = match self.attempt(isolation).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            // An open breaker tells less than the failure that a retry was made for.
            if failure.cause == Some(FallbackOn::BreakerOpen) {
                return Err(earlier.unwrap_or(failure));
            }
            calls += 1;
            // After a failure among others the request is called apart from them: either may be at fault.
            let next = if failure.crashed { Isolation::OwnProcess } else { Isolation::OwnCall };
            if failure.in_batch && isolation < next && !self.limits.route.is_over() {
                isolation = next;
            // A crash is tried again without the route's retries, as long as there are calls left.
            } else if !(failure.crashed && calls < MAX_CALLS_ON_CRASH) {
                let retry_after = failure.fault.retry_after;
                let retries = retries.filter(|_| failure.is_worth_retry());
                match retries.and_then(|retries| retries.pause(calls, retry_after, self.limits.route.left())) {
                    // A caller that hangs up during the pause is noticed before the call.
                    Some(pause) => drop(self.cancellation.unless_cancelled(pin!(sleep(pause))).await),
                    None => return Err(failure),
                }
            }
            earlier = Some(failure);
        }
    }

    /// Calls the model once, if the breaker lets the call through; together with other requests as far as `isolation`
    /// allows.
    async fn attempt(&mut self, isolation: Isolation) -> Result<Reply, RouteFailure> {
        let (route, limits) = (self.route, self.limits);
        let while_waiting = |fault| RouteFailure::of(fault, FailurePoint::Waiting, limits.request);
        self.cancellation.check(Stage::Invoke).map_err(while_waiting)?;
        // Load shedding comes before the breaker, so that a request without a chance takes no probe.
        if let Some(fault) = route.sheds(limits.route) {
            route.metrics.requests_shed.inc();
            return Err(while_waiting(fault));
        }
        let breaker = route.breaker.as_ref();
        let mut permit = breaker.map(RouteBreaker::admit).transpose().map_err(RouteFailure::breaker_open)?;
        self.mark(Progress::Waiting);
        let access = self.access(isolation);
        let access = match self.cancellation.unless_cancelled(pin!(access)).await.flatten() {
            Ok(access) => access,
            Err(fault) => {
                route.load.record_failure(&fault, limits.call);
                let failure = while_waiting(fault);
                end(permit, failure.cause.map(|_| CallOutcome { failed: true, took: Duration::ZERO }));
                return Err(failure);
            }
        };
        self.cancellation.check(Stage::Invoke).map_err(while_waiting)?;
        // The breaker may have opened while this request waited for its turn, with many others.
        permit = permit.map(BreakerPermit::renew).transpose().map_err(RouteFailure::breaker_open)?;
        self.mark(Progress::Calling);
        let Called { answer, took, in_batch } = match access {
            ModelAccess::Single(lease, _expected, single) => {
                let called = self.call_single(lease).await;
                if let (Some(batcher), Some(result)) = (route.active_batcher(), &called.answer) {
                    batcher.record_single_call(single.as_ref(), result, called.took);
                }
                called
            }
            ModelAccess::Batched(ticket) => self.await_batch(ticket).await,
        };
        self.trace.took = Some(took);
        let answer = answer.map(|answer| answer.and_then(|reply| route.within_limit(reply)));
        let failure = match answer {
            Some(Ok(reply)) => {
                end(permit, Some(CallOutcome { failed: false, took }));
                return Ok(reply);
            }
            Some(Err(failure)) => {
                let point = FailurePoint::Calling { disconnected: failure.disconnected };
                let in_batch = in_batch || failure.in_company;
                RouteFailure {
                    crashed: failure.crashed,
                    in_batch,
                    ..RouteFailure::of(failure.fault, point, limits.request)
                }
            }
            None => {
                let point = FailurePoint::Calling { disconnected: false };
                let fault = limits.route.fault(Step::Calling(route.model.uri().text()));
                RouteFailure { in_batch, ..RouteFailure::of(fault, point, limits.request) }
            }
        };
        // A request that was short of time itself says nothing of a model that had not enough of it; and one call that
        // was lost is not as many as there were requests in it, each of which is going to be called alone.
        let failed =
            !failure.in_batch && (failure.cause.is_some() || (failure.is_timeout() && took >= limits.fair_call));
        end(permit, failed.then_some(CallOutcome { failed, took }));
        Err(failure)
    }

    /// Notes for operators what the request is at.
    fn mark(&self, progress: Progress) {
        self.headroom.ticket.mark(Mark { progress, place: self.trace.place });
    }

    /// Waits for the model: for a lease of the request's own, or for a ticket of a batch that takes the request along.
    async fn access(&self, isolation: Isolation) -> Result<ModelAccess, Fault> {
        let (route, deadline) = (self.route, self.limits.route);
        if isolation == Isolation::OwnProcess {
            let lease = route.wait_queue.wait(deadline, pin!(route.model.lease_alone(deadline))).await?;
            return Ok(ModelAccess::Single(lease, self.headroom.expect(1), None));
        }
        let mut leasing = pin!(self.headroom.lease(&route.model, deadline));
        let single = |(lease, expected)| ModelAccess::Single(lease, expected, None);
        if let Some(batcher) = route.batcher.as_ref().filter(|_| isolation == Isolation::Shared) {
            if !batcher.is_off_for(&route.model) {
                return batcher
                    .access(leasing, self.headroom, self.request, self.payload, self.limits.call, deadline)
                    .await;
            }
            // A request that did not wait is not counted as called singly for the model's sake.
            if let Poll::Ready(lease) = poll!(leasing.as_mut()) {
                return lease.map(single);
            }
            batcher.count_single_for_model();
        }
        route.wait_queue.wait(deadline, leasing).await.map(single)
    }

    /// Calls the model for this request alone.
    async fn call_single(&mut self, lease: Lease) -> Called {
        let Self { route, limits, .. } = *self;
        let served_by = &mut self.trace.served_by;
        served_by.model_version = Some(lease.version().clone());
        served_by.attempts += 1;
        let (request, payload) = (Arc::clone(self.request), self.payload.clone());
        let begun = now();
        let answer =
            call_until_deadline(lease, request, payload, route.largest_answer, limits.call, limits.route).await;
        let ended = now();
        let took = ended.saturating_sub(begun);
        route.metrics.invocation_duration.observe(took.as_secs_f64());
        if answer.is_some() {
            route.wait_queue.record_at(took, ended);
        }
        match &answer {
            Some(Err(failure)) => route.load.record_failure(&failure.fault, limits.call),
            None | Some(Ok(_)) => route.load.record_at(took.as_secs_f64(), ended),
        }
        Called { answer, took, in_batch: false }
    }

    /// Waits for the answer out of a batch that another request's task calls. The batch goes on without this request
    /// when its time is up.
    async fn await_batch(&mut self, ticket: BatchTicket) -> Called {
        self.trace.served_by.model_version = Some(ticket.version);
        let begun = Instant::now();
        let answer = self.cancellation.unless_cancelled(pin!(self.limits.route.until(ticket.answer))).await;
        let served_by = &mut self.trace.served_by;
        match answer {
            Err(fault) => {
                let failure = CallFailure { fault, crashed: false, in_company: false, disconnected: false };
                Called { answer: Some(Err(failure)), took: begun.elapsed(), in_batch: false }
            }
            Ok(Some(Ok(answer))) => {
                served_by.attempts += answer.calls;
                Called { answer: Some(answer.result), took: answer.took, in_batch: answer.in_batch }
            }
            // The task that called the batch is lost.
            Ok(Some(Err(_))) => Called { answer: None, took: begun.elapsed(), in_batch: true },
            // The request's own time is up.
            Ok(None) => {
                served_by.attempts += 1;
                Called { answer: None, took: begun.elapsed(), in_batch: false }
            }
        }
    }
}

fn end(permit: Option<BreakerPermit<'_>>, ended: Option<CallOutcome>) {
    if let Some(permit) = permit {
        permit.end(ended);
    }
}
