//! The way of one request: its endpoint, its route, its model, and what that says.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::select;
use tokio::time::Instant;

use super::attempt::{Unanswered, is_over};
use super::deadline::deadline_of;
use super::route::fallback::Fallbacks;
use super::headroom::Headroom;
use super::admission::{Place, Room};
use super::snapshot::Snapshot;
use crate::callers::Caller;
use crate::message::{Code, Fault, Reply, Request, ServedBy, Stage};
use crate::routing::{Decision, Endpoint, Reason};
use crate::telemetry::{Metrics, RouteMetrics};

/// A request with less time than this is not put aside: the way there and back, over the broker, takes some of it.
const WORTH_A_DETOUR: Duration = Duration::from_millis(500);

/// How far a request has come, for the headers of its ending.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) served_by: ServedBy,
    /// The route that was chosen, once the request is on its way there. Another may answer in its place.
    pub(super) chosen: Option<Chosen>,
    /// How long its last call of a model took.
    pub(super) took: Option<Duration>,
    pub(super) metrics: Option<Arc<RouteMetrics>>,
    /// Whether its route had too much to do to begin with it.
    pub(super) is_behind: bool,
}

/// A route, by its indices.
#[derive(Clone, Copy)]
pub(super) struct Chosen {
    pub(super) endpoint: usize,
    pub(super) route: usize,
}

/// A request on its way.
pub(super) struct Journey<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) metrics: &'a Metrics,
    pub(super) room: &'a Room,
    pub(super) headroom: Headroom<'a>,
    pub(super) request: &'a Arc<Request>,
    /// Who waits for the answer, if that is somebody at a door.
    pub(super) caller: Option<Caller<'a>>,
    pub(super) progress: &'a mut Progress,
}

impl Progress {
    /// How far it was when it was put aside, if it was.
    pub(super) fn of(request: &Request) -> Self {
        let attempts = request.parked.map_or(0, |parked| parked.calls);
        Self { served_by: ServedBy { attempts, ..ServedBy::default() }, ..Self::default() }
    }
}

impl<'a> Journey<'a> {
    /// Which route, which model, and what the model says.
    pub(super) async fn answer(&mut self) -> Result<Reply, Fault> {
        let snapshot = self.snapshot;
        let endpoint = snapshot.table.endpoint(self.request)?;
        self.progress.served_by.endpoint = Some(endpoint.name.clone());
        let deadline = deadline_of(self.request).inspect_err(|fault| {
            if fault.code == Code::DeadlineExceeded {
                self.metrics.expired.inc();
            }
        })?;
        self.wanted(Stage::Route)?;
        let route = self.decide(endpoint, deadline).await?;
        let payload = self.request.payload.clone().ok_or_else(no_payload)?;
        let _place = self.enter(endpoint, route, deadline)?;
        self.progress.chosen = Some(Chosen { endpoint: endpoint.index, route });
        self.take(endpoint, route, payload, deadline).await
    }

    /// A place for the request at its route. It can as well wait outside, when the route has so much to do that it would
    /// leave no room for others; unless its deadline is near, or no place comes free before that anyway.
    fn enter(&mut self, endpoint: &Endpoint, route: usize, deadline: Option<Instant>) -> Result<Place<'a>, Fault> {
        let target = &self.snapshot.targets(endpoint)[route];
        let may_wait = !self.request.parked.is_some_and(|parked| parked.overflowed)
            && deadline.is_none_or(|deadline| deadline > Instant::now() + WORTH_A_DETOUR);
        if may_wait
            && self.room.is_short_for(&target.share)
            && self.snapshot.has_several_routes()
            && target.hopeless(deadline).is_none()
        {
            self.progress.is_behind = true;
            return Err(behind(endpoint, route));
        }
        Ok(self.room.enter(&target.share, self.request.size()))
    }

    /// Whether the request's caller still waits.
    ///
    /// # Errors
    /// `CANCELLED`, when the caller has hung up.
    pub(super) fn wanted(&self, stage: Stage) -> Result<(), Fault> {
        match self.caller.is_some_and(|caller| caller.has_gone()) {
            true => Err(abandoned(stage)),
            false => Ok(()),
        }
    }

    /// What comes of something, if the request's caller waits for as long as that takes.
    ///
    /// # Errors
    /// `CANCELLED`, when the caller hangs up before.
    pub(super) async fn while_wanted<T>(&self, work: Pin<&mut impl Future<Output = T>>) -> Result<T, Fault> {
        let Some(caller) = self.caller else { return Ok(work.await) };
        select! {
            biased;
            done = work => Ok(done),
            () = caller.gone() => Err(abandoned(Stage::Invoke)),
        }
    }

    /// The route's index in the endpoint.
    async fn decide(&mut self, endpoint: &Endpoint, deadline: Option<Instant>) -> Result<usize, Fault> {
        let targets = self.snapshot.targets(endpoint);
        let decision = match self.outside_decision(endpoint, deadline).await? {
            Some(route) => Decision::new(route, Reason::OutsideDecision),
            None => endpoint.decide_by_load(self.request, targets)?,
        };
        for skipped in &decision.skipped {
            targets[*skipped].condition_skips.inc();
        }
        let target = &targets[decision.route];
        target.decisions[decision.reason as usize].inc();
        target.sticky_failures.inc_by(u64::from(decision.sticky_failed));
        self.progress.served_by.route_override = decision.reason == Reason::Override;
        Ok(decision.route)
    }

    /// The route that the service outside names, if the endpoint has one and the request does not name its route itself.
    async fn outside_decision(&self, endpoint: &Endpoint, deadline: Option<Instant>) -> Result<Option<usize>, Fault> {
        match self.snapshot.outside(endpoint) {
            Some(outside) if endpoint.overridden(self.request)?.is_none() => {
                outside.decide(endpoint, self.request, deadline).await
            }
            _ => Ok(None),
        }
    }

    /// Has a route answer, or else one that it falls back to. No route is asked twice, and none when time is up.
    async fn take(
        &mut self,
        endpoint: &Endpoint,
        first: usize,
        payload: Bytes,
        deadline: Option<Instant>,
    ) -> Result<Reply, Fault> {
        let targets = self.snapshot.targets(endpoint);
        let (mut route, mut others) = (first, endpoint.routes.len() - 1);
        loop {
            let statistics = targets[route].statistics.as_ref().map(|statistics| (statistics, Instant::now()));
            let answer = self.ask(endpoint, route, &payload, deadline).await;
            let is_abandoned = answer.as_ref().is_err_and(|unanswered| unanswered.fault.code == Code::Cancelled);
            if let Some((statistics, begun)) = statistics.filter(|_| !is_abandoned) {
                let failed = |unanswered: &Unanswered| unanswered.cause.is_some();
                statistics.count(begun.elapsed(), answer.as_ref().is_err_and(failed));
            }
            let unanswered = match answer {
                Ok(reply) => return Ok(reply),
                Err(unanswered) => unanswered,
            };
            let next = endpoint.routes[route].fallback.filter(|_| others > 0 && !is_over(deadline));
            let takes = |fallbacks: &Fallbacks| unanswered.cause.is_some_and(|cause| fallbacks.take(cause));
            match next {
                Some(next) if targets[route].fallbacks.as_ref().is_some_and(takes) => route = next,
                _ => return Err(unanswered.fault),
            }
            others -= 1;
            self.progress.served_by.fallback_from = Some(endpoint.routes[first].alias.clone());
        }
    }
}

fn behind(endpoint: &Endpoint, route: usize) -> Fault {
    let message =
        format!("route '{}' has too much to do, and the request cannot be put aside", endpoint.routes[route].alias);
    Fault::passing(Code::ResourceExhausted, Stage::Route, message)
}

fn abandoned(stage: Stage) -> Fault {
    Fault::permanent(Code::Cancelled, stage, "the caller has hung up, so no model is called for this request any more")
}

fn no_payload() -> Fault {
    Fault::permanent(
        Code::BadRequest,
        Stage::Route,
        "the record has no value; a request's value is an MLflow scoring payload, such as {\"dataframe_split\": …}",
    )
}
