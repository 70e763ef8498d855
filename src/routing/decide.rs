//! Choosing a route for a request.

use std::sync::Arc;

use serde::Serialize;

use super::condition::{ConditionError, Evaluation};
use super::table::{Endpoint, Route, RouteCondition};
use crate::config::OnConditionError;
use crate::message::{Code, Fault, Request, Stage};
use crate::telemetry::LogGate;

/// The route for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Its index in the endpoint's routes.
    pub route: usize,
    /// Why this one.
    pub reason: Reason,
    /// The routes whose condition failed on this request and was skipped, to be counted. Empty costs nothing.
    pub skipped: Vec<usize>,
}

/// Why a route was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its condition is the first that holds.
    ConditionHolds,
    /// It is the first without a condition, and no condition holds.
    NoConditionHolds,
    /// It is the first without a condition, and there are no conditions.
    OnlyChoice,
}

impl Reason {
    /// Every reason, each at the index of its own number.
    pub const ALL: [Self; 3] = [Self::ConditionHolds, Self::NoConditionHolds, Self::OnlyChoice];

    /// The word that metrics and `signalbox route` use.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConditionHolds => "condition_holds",
            Self::NoConditionHolds => "no_condition_holds",
            Self::OnlyChoice => "only_choice",
        }
    }
}

/// What became of one condition.
pub(super) type Verdict = Result<bool, ConditionError>;

impl Endpoint {
    /// The first route whose condition holds, else the first without one.
    ///
    /// Fails when there is no such route, when a condition took more than a condition may take, and when one failed
    /// that was not to be skipped.
    pub fn decide(&self, request: &Arc<Request>) -> Result<Decision, Fault> {
        self.decide_telling(request, |_, _| {})
    }

    /// Decides, and tells what became of each condition that was evaluated.
    pub(super) fn decide_telling(
        &self,
        request: &Arc<Request>,
        mut tell: impl FnMut(usize, &Verdict),
    ) -> Result<Decision, Fault> {
        let mut evaluation: Option<Evaluation> = None;
        let mut fallback = None;
        let mut skipped = Vec::new();
        for (index, route) in self.routes.iter().enumerate() {
            let Some(condition) = &route.condition else {
                fallback = fallback.or(Some(index));
                continue;
            };
            let evaluation = evaluation.get_or_insert_with(|| self.conditions.evaluation(request));
            let verdict = evaluation.holds(condition.id);
            tell(index, &verdict);
            match verdict {
                Ok(true) => return Ok(Decision { route: index, reason: Reason::ConditionHolds, skipped }),
                Ok(false) => {}
                Err(error @ ConditionError::Failed(_)) if condition.on_error == OnConditionError::Skip => {
                    self.log_skipped(route, condition, request, &error);
                    skipped.push(index);
                }
                Err(error) => return Err(self.condition_failed(route, condition, &error)),
            }
        }
        let reason = if evaluation.is_some() { Reason::NoConditionHolds } else { Reason::OnlyChoice };
        fallback.map(|route| Decision { route, reason, skipped }).ok_or_else(|| self.no_route())
    }

    fn log_skipped(&self, route: &Route, condition: &RouteCondition, request: &Request, error: &ConditionError) {
        if let Some(unlogged) = condition.log.admit(LogGate::now()) {
            tracing::warn!(
                endpoint = %self.name,
                route = %route.alias,
                request = %request.source,
                unlogged,
                %error,
                "condition failed and was skipped"
            );
        }
    }

    fn condition_failed(&self, route: &Route, condition: &RouteCondition, error: &ConditionError) -> Fault {
        let what = match error {
            ConditionError::Failed(_) => "cannot be evaluated on this request",
            ConditionError::Exceeded(_) => "exceeds its bounds on this request",
        };
        let message = format!(
            "the condition of route `{}` of endpoint `{}` {what}: {error}; the condition is: {}",
            route.alias,
            self.name,
            self.conditions.source(condition.id)
        );
        Fault::permanent(Code::ConditionFailed, Stage::Route, message)
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
