//! Checks of `canary`.

use super::validator::{KeyPath, Validator};
use crate::config::{Canary, Endpoint, Route};

impl Validator<'_> {
    pub(super) fn canary(&mut self, endpoint: &Endpoint, route: &Route, at: &KeyPath) {
        let Some(canary) = &route.canary else { return };
        let at = at.key("canary");
        self.steps(canary, &at.key("steps"));
        self.positive(canary.every, &at.key("every"));
        let abort_at = at.key("abort_if");
        let share = canary.abort_if.error_share;
        self.require((0.0..=1.0).contains(&share), &abort_at.key("error_share"), "must be from 0 to 1");
        let ratio = canary.abort_if.p95_ratio;
        self.require(ratio.is_finite() && ratio >= 1.0, &abort_at.key("p95_ratio"), "must be 1 or more");
        let calls_at = abort_at.key("minimum_calls");
        self.require(canary.abort_if.minimum_calls >= 1, &calls_at, "must be at least 1");
        if route.model_request_condition.is_some() {
            let help = "leave one of them out";
            self.error(&at, "a canary takes its share of what no condition took, so it has no condition", help);
        }
        if route.weight.is_some() {
            self.error(&at, "a canary's share moves by itself, so it has no weight", "leave `weight` out");
        }
        let others = || endpoint.routes.iter().filter(|other| other.alias != route.alias);
        if others().any(|other| other.canary.is_some()) {
            self.error(&at, "an endpoint has one canary at a time", "leave one of them out");
        }
        if !others().any(|other| other.canary.is_none() && other.model_request_condition.is_none()) {
            let help = "add another route without a condition";
            self.error(&at, "there is no other route without a condition that takes the rest", help);
        }
    }

    fn steps(&mut self, canary: &Canary, at: &KeyPath) {
        self.require(!canary.steps.is_empty(), at, "at least one step is needed");
        for (index, step) in canary.steps.iter().enumerate() {
            let fits = *step > 0.0 && *step <= 100.0;
            self.require(fits, &at.index(index), "must be more than 0, and 100 at most: a share in percent");
        }
        let rise = canary.steps.windows(2).all(|pair| pair[0] < pair[1]);
        self.require(rise, at, "each step must be more than the one before");
    }
}
