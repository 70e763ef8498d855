//! The parts that serve models, as handles, the follower and operators share them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::catalog::ModelCatalog;
use super::loader::Loader;
use super::model::{Model, ModelSource};
use super::residency::ResidencyManager;
use super::resolver::Resolver;
use super::unload::UnloadReason;
use super::version::Version;
use super::versions::VersionCatalog;
use crate::message::{Code, Deadline, Fault, Stage};

/// Bundles the parts that serve models: a URI is resolved to a version, the version is loaded, residency keeps it.
pub(super) struct Serving {
    pub(super) catalog: ModelCatalog,
    pub(super) versions: Arc<VersionCatalog>,
    pub(super) resolver: Arc<Resolver>,
    pub(super) loader: Arc<Loader>,
    pub(super) residency: Arc<ResidencyManager>,
}

impl Serving {
    /// Loads the version that takes a model's calls, if the model is one that is loaded here. `urgent` when a request
    /// waits.
    pub(super) async fn load_model(&self, model: &Arc<Model>, urgent: bool) -> Result<(), Fault> {
        let ModelSource::Hosted(hosted) = &model.source else { return Ok(()) };
        let version = self.resolver.version(model, hosted, Deadline::NONE).await?;
        self.loader.loaded(&version, urgent, Deadline::NONE).await.map(drop)
    }

    /// Loads a version, or the version that a URI stands for, in each of the ways it is hosted; and waits until that is
    /// done.
    ///
    /// # Errors
    ///
    /// The fault of the first load that failed, or `RESOURCE_DOES_NOT_EXIST` when nothing has this id.
    pub(super) async fn load(&self, id: &str) -> Result<(), Fault> {
        let models: Vec<_> = self.catalog.all().into_iter().filter(|model| **model.uri.text() == *id).collect();
        let mut result = Ok(());
        for model in &models {
            result = result.and(self.load_model(model, true).await);
        }
        if models.is_empty() {
            for version in self.versions_named(id)? {
                result = result.and(self.loader.loaded(&version, true, Deadline::NONE).await.map(drop));
            }
        }
        result
    }

    /// Unloads each version with this id. Calls under way get their answers; the next call loads it again.
    ///
    /// # Errors
    ///
    /// `RESOURCE_DOES_NOT_EXIST` when no version has this id, `BAD_REQUEST` when none of them is loaded.
    pub(super) fn unload(&self, id: &str) -> Result<(), Fault> {
        let mut unloaded = false;
        for version in self.versions_named(id)? {
            unloaded |= self.residency.unload(&version, UnloadReason::Operator);
        }
        if unloaded {
            return Ok(());
        }
        Err(Fault::permanent(Code::BadRequest, Stage::Load, format!("{id} is not loaded")))
    }

    /// Unloads a version that no URI stands for any more.
    pub(super) fn unload_unless_serving(&self, version: &Version, reason: UnloadReason) {
        let pins = self.catalog.pins_of(version);
        version.pinned.store(pins.contains(&true), Ordering::Relaxed);
        if pins.is_empty() {
            self.residency.unload(version, reason);
        }
    }

    fn versions_named(&self, id: &str) -> Result<Vec<Arc<Version>>, Fault> {
        let mut versions = self.versions.all();
        let known: BTreeSet<_> = versions.iter().map(|version| version.name.to_string()).collect();
        versions.retain(|version| *version.name == *id);
        if versions.is_empty() {
            let known = if known.is_empty() { vec!["none yet".to_owned()] } else { known.into_iter().collect() };
            let message = format!("no version {id} is known; known are: {}", known.join(", "));
            return Err(Fault::permanent(Code::ResourceDoesNotExist, Stage::Load, message));
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
