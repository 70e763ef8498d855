//! Checks of an endpoint and its routes.

use std::collections::HashMap;

use super::outline::{EndpointOutline, RouteOutline};
use super::validator::{KeyPath, Validator, is_served_elsewhere};
use crate::config::{Endpoint, Route, Severity, Strategy, is_name};

impl Validator<'_> {
    pub(super) fn endpoints(&mut self, endpoints: &[Endpoint]) -> Vec<EndpointOutline> {
        let at = KeyPath::default().key("model_endpoints");
        self.require(!endpoints.is_empty(), &at, "at least one endpoint is needed");
        self.unique(endpoints.iter().enumerate().map(|(index, it)| (at.index(index).key("name"), it.name.as_str())));
        endpoints.iter().enumerate().map(|(index, endpoint)| self.endpoint(endpoint, &at.index(index))).collect()
    }

    fn endpoint(&mut self, endpoint: &Endpoint, at: &KeyPath) -> EndpointOutline {
        let name_at = at.key("name");
        if !is_name(&endpoint.name) {
            let message = format!("{} is not a name", self.shown(&name_at, &endpoint.name));
            self.error(&name_at, message, "letters, digits, '-', '_' and '.'");
        }
        self.positive(endpoint.timeout, &at.key("timeout"));
        let routes_at = at.key("routes");
        let routes = &endpoint.routes;
        self.require(!routes.is_empty(), &routes_at, "at least one route is needed");
        self.unique(
            routes.iter().enumerate().map(|(index, it)| (routes_at.index(index).key("alias"), it.alias.as_str())),
        );
        let outlines =
            routes.iter().enumerate().map(|(index, route)| self.route(endpoint, route, &routes_at.index(index)));
        let outlines = outlines.collect();
        self.shares(endpoint, at);
        self.fallback_circles(endpoint, &routes_at);
        if let Some(decision) = &endpoint.decision {
            self.decision(decision, &at.key("decision"));
        }
        EndpointOutline { routes: outlines, name: self.written(&name_at, &endpoint.name) }
    }

    fn route(&mut self, endpoint: &Endpoint, route: &Route, at: &KeyPath) -> RouteOutline {
        let (alias_at, uri_at) = (at.key("alias"), at.key("model_uri"));
        if route.alias.trim().is_empty() || route.alias.chars().any(char::is_control) {
            self.error(&alias_at, "an alias needs at least one character, and no control characters", "");
        }
        self.model_uri(&route.model_uri, &uri_at);
        let condition_at = at.key("model_request_condition");
        let condition = route.model_request_condition.as_ref().and_then(|condition| {
            Some((self.condition(condition, &condition_at)?, self.written(&condition_at, condition)))
        });
        for (key, target) in [("fallback", &route.fallback), ("shadow", &route.shadow)] {
            let Some(target) = target else { continue };
            let (aliases, key_at) = (endpoint.routes.iter().map(|it| it.alias.as_str()), at.key(key));
            if *target == route.alias {
                self.error(&key_at, "a route cannot be its own", "name another route of this endpoint");
            } else if !aliases.clone().any(|alias| alias == target) {
                let help = format!("routes of this endpoint: {}", self.aliases(endpoint, at));
                let message = format!("no route has the alias {}", self.shown(&key_at, target));
                self.error(&key_at, message, &help);
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

    /// Lists the aliases of a route's endpoint, as a message may show them.
    pub(super) fn aliases(&self, endpoint: &Endpoint, route_at: &KeyPath) -> String {
        let routes_at = KeyPath(route_at.0.split_last().map_or_else(Vec::new, |(_, routes)| routes.to_vec()));
        let aliases = endpoint.routes.iter().enumerate();
        aliases
            .map(|(index, route)| self.written(&routes_at.index(index).key("alias"), &route.alias))
            .collect::<Vec<_>>()
            .join(", ")
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
