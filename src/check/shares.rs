//! Checks of `strategy`, `weight` and `sticky_by`.

use std::collections::BTreeMap;

use super::outline::ExpressionOutline;
use super::validator::{KeyPath, Validator};
use crate::config::{Endpoint, Severity, Strategy};

impl Validator<'_> {
    /// Checks how the routes of an endpoint share, and outlines the expression that decides.
    pub(super) fn shares(&mut self, endpoint: &Endpoint, at: &KeyPath) -> Vec<(String, ExpressionOutline)> {
        let sticky_by = endpoint.sticky_by.as_ref();
        let sticky_by = sticky_by.and_then(|sticky_by| self.sticky_by(endpoint, sticky_by, &at.key("sticky_by")));
        let routes_at = at.key("routes");
        for (index, route) in endpoint.routes.iter().enumerate() {
            let weight_at = routes_at.index(index).key("weight");
            let fits = route.weight.is_none_or(|weight| weight.is_finite() && weight >= 0.0);
            self.require(fits, &weight_at, "must be 0 or more");
            if fits && route.weight.is_some() && endpoint.strategy != Strategy::Weighted {
                let message = "a weight counts for nothing without `strategy: weighted`";
                self.add(&weight_at, Severity::Warning, message, "add that to the endpoint, or leave the weight out");
            }
        }
        if endpoint.strategy == Strategy::Weighted {
            self.some_weight(endpoint, &routes_at);
        }
        sticky_by.map(|outline| ("sticky_by".to_owned(), outline)).into_iter().collect()
    }

    fn sticky_by(&mut self, endpoint: &Endpoint, sticky_by: &str, at: &KeyPath) -> Option<ExpressionOutline> {
        let outline = self.expression(sticky_by, at);
        let has_shares =
            endpoint.strategy == Strategy::Weighted || endpoint.routes.iter().any(|it| it.canary.is_some());
        if !has_shares {
            let message = "it counts for nothing without `strategy: weighted`: only shares are kept for a caller";
            self.add(at, Severity::Warning, message, "add that, or leave it out");
        }
        outline
    }

    /// Reports routes that share and all have weight 0: one at least must take what comes.
    fn some_weight(&mut self, endpoint: &Endpoint, routes_at: &KeyPath) {
        let mut groups: BTreeMap<Option<&str>, (usize, bool)> = BTreeMap::new();
        let share = endpoint.routes.iter().enumerate().filter(|(_, route)| route.canary.is_none());
        for (index, route) in share {
            let (_, takes) = groups.entry(route.model_request_condition.as_deref()).or_insert((index, false));
            *takes |= route.weight != Some(0.0);
        }
        for (condition, (first, takes)) in groups {
            if !takes {
                let which = if condition.is_some() { "with this condition" } else { "without a condition" };
                let message = format!("every route {which} has weight 0, so that no route takes those requests");
                self.error(&routes_at.index(first).key("weight"), message, "give one of them a weight of more than 0");
            }
        }
    }
}
