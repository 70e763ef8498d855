//! The choice of a route for one request.

use std::sync::Arc;

use serde::Serialize;

use super::canary::CanaryRoute;
use super::condition::{Answers, ConditionError, Evaluation, Question, ResultKind};
use super::split::{LoadReading, Split};
use super::sticky;
use super::table::{ConditionGroup, Endpoint};
use crate::config::{OnConditionError, Strategy};
use crate::message::{Code, Fault, Request, Stage, header};
use crate::telemetry::LogGate;

/// The route for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteDecision {
    /// Index of the route in the endpoint's routes.
    pub route: usize,
    /// Reason for this route.
    pub reason: Reason,
    /// Routes whose condition failed on this request and was skipped, for the metrics: of routes with the same
    /// condition only the first. An empty list allocates nothing.
    pub skipped: Vec<usize>,
    /// True if `sticky_by` gave nothing for this request, so that the route was drawn by chance.
    pub sticky_failed: bool,
}

/// The reason for which a route was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The route's condition is the first that holds.
    ConditionHolds,
    /// The route is the first without a condition, and no condition holds.
    NoConditionHolds,
    /// The route is the first without a condition, and there are no conditions.
    OnlyChoice,
    /// The route was drawn by its weight, by chance.
    Share,
    /// The route was drawn by its weight, and the same caller gets it again.
    StickyShare,
    /// The route was next in turn.
    RoundRobin,
    /// The route had the least to do.
    LeastLoaded,
    /// The request named it.
    Override,
    /// The route is a canary, and the request fell into its share.
    Canary,
    /// The decision service named the route.
    OutsideDecision,
}

impl Reason {
    /// All reasons, each at the index of its own number.
    pub const ALL: [Self; 10] = [
        Self::ConditionHolds,
        Self::NoConditionHolds,
        Self::OnlyChoice,
        Self::Share,
        Self::StickyShare,
        Self::RoundRobin,
        Self::LeastLoaded,
        Self::Override,
        Self::Canary,
        Self::OutsideDecision,
    ];

    /// Returns the reason's word in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConditionHolds => "condition_holds",
            Self::NoConditionHolds => "no_condition_holds",
            Self::OnlyChoice => "only_choice",
            Self::Share => "share",
            Self::StickyShare => "sticky_share",
            Self::RoundRobin => "round_robin",
            Self::LeastLoaded => "least_loaded",
            Self::Override => "override",
            Self::Canary => "canary",
            Self::OutsideDecision => "outside_decision",
        }
    }
}

/// The caller of a request, as far as `sticky_by` tells it.
#[derive(Debug, Clone, Copy, Default)]
struct CallerHash {
    /// Hash of the value of `sticky_by`; none without an expression or a value.
    hash: Option<u64>,
    /// True if there is an expression and it gives no value.
    failed: bool,
}

impl RouteDecision {
    /// Makes a decision for a route that was chosen without a look at conditions.
    pub fn new(route: usize, reason: Reason) -> Self {
        Self { route, reason, skipped: Vec::new(), sticky_failed: false }
    }
}

impl Endpoint {
    /// Returns all that CPython can be asked about a request; none where every expression of the endpoint is compiled.
    pub fn question(&self) -> Option<&Arc<Question>> {
        self.conditions.question()
    }

    /// Returns what CPython has to be asked before this request's route is decided: nothing where the request names its
    /// route, or where a condition takes it before the first that CPython evaluates.
    ///
    /// # Errors
    /// See [`Self::overridden`].
    pub fn question_about(&self, request: &Arc<Request>) -> Result<Option<&Arc<Question>>, Fault> {
        let Some(question) = self.question() else { return Ok(None) };
        if self.overridden(request)?.is_some() {
            return Ok(None);
        }
        // Where CPython evaluates more than conditions, no condition makes it unneeded.
        if question.expressions.iter().any(|expression| expression.wants == ResultKind::Value) {
            return Ok(Some(question));
        }
        let evaluation = self.conditions.evaluation(request, None);
        let mut known = self.groups.iter().map(|group| evaluation.foresee(group.condition));
        let is_taken = known.find(|holds| *holds != Some(false)) == Some(Some(true));
        Ok((!is_taken).then_some(question))
    }

    /// Decides as if every route were idle, without what only CPython can evaluate.
    ///
    /// # Errors
    /// See [`Self::decide_by_load`].
    pub fn decide(&self, request: &Arc<Request>) -> Result<RouteDecision, Fault> {
        self.decide_by_load(request, None, |_| LoadReading::default())
    }

    /// Decides the route: the one that the request names, where that is allowed; else one of those whose condition is
    /// the first that holds; else one of those without a condition. `answers` is what CPython said to [`Self::question`];
    /// `load` reads the load of the route with each index.
    ///
    /// # Errors
    /// Fails when the request names an unknown route, when no route takes the request, when a condition exceeds its
    /// budget or cannot be evaluated now, and when a condition fails that must not be skipped.
    pub fn decide_by_load(
        &self,
        request: &Arc<Request>,
        answers: Option<&Arc<Answers>>,
        load: impl Fn(usize) -> LoadReading,
    ) -> Result<RouteDecision, Fault> {
        if let Some(route) = self.overridden(request)? {
            return Ok(RouteDecision::new(route, Reason::Override));
        }
        // Conditions: the first that holds takes the request. A failure is skipped or refuses the request, as configured;
        // an exceeded budget always refuses it, since the rest would cost as much again.
        let mut evaluation: Option<Evaluation> = None;
        let mut skipped = Vec::new();
        let mut taken_by = None;
        for group in &self.groups {
            let evaluation = evaluation.get_or_insert_with(|| self.conditions.evaluation(request, answers.cloned()));
            match evaluation.holds(group.condition) {
                Ok(true) => {
                    taken_by = Some(group);
                    break;
                }
                Ok(false) => {}
                Err(error @ ConditionError::Failed(_)) if group.on_error == OnConditionError::Skip => {
                    self.log_skipped(group, request, &error);
                    skipped.extend(group.split.first());
                }
                Err(error) => return Err(self.condition_failed(group, &error)),
            }
        }
        // Caller: only shares need its hash, so nothing else pays for `sticky_by`.
        let is_weighted = taken_by.map_or(&self.others, |group| &group.split).strategy() == Strategy::Weighted;
        let canary = self.canary.as_ref().filter(|canary| taken_by.is_none() && canary.is_taking());
        let evaluation = || evaluation.unwrap_or_else(|| self.conditions.evaluation(request, answers.cloned()));
        let caller =
            if is_weighted || canary.is_some() { self.caller(request, evaluation) } else { CallerHash::default() };
        // Canary: takes its share of what no condition took, before the other routes.
        let takes = |canary: &&CanaryRoute| match caller.hash {
            Some(hash) => canary.takes(hash),
            None => canary.takes_by_chance(fastrand::f64()),
        };
        if let Some(canary) = canary.filter(takes) {
            let (route, reason) = (canary.route, Reason::Canary);
            return Ok(RouteDecision { route, reason, skipped, sticky_failed: caller.failed });
        }
        // Split: the routes of the condition, or those without one, share by their strategy.
        let (split, undisputed) = match taken_by {
            Some(group) => (&group.split, Reason::ConditionHolds),
            None if self.groups.is_empty() => (&self.others, Reason::OnlyChoice),
            None => (&self.others, Reason::NoConditionHolds),
        };
        let (route, reason) = match split.strategy() {
            Strategy::First => (split.first(), undisputed),
            Strategy::RoundRobin => (split.in_turn(), Reason::RoundRobin),
            Strategy::LeastLoaded => (split.least_loaded(load, |ties| fastrand::usize(..ties)), Reason::LeastLoaded),
            Strategy::Weighted => match caller.hash {
                Some(hash) => (split.by_hash(hash), Reason::StickyShare),
                None => (split.by_chance(fastrand::f64()), Reason::Share),
            },
        };
        let route = route.ok_or_else(|| self.no_route())?;
        Ok(RouteDecision { route, reason, skipped, sticky_failed: caller.failed })
    }

    /// Returns the route that the request's own header names, where the endpoint allows that.
    ///
    /// # Errors
    /// Fails when the endpoint has no such route.
    pub fn overridden(&self, request: &Request) -> Result<Option<usize>, Fault> {
        let asked = self.route_override.then(|| request.headers.get_ignoring_case(header::ASKED_ROUTE)).flatten();
        let Some(asked) = asked else { return Ok(None) };
        let named = std::str::from_utf8(asked).ok().and_then(|alias| self.route_named(alias.trim()));
        named.map(Some).ok_or_else(|| {
            let aliases: Vec<&str> = self.routes.iter().map(|route| &*route.alias).collect();
            let message = format!(
                "header '{}': endpoint `{}` has no route `{}`; its routes are: {}",
                header::ASKED_ROUTE,
                self.name,
                String::from_utf8_lossy(asked),
                aliases.join(", ")
            );
            Fault::permanent(Code::BadRequest, Stage::Route, message)
        })
    }

    /// Evaluates `sticky_by` for this request. A failure is logged, and chance decides.
    fn caller(&self, request: &Request, evaluation: impl FnOnce() -> Evaluation) -> CallerHash {
        let Some(sticky) = &self.sticky else { return CallerHash::default() };
        let hash = evaluation().value(sticky.expression).and_then(|value| sticky::hash_of(&value));
        let hash = hash.unwrap_or_else(|error| {
            if let Some(unlogged) = sticky.log.admit(LogGate::now()) {
                tracing::warn!(
                    endpoint = %self.name,
                    request = %request.source,
                    unlogged,
                    %error,
                    "sticky_by failed and chance decided"
                );
            }
            None
        });
        CallerHash { hash, failed: hash.is_none() }
    }

    fn log_skipped(&self, group: &ConditionGroup, request: &Request, error: &ConditionError) {
        if let Some(unlogged) = group.log.admit(LogGate::now()) {
            tracing::warn!(
                endpoint = %self.name,
                route = self.first_alias(&group.split),
                request = %request.source,
                unlogged,
                %error,
                "condition failed and was skipped"
            );
        }
    }

    fn condition_failed(&self, group: &ConditionGroup, error: &ConditionError) -> Fault {
        let what = match error {
            ConditionError::Failed(_) => "cannot be evaluated on this request",
            ConditionError::Exceeded(_) => "exceeds its bounds on this request",
            ConditionError::Unavailable(_) => "cannot be evaluated now",
        };
        let message = format!(
            "the condition of route `{}` of endpoint `{}` {what}: {error}; the condition is: {}",
            self.first_alias(&group.split),
            self.name,
            self.conditions.source(group.condition)
        );
        match error {
            ConditionError::Unavailable(_) => Fault::passing(Code::TemporarilyUnavailable, Stage::Route, message),
            _ => Fault::permanent(Code::ConditionFailed, Stage::Route, message),
        }
    }

    fn first_alias(&self, split: &Split) -> &str {
        split.first().and_then(|first| self.routes.get(first)).map_or("", |route| &route.alias)
    }

    fn no_route(&self) -> Fault {
        let message = format!(
            "endpoint `{}` has no route for this request: no condition holds, and every route has one",
            self.name
        );
        Fault::permanent(Code::ResourceDoesNotExist, Stage::Route, message)
    }
}

#[cfg(test)]
mod tests;
