//! The dispatch of one request: its endpoint, its route, its admission, and the fallbacks of the route.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::admission::{AdmissionControl, InFlightPermit};
use super::attempt::{RouteAttempts, TimeLimits};
use super::cancellation::Cancellation;
use super::headroom::Headroom;
use super::route::failure::RouteFailure;
use super::route::fallback::Fallbacks;
use super::snapshot::Snapshot;
use super::trace::{ChosenRoute, RequestTrace};
use crate::evaluators::Evaluators;
use crate::intake::{Mark, Progress};
use crate::message::{Code, Deadline, Fault, Reply, Request, Stage, Step};
use crate::routing::{Answers, Endpoint, Reason, RouteDecision};
use crate::telemetry::Metrics;

/// Time in milliseconds that a request must have left to be put aside: the way there and back, over the broker, takes
/// some of it.
const WORTH_A_DETOUR: Duration = Duration::from_millis(500);

/// Takes one request from its endpoint to the reply of a model.
pub(super) struct RequestDispatch<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) metrics: &'a Metrics,
    pub(super) admission: &'a AdmissionControl,
    pub(super) evaluators: &'a Evaluators,
    pub(super) headroom: Headroom<'a>,
    pub(super) request: &'a Arc<Request>,
    pub(super) cancellation: Cancellation<'a>,
    pub(super) trace: &'a mut RequestTrace,
}

impl<'a> RequestDispatch<'a> {
    /// Chooses the route, and has its model answer.
    pub(super) async fn answer(&mut self) -> Result<Reply, Fault> {
        let snapshot = self.snapshot;
        let endpoint = snapshot.table.endpoint(self.request)?;
        self.trace.served_by.endpoint = Some(endpoint.name.clone());
        // A request that nobody waits for any more is not worth a decision.
        let deadline = Deadline::of(self.request).inspect_err(|fault| {
            if fault.code == Code::DeadlineExceeded {
                self.metrics.expired.inc();
            }
        })?;
        self.cancellation.check(Stage::Route)?;
        self.headroom.ticket.mark(Mark { progress: Progress::Deciding, place: 0 });
        let route = self.decide(endpoint, deadline).await?;
        let payload = self.request.payload.clone().ok_or_else(no_payload)?;
        let _permit = self.admit(endpoint, route, deadline)?;
        self.trace.chosen = Some(ChosenRoute { endpoint: endpoint.index, route });
        self.call_with_fallback(endpoint, route, payload, deadline).await
    }

    /// Admits the request to its route. A request can as well wait in the overflow topic, when the route has so much to do
    /// that it would leave no room for others; unless the request's deadline is near, or the route would shed it anyway.
    fn admit(&mut self, endpoint: &Endpoint, index: usize, deadline: Deadline) -> Result<InFlightPermit<'a>, Fault> {
        let route = &self.snapshot.routes(endpoint)[index];
        let may_overflow =
            !self.request.parked.is_some_and(|parked| parked.overflowed) && deadline.allows(WORTH_A_DETOUR);
        if may_overflow
            && self.admission.is_exhausted_for(&route.share)
            && self.snapshot.has_several_routes()
            && route.sheds(deadline).is_none()
        {
            self.trace.overflows = true;
            return Err(overflow(endpoint, index));
        }
        Ok(self.admission.admit(&route.share, self.request.size()))
    }

    /// Decides on the route, and returns its index in the endpoint.
    async fn decide(&mut self, endpoint: &Endpoint, deadline: Deadline) -> Result<usize, Fault> {
        let routes = self.snapshot.routes(endpoint);
        let answers = self.answers(endpoint, deadline).await?;
        let answers = answers.as_ref();
        let decision = match self.service_decision(endpoint, answers, deadline).await? {
            Some(route) => RouteDecision::new(route, Reason::OutsideDecision),
            None => endpoint.decide_by_load(self.request, answers, |route| routes[route].load_reading())?,
        };
        for skipped in &decision.skipped {
            routes[*skipped].condition_skips.inc();
        }
        let route = &routes[decision.route];
        route.decisions[decision.reason as usize].inc();
        route.sticky_failures.inc_by(u64::from(decision.sticky_failed));
        self.trace.served_by.route_override = decision.reason == Reason::Override;
        Ok(decision.route)
    }

    /// Has Python evaluate what the decision on this request may need of it.
    async fn answers(&self, endpoint: &Endpoint, deadline: Deadline) -> Result<Option<Arc<Answers>>, Fault> {
        let Some(question) = endpoint.question_about(self.request)? else { return Ok(None) };
        let answers = deadline.until(self.evaluators.ask(question, self.request)).await;
        answers.map(|answers| Some(Arc::new(answers))).ok_or_else(|| deadline.fault(Step::Deciding))
    }

    /// Asks the endpoint's decision service for a route, if there is one and the request does not name its route itself.
    async fn service_decision(
        &self,
        endpoint: &Endpoint,
        answers: Option<&Arc<Answers>>,
        deadline: Deadline,
    ) -> Result<Option<usize>, Fault> {
        match self.snapshot.decision_service(endpoint) {
            Some(service) if endpoint.overridden(self.request)?.is_none() => {
                service.decide(endpoint, self.request, answers, deadline).await
            }
            _ => Ok(None),
        }
    }

    /// Has a route answer, or else a route that it falls back to. No route is called twice, and none once time is up.
    async fn call_with_fallback(
        &mut self,
        endpoint: &Endpoint,
        first: usize,
        payload: Bytes,
        deadline: Deadline,
    ) -> Result<Reply, Fault> {
        let routes = self.snapshot.routes(endpoint);
        let (mut index, mut others) = (first, endpoint.routes.len() - 1);
        loop {
            let statistics = routes[index].statistics.as_ref().map(|statistics| (statistics, Instant::now()));
            let answer = self.call_route(endpoint, index, &payload, deadline).await;
            // A canary is not judged by a call whose caller gave it up.
            let is_cancelled = answer.as_ref().is_err_and(|failure| failure.fault.code == Code::Cancelled);
            if let Some((statistics, begun)) = statistics.filter(|_| !is_cancelled) {
                let is_own = |failure: &RouteFailure| failure.cause.is_some();
                statistics.count(begun.elapsed(), answer.as_ref().is_err_and(is_own));
            }
            let failure = match answer {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            // Fallbacks may name each other in a ring: the count of other routes ends the loop.
            let next = endpoint.routes[index].fallback.filter(|_| others > 0 && !deadline.is_over());
            let takes = |fallbacks: &Fallbacks| failure.cause.is_some_and(|cause| fallbacks.take(cause));
            match next {
                Some(next) if routes[index].fallbacks.as_ref().is_some_and(takes) => index = next,
                _ => return Err(failure.fault),
            }
            others -= 1;
            self.trace.served_by.fallback_from = Some(endpoint.routes[first].alias.clone());
        }
    }

    /// Has one route answer, with the retries of that route.
    async fn call_route(
        &mut self,
        endpoint: &Endpoint,
        index: usize,
        payload: &Bytes,
        deadline: Deadline,
    ) -> Result<Reply, RouteFailure> {
        let (route, compiled) = (&self.snapshot.routes(endpoint)[index], &endpoint.routes[index]);
        let served_by = &mut self.trace.served_by;
        served_by.route = Some(compiled.alias.clone());
        served_by.model_uri = Some(compiled.model_uri.clone());
        served_by.model_version = None;
        self.trace.metrics = Some(route.metrics.clone());
        self.trace.place = self.snapshot.place(endpoint, index);
        let attempts = RouteAttempts {
            route,
            request: self.request,
            payload,
            limits: TimeLimits::new(endpoint.timeout, route.timeout, deadline),
            headroom: self.headroom,
            cancellation: self.cancellation,
            trace: self.trace,
        };
        attempts.call_with_retries().await
    }
}

fn overflow(endpoint: &Endpoint, route: usize) -> Fault {
    let message =
        format!("route '{}' has too much to do, and the request cannot be put aside", endpoint.routes[route].alias);
    Fault::passing(Code::ResourceExhausted, Stage::Route, message)
}

fn no_payload() -> Fault {
    Fault::permanent(
        Code::BadRequest,
        Stage::Route,
        "the record has no value; a request's value is an MLflow scoring payload, such as {\"dataframe_split\": …}",
    )
}
