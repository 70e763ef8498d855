//! Everything that a configuration says about routes, as one value: a request is served by one of these from end to end.

use std::sync::Arc;

use super::route::Target;
use crate::canary::Subject;
use crate::config::{self, Config, OnConditionError};
use crate::models::{ModelUriError, Models};
use crate::routing::{Endpoint, Outside, RoutingTable};
use crate::telemetry::Metrics;

/// The routing table, and what stands behind its routes.
pub(super) struct Snapshot {
    pub(super) table: RoutingTable,
    /// By endpoint and route, in the order of the table.
    targets: Vec<Vec<Arc<Target>>>,
    /// The services outside that decide first, by endpoint.
    outside: Vec<Option<Arc<Outside>>>,
    /// What the targets were made of.
    endpoints: Vec<config::Endpoint>,
}

impl Snapshot {
    /// Binds each route of the table to what stands behind it. That is what stood behind it before, with all that is known
    /// of it, where nothing has changed that it is made of.
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
        let target = |endpoint: &config::Endpoint, route: &config::Route| {
            let known = before.and_then(|before| before.same(endpoint, route)).cloned();
            known.map_or_else(
                || Target::new(endpoint, route, config.kafka.largest_record(), models, metrics).map(Arc::new),
                Ok,
            )
        };
        let endpoints = || config.model_endpoints.iter();
        let targets = endpoints().map(|endpoint| endpoint.routes.iter().map(|route| target(endpoint, route)).collect());
        let targets = targets.collect::<Result<_, _>>()?;
        let outside = endpoints().map(|endpoint| {
            let known = before.and_then(|before| before.same_outside(endpoint));
            known.or_else(|| Outside::new(endpoint, metrics))
        });
        let snapshot = Self { outside: outside.collect(), targets, table, endpoints: config.model_endpoints.clone() };
        if let Some(before) = before {
            snapshot.carry_shares(before);
        }
        Ok(snapshot)
    }

    /// The canaries among the routes.
    pub(super) fn canaries(&self) -> Vec<Subject> {
        let subjects = self.endpoints.iter().filter_map(|endpoint| {
            let compiled = self.table.named(&endpoint.name)?;
            let (route, share) = compiled.canary()?;
            let statistics = |route: usize| self.targets(compiled)[route].statistics.clone();
            Some(Subject {
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

    /// Canaries keep their shares; those that are new or other ones have none, until it is known where they stand.
    fn carry_shares(&self, before: &Self) {
        let before = before.canaries();
        for Subject { endpoint, route, model_uri, canary, share, .. } in self.canaries() {
            let is_same = |known: &&Subject| {
                (&known.endpoint, &known.route, &known.model_uri) == (&endpoint, &route, &model_uri)
                    && known.canary.steps == canary.steps
            };
            if let Some(known) = before.iter().find(is_same) {
                share.set(known.share.get());
            }
        }
    }

    /// The service outside of an endpoint, if its cache and its breaker hold for this one as well.
    fn same_outside(&self, endpoint: &config::Endpoint) -> Option<Arc<Outside>> {
        let index = self.endpoints.iter().position(|known| known.name == endpoint.name)?;
        let known = &self.endpoints[index];
        let aliases = |endpoint: &config::Endpoint| -> Vec<String> {
            endpoint.routes.iter().map(|route| route.alias.clone()).collect()
        };
        let is_same = known.decision == endpoint.decision && aliases(known) == aliases(endpoint);
        self.outside.get(index).filter(|_| is_same)?.clone()
    }

    /// What would not change if it were made anew for this route.
    fn same(&self, endpoint: &config::Endpoint, route: &config::Route) -> Option<&Arc<Target>> {
        let endpoint_at = self.endpoints.iter().position(|known| known.name == endpoint.name)?;
        let known = &self.endpoints[endpoint_at];
        let route_at = known.routes.iter().position(|it| it.alias == route.alias)?;
        let is_same = substance(known, &known.routes[route_at]) == substance(endpoint, route);
        is_same.then(|| &self.targets[endpoint_at][route_at])
    }

    /// Whether there is more than one route: else no other suffers when one has too much to do.
    pub(super) fn has_several_routes(&self) -> bool {
        self.targets.iter().map(Vec::len).sum::<usize>() > 1
    }

    /// What stands behind the routes of an endpoint, in their order.
    pub(super) fn targets(&self, endpoint: &Endpoint) -> &[Arc<Target>] {
        &self.targets[endpoint.index]
    }

    /// The same of the endpoint with this index.
    pub(super) fn targets_at(&self, endpoint: usize) -> &[Arc<Target>] {
        self.targets.get(endpoint).map_or(&[], Vec::as_slice)
    }

    /// The service outside that decides first for an endpoint.
    pub(super) fn outside(&self, endpoint: &Endpoint) -> Option<&Arc<Outside>> {
        self.outside.get(endpoint.index)?.as_ref()
    }
}

/// What a target is made of: its route without what only the routing table knows, and where in the endpoint the other
/// routes are that it names; and whether it is compared with a canary.
fn substance(endpoint: &config::Endpoint, route: &config::Route) -> (config::Route, [Option<usize>; 2], bool) {
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
