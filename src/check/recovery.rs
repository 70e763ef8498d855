//! Checks of `timeout`, `fallback`, `fallback_on`, `breaker` and `retries`.

use super::validator::{KeyPath, Validator};
use crate::config::{Breaker, Endpoint, Retries, Route};

impl Validator<'_> {
    /// Checks how a route recovers from calls that fail.
    pub(super) fn recovery(&mut self, endpoint: &Endpoint, route: &Route, at: &KeyPath) {
        if let Some(timeout) = route.timeout {
            self.positive(timeout, &at.key("timeout"));
            let fits = timeout <= endpoint.timeout;
            self.require(fits, &at.key("timeout"), "must not be longer than the timeout of the endpoint");
        }
        if let Some(causes) = &route.fallback_on {
            let causes_at = at.key("fallback_on");
            self.require(!causes.is_empty(), &causes_at, "must name a cause; all of them count without this key");
            if route.fallback.is_none() {
                self.error(
                    &causes_at,
                    "there is nothing to fall back to",
                    "name a route with `fallback`, or leave it out",
                );
            }
        }
        if let Some(breaker) = &route.breaker {
            self.breaker(breaker, &at.key("breaker"));
        }
        if let Some(retries) = &route.retries {
            self.retries(retries, &at.key("retries"));
        }
    }

    fn breaker(&mut self, breaker: &Breaker, at: &KeyPath) {
        for (key, share) in [("error_share", breaker.error_share), ("slow_share", breaker.slow_share)] {
            self.require(share > 0.0 && share <= 1.0, &at.key(key), "must be more than 0, and 1 at most");
        }
        if let Some(slow_call) = breaker.slow_call {
            self.positive(slow_call, &at.key("slow_call"));
        }
        self.positive(breaker.window, &at.key("window"));
        self.require(breaker.minimum_calls >= 1, &at.key("minimum_calls"), "must be at least 1");
        self.positive(breaker.open_for, &at.key("open_for"));
        self.require(breaker.probes >= 1, &at.key("probes"), "must be at least 1");
    }

    fn retries(&mut self, retries: &Retries, at: &KeyPath) {
        let some = retries.max_attempts >= 2;
        self.require(some, &at.key("max_attempts"), "must be at least 2: the first call is one of them");
        self.positive(retries.backoff, &at.key("backoff"));
        let grows = retries.max_backoff >= retries.backoff;
        self.require(grows, &at.key("max_backoff"), "must not be shorter than backoff");
    }

    /// Reports fallbacks that go in a circle. Each route's fallback has one of its own, and so on: that has to come to
    /// an end.
    pub(super) fn fallback_circles(&mut self, endpoint: &Endpoint, routes_at: &KeyPath) {
        let fallback = |route: usize| {
            let alias = endpoint.routes.get(route)?.fallback.as_ref()?;
            endpoint.routes.iter().position(|other| other.alias == *alias).filter(|next| *next != route)
        };
        for start in 0..endpoint.routes.len() {
            let followed = std::iter::successors(fallback(start), |route| fallback(*route)).take(endpoint.routes.len());
            let Some(length) = followed.clone().position(|route| route == start) else { continue };
            let circle: Vec<usize> = std::iter::once(start).chain(followed.take(length + 1)).collect();
            // A circle is reported once, at the first of its routes.
            if circle.iter().any(|route| *route < start) {
                continue;
            }
            let aliases = circle
                .iter()
                .map(|route| self.written(&routes_at.index(*route).key("alias"), &endpoint.routes[*route].alias));
            let message = format!("the fallbacks go in a circle: {}", aliases.collect::<Vec<_>>().join(" → "));
            self.error(&routes_at.index(start).key("fallback"), message, "let one of them have no fallback");
        }
    }
}
