//! A snapshot of all routes of one configuration: a request is served by one snapshot from end to end.

use std::sync::Arc;

use super::route::Route;
use crate::canary::CanarySubject;
use crate::config::{self, Config, OnConditionError};
use crate::models::{ModelUriError, Models};
use crate::routing::{DecisionService, Endpoint, RoutingTable};
use crate::telemetry::Metrics;

/// Joins the routing table with the routes at work.
pub(super) struct Snapshot {
    pub(super) table: RoutingTable,
    /// Routes by endpoint, in the order of the table.
    routes: Vec<Vec<Arc<Route>>>,
    /// Decision services, which decide first, by endpoint.
    decision_services: Vec<Option<Arc<DecisionService>>>,
    /// Config that the routes were made of.
    endpoints: Vec<config::Endpoint>,
}

impl Snapshot {
    /// Makes the routes of the table. A route stays the same as before, with all that is known of it, where its config
    /// has not changed.
    ///
    /// # Errors
    /// When a model URI cannot be read, which a checked config rules out.
    pub(super) fn new(
        config: &Config,
        table: RoutingTable,
        models: &Models,
        metrics: &Metrics,
        before: Option<&Self>,
    ) -> Result<Self, ModelUriError> {
        let runtime_route = |endpoint: &config::Endpoint, route: &config::Route| {
            let known = before.and_then(|before| before.unchanged_route(endpoint, route)).cloned();
            known.map_or_else(
                || Route::new(endpoint, route, config.kafka.largest_record(), models, metrics).map(Arc::new),
                Ok,
            )
        };
        let endpoints = || config.model_endpoints.iter();
        let routes =
            endpoints().map(|endpoint| endpoint.routes.iter().map(|route| runtime_route(endpoint, route)).collect());
        let routes = routes.collect::<Result<_, _>>()?;
        let decision_services = endpoints().map(|endpoint| {
            let known = before.and_then(|before| before.unchanged_decision_service(endpoint));
            known.or_else(|| DecisionService::new(endpoint, metrics))
        });
        let decision_services = decision_services.collect();
        let snapshot = Self { routes, decision_services, table, endpoints: config.model_endpoints.clone() };
        if let Some(before) = before {
            snapshot.carry_shares(before);
        }
        Ok(snapshot)
    }

    /// Returns the canaries among the routes.
    pub(super) fn canaries(&self) -> Vec<CanarySubject> {
        let subjects = self.endpoints.iter().filter_map(|endpoint| {
            let compiled = self.table.named(&endpoint.name)?;
            let (route, share) = compiled.canary()?;
            let statistics = |route: usize| self.routes(compiled)[route].statistics.clone();
            Some(CanarySubject {
                endpoint: Arc::clone(&compiled.name),
                route: Arc::clone(&compiled.routes[route].alias),
                model_uri: Arc::clone(&compiled.routes[route].model_uri),
                canary: endpoint.routes[route].canary.clone()?,
                share: Arc::clone(share),
                own: statistics(route)?,
                others: compiled.others().filter_map(statistics).collect(),
            })
        });
        subjects.collect()
    }

    /// Carries the shares of canaries over from before; canaries that are new or have changed have none, until their
    /// state is known.
    fn carry_shares(&self, before: &Self) {
        let before = before.canaries();
        for CanarySubject { endpoint, route, model_uri, canary, share, .. } in self.canaries() {
            let is_same = |known: &&CanarySubject| {
                (&known.endpoint, &known.route, &known.model_uri) == (&endpoint, &route, &model_uri)
                    && known.canary.steps == canary.steps
            };
            if let Some(known) = before.iter().find(is_same) {
                share.set(known.share.get());
            }
        }
    }

    /// Returns the decision service of an endpoint, if its cache and its breaker hold for the new config as well.
    fn unchanged_decision_service(&self, endpoint: &config::Endpoint) -> Option<Arc<DecisionService>> {
        let index = self.endpoints.iter().position(|known| known.name == endpoint.name)?;
        let known = &self.endpoints[index];
        let aliases = |endpoint: &config::Endpoint| -> Vec<String> {
            endpoint.routes.iter().map(|route| route.alias.clone()).collect()
        };
        let is_same = known.decision == endpoint.decision && aliases(known) == aliases(endpoint);
        self.decision_services.get(index).filter(|_| is_same)?.clone()
    }

    /// Returns the route that would not change if it were made anew from this config.
    fn unchanged_route(&self, endpoint: &config::Endpoint, route: &config::Route) -> Option<&Arc<Route>> {
        let endpoint_at = self.endpoints.iter().position(|known| known.name == endpoint.name)?;
        let known = &self.endpoints[endpoint_at];
        let route_at = known.routes.iter().position(|it| it.alias == route.alias)?;
        let is_same = identity(known, &known.routes[route_at]) == identity(endpoint, route);
        is_same.then(|| &self.routes[endpoint_at][route_at])
    }

    /// Tells whether there is more than one route: else no other suffers when one has too much to do.
    pub(super) fn has_several_routes(&self) -> bool {
        self.routes.iter().map(Vec::len).sum::<usize>() > 1
    }

    /// Returns the routes of an endpoint, in their order.
    pub(super) fn routes(&self, endpoint: &Endpoint) -> &[Arc<Route>] {
        &self.routes[endpoint.index]
    }

    /// Returns the routes of the endpoint with this index.
    pub(super) fn routes_at(&self, endpoint: usize) -> &[Arc<Route>] {
        self.routes.get(endpoint).map_or(&[], Vec::as_slice)
    }

    /// Returns the service that decides first for an endpoint.
    pub(super) fn decision_service(&self, endpoint: &Endpoint) -> Option<&Arc<DecisionService>> {
        self.decision_services.get(endpoint.index)?.as_ref()
    }
}

/// Returns all config that a route at work is made of: its own without the keys that only the routing table uses, the
/// places in the endpoint of the other routes that it names, and whether it is compared with a canary.
fn identity(endpoint: &config::Endpoint, route: &config::Route) -> (config::Route, [Option<usize>; 2], bool) {
    let route = config::Route {
        model_request_condition: None,
        on_condition_error: OnConditionError::default(),
        weight: None,
        ..route.clone()
    };
    let place = |alias: &Option<String>| {
        let alias = alias.as_ref()?;
        endpoint.routes.iter().position(|route| route.alias == *alias)
    };
    let places = [place(&route.fallback), place(&route.shadow)];
    (route, places, endpoint.has_canary())
}

#[cfg(test)]
mod tests;
