//! A snapshot of all routes of one configuration: a request is served by one snapshot from end to end.

use std::sync::Arc;

use super::route::Route;
use crate::canary::CanarySubject;
use crate::config::{self, Config, OnConditionError};
use crate::models::{ModelUriError, Models};
use crate::routing::{DecisionService, Endpoint, RoutingTable};
use crate::telemetry::Metrics;

/// Bits of a place for the index of an endpoint, and for that of a route.
const INDEX_BITS: u32 = 12;

/// Snapshots after which their numbers begin again, so that a place fits a mark.
const NUMBERS: u32 = 32;

/// Joins the routing table with the routes at work.
pub(super) struct Snapshot {
    /// Number that tells the places of this snapshot from those of the ones before.
    number: u32,
    pub(super) table: RoutingTable,
    /// Endpoints in the order of the table.
    endpoints: Vec<LiveEndpoint>,
}

/// Keeps what is at work for one endpoint.
struct LiveEndpoint {
    /// Config that the routes were made of.
    config: config::Endpoint,
    routes: Vec<Arc<Route>>,
    /// Service that decides first.
    decision_service: Option<Arc<DecisionService>>,
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
        let live = |endpoint: &config::Endpoint| {
            let known = before.and_then(|before| before.endpoints.iter().find(|it| it.config.name == endpoint.name));
            let routes =
                endpoint.routes.iter().map(|route| match known.and_then(|it| it.unchanged_route(endpoint, route)) {
                    Some(route) => Ok(Arc::clone(route)),
                    None => Route::new(endpoint, route, config.kafka.largest_record(), models, metrics).map(Arc::new),
                });
            Ok(LiveEndpoint {
                config: endpoint.clone(),
                routes: routes.collect::<Result<_, _>>()?,
                decision_service: known
                    .filter(|known| known.decides_as(endpoint))
                    .and_then(|known| known.decision_service.clone())
                    .or_else(|| DecisionService::new(endpoint, metrics)),
            })
        };
        table.count_in(metrics);
        let endpoints = config.model_endpoints.iter().map(live).collect::<Result<_, _>>()?;
        let number = before.map_or(0, |before| (before.number + 1) % NUMBERS);
        let snapshot = Self { number, table, endpoints };
        if let Some(before) = before {
            snapshot.carry_shares(before);
        }
        Ok(snapshot)
    }

    /// Returns the canaries among the routes.
    pub(super) fn canaries(&self) -> Vec<CanarySubject> {
        let subjects = self.endpoints.iter().filter_map(|LiveEndpoint { config, routes, .. }| {
            let compiled = self.table.named(&config.name)?;
            let (route, share) = compiled.canary()?;
            let statistics = |route: usize| routes[route].statistics.clone();
            Some(CanarySubject {
                endpoint: Arc::clone(&compiled.name),
                route: Arc::clone(&compiled.routes[route].alias),
                model_uri: Arc::clone(&compiled.routes[route].model_uri),
                canary: config.routes[route].canary.clone()?,
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

    /// Tells whether there is more than one route: else no other suffers when one has too much to do.
    pub(super) fn has_several_routes(&self) -> bool {
        self.endpoints.iter().map(|endpoint| endpoint.routes.len()).sum::<usize>() > 1
    }

    /// Returns the routes of an endpoint, in their order.
    pub(super) fn routes(&self, endpoint: &Endpoint) -> &[Arc<Route>] {
        &self.endpoints[endpoint.index].routes
    }

    /// Returns the place of a route in the marks of its requests; 0, no place, of a route that is one of too many.
    pub(super) fn place(&self, endpoint: &Endpoint, route: usize) -> u32 {
        let fits = |index: usize| u32::try_from(index).ok().filter(|index| *index < (1 << INDEX_BITS));
        match (fits(endpoint.index), fits(route + 1)) {
            (Some(endpoint), Some(route)) => ((self.number << INDEX_BITS | endpoint) << INDEX_BITS) | route,
            _ => 0,
        }
    }

    /// Returns the names of the endpoint and the route at a place of this snapshot.
    pub(super) fn route_at(&self, place: u32) -> Option<(Arc<str>, Arc<str>)> {
        let index = |bits: u32| usize::try_from(bits & ((1 << INDEX_BITS) - 1)).unwrap_or_default();
        let endpoint = self.table.at(index(place >> INDEX_BITS))?;
        let route = endpoint.routes.get(index(place).checked_sub(1)?)?;
        let is_ours = place >> (2 * INDEX_BITS) == self.number;
        is_ours.then(|| (Arc::clone(&endpoint.name), Arc::clone(&route.alias)))
    }

    /// Returns the service that decides first for an endpoint.
    pub(super) fn decision_service(&self, endpoint: &Endpoint) -> Option<&Arc<DecisionService>> {
        self.endpoints[endpoint.index].decision_service.as_ref()
    }
}

impl LiveEndpoint {
    /// Tells whether the cache and the breaker of the decision service hold for the new config as well.
    fn decides_as(&self, new: &config::Endpoint) -> bool {
        let aliases = |endpoint: &config::Endpoint| -> Vec<String> {
            endpoint.routes.iter().map(|route| route.alias.clone()).collect()
        };
        self.config.decision == new.decision && aliases(&self.config) == aliases(new)
    }

    /// Returns the route that would not change if it were made anew from this config.
    fn unchanged_route(&self, endpoint: &config::Endpoint, route: &config::Route) -> Option<&Arc<Route>> {
        let index = self.config.routes.iter().position(|known| known.alias == route.alias)?;
        let is_same = identity(&self.config, &self.config.routes[index]) == identity(endpoint, route);
        is_same.then(|| &self.routes[index])
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
