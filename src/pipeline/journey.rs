//! The way of one request: its endpoint, its route, its model, and what that says.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::call::call;
use super::deadline::deadline_of;
use super::snapshot::Snapshot;
use super::target::Target;
use crate::message::{Code, Fault, Reply, Request, ServedBy, Stage};
use crate::routing::{Endpoint, Reason};
use crate::telemetry::{Metrics, RouteMetrics};

/// How often a request is given to a model whose process crashes on the way.
const MAX_ATTEMPTS: u32 = 2;

/// How far a request has come, for the headers of its ending.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) served_by: ServedBy,
    pub(super) metrics: Option<Arc<RouteMetrics>>,
}

/// A request on its way.
pub(super) struct Journey<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) metrics: &'a Metrics,
    pub(super) request: &'a Arc<Request>,
    pub(super) progress: &'a mut Progress,
}

impl Journey<'_> {
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
        let route = self.decide(endpoint)?;
        let payload = self.request.payload.clone().ok_or_else(no_payload)?;
        let begun = Instant::now();
        let answer = self.take(endpoint, route, payload, deadline).await;
        if let Some(statistics) = &snapshot.targets(endpoint)[route].statistics {
            statistics.count(begun.elapsed(), answer.as_ref().is_err_and(|fault| fault.code.status() >= 500));
        }
        answer
    }

    /// The route's index in the endpoint.
    fn decide(&mut self, endpoint: &Endpoint) -> Result<usize, Fault> {
        let targets = self.snapshot.targets(endpoint);
        let decision = endpoint.decide_by_load(self.request, targets)?;
        for skipped in &decision.skipped {
            targets[*skipped].condition_skips.inc();
        }
        let target = &targets[decision.route];
        target.decisions[decision.reason as usize].inc();
        target.sticky_failures.inc_by(u64::from(decision.sticky_failed));
        self.progress.served_by.route_override = decision.reason == Reason::Override;
        Ok(decision.route)
    }

    /// Has the model of a route answer.
    async fn take(
        &mut self,
        endpoint: &Endpoint,
        route: usize,
        payload: Bytes,
        deadline: Option<Instant>,
    ) -> Result<Reply, Fault> {
        let (target, route) = (&self.snapshot.targets(endpoint)[route], &endpoint.routes[route]);
        let served_by = &mut self.progress.served_by;
        served_by.route = Some(route.alias.clone());
        served_by.model_uri = Some(route.model_uri.clone());
        self.progress.metrics = Some(target.metrics.clone());
        let _in_flight = target.load.enter();
        loop {
            let failed = |fault: &Fault| target.load.failed(fault, endpoint.timeout);
            let lease = target.model.lease(deadline).await.inspect_err(failed)?;
            served_by.model_version = Some(lease.version().clone());
            served_by.attempts += 1;
            let timer = target.metrics.invocation_duration.start_timer();
            let answer = call(lease, Arc::clone(self.request), payload.clone(), endpoint.timeout, deadline).await;
            let seconds = timer.stop_and_record();
            match &answer {
                Some(Err(failure)) => failed(&failure.fault),
                None | Some(Ok(_)) => target.load.took(seconds),
            }
            match answer {
                Some(Ok(reply)) => return Ok(reply),
                None => return Err(late(target)),
                // It may be this request that its process does not survive: a third would be one too many.
                Some(Err(failure)) if failure.crashed && served_by.attempts < MAX_ATTEMPTS => {}
                Some(Err(failure)) => return Err(failure.fault),
            }
        }
    }
}

fn late(target: &Target) -> Fault {
    let message = format!("{} had not answered when the request's time was up", target.model.uri());
    Fault::passing(Code::DeadlineExceeded, Stage::Invoke, message)
}

fn no_payload() -> Fault {
    Fault::permanent(
        Code::BadRequest,
        Stage::Route,
        "the record has no value; a request's value is an MLflow scoring payload, such as {\"dataframe_split\": …}",
    )
}
