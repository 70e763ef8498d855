//! Everything that a configuration says about routes, as one value: a request is served by one of these from end to end.

use std::sync::Arc;

use super::target::Target;
use crate::canary::Subject;
use crate::config::Config;
use crate::models::{ModelUriError, Models};
use crate::routing::{Endpoint, Outside, RoutingTable};
use crate::telemetry::Metrics;

/// The routing table, and what stands behind its routes.
pub(super) struct Snapshot {
    pub(super) table: RoutingTable,
    /// By endpoint and route, in the order of the table.
    targets: Vec<Vec<Target>>,
    /// The services outside that decide first, by endpoint.
    outside: Vec<Option<Arc<Outside>>>,
}

impl Snapshot {
    /// Binds each route of the table to what stands behind it.
    ///
    /// # Errors
    /// When a model URI cannot be read, which a checked config rules out.
    pub(super) fn new(
        config: &Config,
        table: RoutingTable,
        models: &Models,
        metrics: &Metrics,
    ) -> Result<Self, ModelUriError> {
        let targets = config.model_endpoints.iter().map(|endpoint| {
            endpoint.routes.iter().map(|route| Target::new(endpoint, route, models, metrics)).collect()
        });
        let outside = config.model_endpoints.iter().map(|endpoint| Outside::new(endpoint, metrics)).collect();
        Ok(Self { outside, targets: targets.collect::<Result<_, _>>()?, table })
    }

    /// The canaries among the routes.
    pub(super) fn canaries(&self, config: &Config) -> Vec<Subject> {
        let endpoints = config.model_endpoints.iter().filter_map(|endpoint| {
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
        endpoints.collect()
    }

    /// What stands behind the routes of an endpoint, in their order.
    pub(super) fn targets(&self, endpoint: &Endpoint) -> &[Target] {
        &self.targets[endpoint.index]
    }

    /// The same of the endpoint with this index.
    pub(super) fn targets_at(&self, endpoint: usize) -> &[Target] {
        self.targets.get(endpoint).map_or(&[], Vec::as_slice)
    }

    /// The service outside that decides first for an endpoint.
    pub(super) fn outside(&self, endpoint: &Endpoint) -> Option<&Arc<Outside>> {
        self.outside.get(endpoint.index)?.as_ref()
    }
}
