//! The parts that serve models, as handles, the follower and operators share them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::background::Background;
use super::catalog::ModelCatalog;
use super::faults::not_found;
use super::loader::Loader;
use super::model::Model;
use super::registry::Registry;
use super::residency::ResidencyManager;
use super::unload::UnloadReason;
use super::version::Version;
use super::versions::VersionCatalog;
use crate::message::{Deadline, Fault};
use crate::telemetry::Metrics;

/// Bundles the parts that serve models: a URI is resolved to a version, the version is loaded, residency keeps it.
pub(super) struct Serving {
    pub(super) registry: Arc<Registry>,
    pub(super) catalog: ModelCatalog,
    pub(super) versions: VersionCatalog,
    pub(super) loader: Arc<Loader>,
    pub(super) residency: Arc<ResidencyManager>,
    pub(super) background: Background,
    pub(super) metrics: Metrics,
}

impl Serving {
    /// Loads the version that takes a model's calls, if the model is one that is loaded here. `urgent` when a request
    /// waits.
    pub(super) async fn load_model(self: &Arc<Self>, model: &Arc<Model>, urgent: bool) -> Result<(), Fault> {
        let Some(hosted) = model.hosted() else { return Ok(()) };
        let version = self.version(model, hosted, Deadline::NONE).await?;
        self.loader.loaded(&version, urgent, Deadline::NONE).await.map(drop)
    }

    /// Unloads a version that no URI stands for any more.
    pub(super) fn unload_unless_serving(&self, version: &Version, reason: UnloadReason) {
        let pins = self.catalog.pins_of(version);
        version.pinned.store(pins.contains(&true), Ordering::Relaxed);
        if pins.is_empty() {
            self.residency.unload(version, reason);
        }
    }

    /// Finds the versions with this id.
    pub(super) fn versions_named(&self, id: &str) -> Result<Vec<Arc<Version>>, Fault> {
        let mut versions = self.versions.all();
        let known: BTreeSet<_> = versions.iter().map(|version| version.name.to_string()).collect();
        versions.retain(|version| *version.name == *id);
        if versions.is_empty() {
            let known = if known.is_empty() { vec!["none yet".to_owned()] } else { known.into_iter().collect() };
            return Err(not_found(format!("no version {id} is known; known are: {}", known.join(", "))));
        }
        Ok(versions)
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Serving")
            .field("catalog", &self.catalog)
            .field("residency", &self.residency)
            .finish_non_exhaustive()
    }
}
