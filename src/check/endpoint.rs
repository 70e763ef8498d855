//! Checks of an endpoint and its routes.

use std::collections::HashMap;

use super::outline::{EndpointOutline, RouteOutline};
use super::validator::{KeyPath, Validator, is_served_elsewhere};
use crate::config::{Endpoint, Severity, Strategy, is_name};

impl Validator<'_> {
    pub(super) fn endpoints(&mut self, endpoints: &[Endpoint]) -> Vec<EndpointOutline> {
        let at = KeyPath::default().key("model_endpoints");
        self.require(!endpoints.is_empty(), &at, "at least one endpoint is needed");
        self.unique(&at, "name", endpoints.iter().map(|endpoint| &endpoint.name));
        endpoints.iter().enumerate().map(|(index, endpoint)| self.endpoint(endpoint, &at.index(index))).collect()
    }

    fn endpoint(&mut self, endpoint: &Endpoint, at: &KeyPath) -> EndpointOutline {
        let name_at = at.key("name");
        if !is_name(&endpoint.name) {
            let message = format!("{} is not a name", self.shown(&name_at, &endpoint.name));
            self.error(&name_at, message, "letters, digits, '-', '_' and '.'");
        }
        self.positive(endpoint.timeout, &at.key("timeout"));
        self.names(endpoint, &at.key("let"));
        let routes_at = at.key("routes");
        self.require(!endpoint.routes.is_empty(), &routes_at, "at least one route is needed");
        self.unique(&routes_at, "alias", aliases(endpoint));
        let routes = (0..endpoint.routes.len()).map(|index| self.route(endpoint, index, &routes_at)).collect();
        let mut expressions = self.shares(endpoint, at);
        self.fallback_circles(endpoint, &routes_at);
        if let Some(decision) = &endpoint.decision {
            expressions.extend(self.decision(decision, &at.key("decision")));
        }
        EndpointOutline { routes, name: self.written(&name_at, &endpoint.name), expressions }
    }

    fn route(&mut self, endpoint: &Endpoint, index: usize, routes_at: &KeyPath) -> RouteOutline {
        let (route, at) = (&endpoint.routes[index], &routes_at.index(index));
        let (alias_at, uri_at) = (at.key("alias"), at.key("model_uri"));
        if route.alias.trim().is_empty() || route.alias.chars().any(char::is_control) {
            self.error(&alias_at, "an alias needs at least one character, and no control characters", "");
        }
        self.model_uri(&route.model_uri, &uri_at);
        let condition_at = at.key("model_request_condition");
        let condition = route.model_request_condition.as_ref();
        let condition = condition.and_then(|condition| self.condition(condition, &condition_at));
        for (key, target) in [("fallback", &route.fallback), ("shadow", &route.shadow)] {
            let Some(target) = target else { continue };
            let key_at = at.key(key);
            if *target == route.alias {
                self.error(&key_at, "a route cannot be its own", "name another route of this endpoint");
            } else {
                self.names_route(target, &key_at, endpoint, routes_at);
            }
        }
        self.recovery(endpoint, route, at);
        self.require(route.max_concurrency != Some(0), &at.key("max_concurrency"), "must be at least 1");
        if is_served_elsewhere(&route.model_uri) {
            self.not_hosted(route, at);
        } else {
            self.hosting(route, at);
        }
        self.canary(endpoint, route, at);
        self.batching(route, &at.key("batch"));
        let (alias, model_uri) = (self.written(&alias_at, &route.alias), self.written(&uri_at, &route.model_uri));
        RouteOutline { alias, model_uri, condition }
    }

    /// Checks that a route of the endpoint has this alias, which stands at `at`.
    pub(super) fn names_route(&mut self, alias: &String, at: &KeyPath, endpoint: &Endpoint, routes_at: &KeyPath) {
        if !aliases(endpoint).any(|known| known == alias) {
            let help = format!("routes of this endpoint: {}", self.list(routes_at, "alias", aliases(endpoint)));
            self.error(at, format!("no route has the alias {}", self.shown(at, alias)), &help);
        }
    }

    /// Warns of routes that no request can take.
    pub(super) fn unreachable(&mut self, endpoint: &Endpoint, routes_at: &KeyPath) {
        if endpoint.strategy != Strategy::First || endpoint.decision.is_some() || endpoint.route_override {
            return;
        }
        let named = |alias: &String| {
            endpoint.routes.iter().any(|it| it.fallback.as_ref() == Some(alias) || it.shadow.as_ref() == Some(alias))
        };
        let mut seen: HashMap<Option<&str>, usize> = HashMap::new();
        for (index, route) in endpoint.routes.iter().enumerate() {
            if route.canary.is_some() {
                continue;
            }
            let condition = route.model_request_condition.as_deref();
            let Some(first) = seen.get(&condition) else {
                seen.insert(condition, index);
                continue;
            };
            // A fallback or shadow is reached by its name.
            if named(&route.alias) {
                continue;
            }
            let first = self.found(&routes_at.index(*first)).path;
            let (message, help) = match condition {
                None => (
                    format!("no request can take this route: {first} has no condition either and comes first"),
                    "give it a model_request_condition, or remove it",
                ),
                Some(_) => (
                    format!("no request can take this route: {first} has the same condition and comes first"),
                    "change its condition, or remove it",
                ),
            };
            self.add(&routes_at.index(index), Severity::Warning, message, help);
        }
    }
}

fn aliases(endpoint: &Endpoint) -> impl Iterator<Item = &String> {
    endpoint.routes.iter().map(|route| &route.alias)
}
