//! One route is asked: past its breaker, in its time, and again where that may help.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::route::batch::{Company, Turn};
use super::route::breaker::{Passage, RouteBreaker};
use super::route::call::call;
use super::route::failure::{Step, cause_of};
use super::dispatch::Journey;
use super::route::load::now;
use super::route::Target;
use crate::config::FallbackOn;
use crate::invocation::breaker::Ended;
use crate::message::{Code, Fault, Reply, Stage};
use crate::models::{CallFailure, Lease, until};
use crate::routing::Endpoint;

/// How often a request is given to a model whose process crashes on the way.
const MAX_CALLS_WHEN_IT_CRASHES: u32 = 2;

/// Why a route has not answered.
pub(super) struct Unanswered {
    pub(super) fault: Fault,
    /// What of it is the route's own doing, if anything is.
    pub(super) cause: Option<FallbackOn>,
    /// Whether the process that was to answer is gone.
    crashed: bool,
    /// Whether other requests were in the same call, one of which may be at fault.
    in_company: bool,
}

/// With whom a request is called: it may be another's doing that it was not answered, or its own that others were not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Alone {
    /// With other requests, where they can be joined.
    No,
    /// In a call of its own.
    InItsCall,
    /// In a process in which there is no other call.
    InItsProcess,
}

/// The time that there is for an answer.
#[derive(Clone, Copy)]
struct Time {
    /// For one call of the model.
    call: Duration,
    /// What a call is given at least before its model is blamed for a request that ran out of time.
    enough: Duration,
    /// Until when the request waits, if it does not wait for ever.
    request: Option<Instant>,
    /// Until when it waits for this route.
    route: Option<Instant>,
}

impl Journey<'_> {
    /// Has one route answer.
    pub(super) async fn ask(
        &mut self,
        endpoint: &Endpoint,
        index: usize,
        payload: &Bytes,
        deadline: Option<Instant>,
    ) -> Result<Reply, Unanswered> {
        let (target, route) = (&self.snapshot.targets(endpoint)[index], &endpoint.routes[index]);
        let served_by = &mut self.progress.served_by;
        served_by.route = Some(route.alias.clone());
        served_by.model_uri = Some(route.model_uri.clone());
        served_by.model_version = None;
        self.progress.metrics = Some(target.metrics.clone());
        let _in_flight = target.load.enter();
        let time = Time::new(endpoint.timeout, target.timeout, deadline);
        let retries = target.retries.as_ref().inspect(|retries| retries.earn());
        let (mut calls, mut earlier, mut alone) = (0, None, Alone::No);
        loop {
            let unanswered = match self.call(target, payload, time, alone).await {
                Ok(reply) => return Ok(reply),
                Err(unanswered) => unanswered,
            };
            if unanswered.cause == Some(FallbackOn::BreakerOpen) {
                return Err(earlier.unwrap_or(unanswered));
            }
            calls += 1;
            let next = if unanswered.crashed { Alone::InItsProcess } else { Alone::InItsCall };
            if unanswered.in_company && alone < next && !is_over(time.route) {
                alone = next;
            // It may be this request that its process does not survive: a third would be one too many.
            } else if !(unanswered.crashed && calls < MAX_CALLS_WHEN_IT_CRASHES) {
                let retry_after = unanswered.fault.retry_after;
                let retries = retries.filter(|_| unanswered.may_pass());
                match retries.and_then(|retries| retries.pause(calls, retry_after, time.left())) {
                    // Who hangs up meanwhile is noticed before the call.
                    Some(pause) => drop(self.while_wanted(pin!(sleep(pause))).await),
                    None => return Err(unanswered),
                }
            }
            earlier = Some(unanswered);
        }
    }

    /// Calls the model of a route once, if its breaker lets it; together with others, unless it is to be `alone`.
    async fn call(
        &mut self,
        target: &Arc<Target>,
        payload: &Bytes,
        time: Time,
        alone: Alone,
    ) -> Result<Reply, Unanswered> {
        self.wanted(Stage::Invoke).map_err(|fault| Unanswered::of(fault, Step::Wait, time))?;
        if let Some(fault) = target.hopeless(time.route) {
            target.metrics.hopeless.inc();
            return Err(Unanswered::of(fault, Step::Wait, time));
        }
        let mut passage = target.breaker.as_ref().map(RouteBreaker::admit).transpose().map_err(Unanswered::unasked)?;
        let turn = target.turn(self.headroom, self.request, payload, time.call, time.route, alone);
        let turn = match self.while_wanted(pin!(turn)).await.flatten() {
            Ok(turn) => turn,
            Err(fault) => {
                target.load.failed(&fault, time.call);
                let unanswered = Unanswered::of(fault, Step::Wait, time);
                end(passage, unanswered.cause.map(|_| Ended { failed: true, took: Duration::ZERO }));
                return Err(unanswered);
            }
        };
        self.wanted(Stage::Invoke).map_err(|fault| Unanswered::of(fault, Step::Wait, time))?;
        // The breaker may have opened while this request waited for its turn, with many others.
        passage = passage.map(Passage::renew).transpose().map_err(Unanswered::unasked)?;
        let (answer, took, in_company) = match turn {
            Turn::Own(lease, _expected, single) => {
                let (answer, took) = self.call_alone(target, lease, payload, time).await;
                if let (Some(batcher), Some(result)) = (target.batcher(), &answer) {
                    batcher.called(single.as_ref(), result, took);
                }
                (answer, took, false)
            }
            Turn::Company(company) => self.call_together(company, time).await,
        };
        self.progress.took = Some(took);
        let answer = answer.map(|answer| answer.and_then(|reply| target.within_limit(reply)));
        let unanswered = match answer {
            Some(Ok(reply)) => {
                end(passage, Some(Ended { failed: false, took }));
                return Ok(reply);
            }
            Some(Err(failure)) => {
                let step = Step::Call { disconnected: failure.disconnected };
                let in_company = in_company || failure.in_company;
                let unanswered = Unanswered::of(failure.fault, step, time);
                Unanswered { crashed: failure.crashed, in_company, ..unanswered }
            }
            None => Unanswered { in_company, ..Unanswered::of(late(target), Step::Call { disconnected: false }, time) },
        };
        // A request that was short of time itself says nothing of a model that had not enough of it; and one call that
        // was lost is not as many as there were requests in it, each of which is going to be called alone.
        let failed =
            !unanswered.in_company && (unanswered.cause.is_some() || (unanswered.is_late() && took >= time.enough));
        end(passage, failed.then_some(Ended { failed, took }));
        Err(unanswered)
    }

    async fn call_alone(
        &mut self,
        target: &Target,
        lease: Lease,
        payload: &Bytes,
        time: Time,
    ) -> (Option<Result<Reply, CallFailure>>, Duration) {
        let served_by = &mut self.progress.served_by;
        served_by.model_version = Some(lease.version().clone());
        served_by.attempts += 1;
        let begun = now();
        let answer =
            call(lease, Arc::clone(self.request), payload.clone(), target.largest_answer, time.call, time.route).await;
        let ended = now();
        let took = ended.saturating_sub(begun);
        target.metrics.invocation_duration.observe(took.as_secs_f64());
        if answer.is_some() {
            target.line.took_at(took, ended);
        }
        match &answer {
            Some(Err(failure)) => target.load.failed(&failure.fault, time.call),
            None | Some(Ok(_)) => target.load.took_at(took.as_secs_f64(), ended),
        }
        (answer, took)
    }

    /// Waits for what somebody else, who calls the model for several, is told. It goes on without us when time is up.
    async fn call_together(
        &mut self,
        company: Company,
        time: Time,
    ) -> (Option<Result<Reply, CallFailure>>, Duration, bool) {
        self.progress.served_by.model_version = Some(company.version);
        let begun = Instant::now();
        let answer = self.while_wanted(pin!(until(time.route, company.answer))).await;
        let served_by = &mut self.progress.served_by;
        match answer {
            Err(fault) => {
                let failure = CallFailure { fault, crashed: false, in_company: false, disconnected: false };
                (Some(Err(failure)), begun.elapsed(), false)
            }
            Ok(Some(Ok(answered))) => {
                served_by.attempts += answered.calls;
                (Some(answered.result), answered.took, answered.in_company)
            }
            // Whoever called is lost.
            Ok(Some(Err(_))) => (None, begun.elapsed(), true),
            Ok(None) => {
                served_by.attempts += 1;
                (None, begun.elapsed(), false)
            }
        }
    }
}

fn end(passage: Option<Passage<'_>>, ended: Option<Ended>) {
    if let Some(passage) = passage {
        passage.end(ended);
    }
}

impl Unanswered {
    /// A request whose own time is up may have been too short of it for any route.
    fn of(fault: Fault, step: Step, time: Time) -> Self {
        let out_of_time = fault.code == Code::DeadlineExceeded && is_over(time.request);
        let cause = if out_of_time { None } else { cause_of(&fault, step) };
        Self { fault, cause, crashed: false, in_company: false }
    }

    fn unasked(fault: Fault) -> Self {
        Self { fault, cause: Some(FallbackOn::BreakerOpen), crashed: false, in_company: false }
    }

    fn is_late(&self) -> bool {
        self.fault.code == Code::DeadlineExceeded
    }

    /// Whether another call of the same route may be answered.
    fn may_pass(&self) -> bool {
        self.fault.retryable && self.cause.is_some() && !self.crashed
    }
}

impl Time {
    fn new(call: Duration, route: Option<Duration>, request: Option<Instant>) -> Self {
        let enough = route.map_or(call, |route| route.min(call)) / 2;
        let route = route.map(|route| Instant::now() + route);
        Self { call, enough, request, route: route.into_iter().chain(request).min() }
    }

    /// What is left of it for this route.
    fn left(self) -> Option<Duration> {
        self.route.map(|route| route.saturating_duration_since(Instant::now()))
    }
}

/// Whether a deadline has come.
pub(super) fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

fn late(target: &Target) -> Fault {
    let message = format!("{} had not answered when time was up", target.model.uri());
    Fault::passing(Code::DeadlineExceeded, Stage::Invoke, message)
}
