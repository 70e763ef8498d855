//! Everything that a configuration says about routes, as one value: a request is served by one of these from end to end.

use super::target::Target;
use crate::config::Config;
use crate::models::{ModelUriError, Models};
use crate::routing::{Endpoint, RoutingTable};
use crate::telemetry::Metrics;

/// The routing table, and what stands behind its routes.
pub(super) struct Snapshot {
    pub(super) table: RoutingTable,
    /// By endpoint and route, in the order of the table.
    targets: Vec<Vec<Target>>,
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
        Ok(Self { targets: targets.collect::<Result<_, _>>()?, table })
    }

    /// What stands behind the routes of an endpoint, in their order.
    pub(super) fn targets(&self, endpoint: &Endpoint) -> &[Target] {
        &self.targets[endpoint.index]
    }
}
