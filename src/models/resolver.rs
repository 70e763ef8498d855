//! Resolving a URI: the version that it stands for, and that takes its calls.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::background::Background;
use super::backoff::LoadStep;
use super::model::{HostedModel, Model, ModelSource, ServingVersion};
use super::registry::Registry;
use super::resolved_model::ResolvedModel;
use super::single_flight::{LoadToken, Lookup};
use super::uri::ModelTarget;
use super::version::Version;
use super::versions::VersionCatalog;
use crate::message::{Deadline, Fault, Step};
use crate::telemetry::Metrics;

/// Asks the registry once for each URI; from then on the follower keeps the answer current.
#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) registry: Arc<Registry>,
    pub(super) versions: Arc<VersionCatalog>,
    pub(super) background: Background,
    pub(super) metrics: Metrics,
}

impl Resolver {
    /// Returns the version that takes the calls; the first caller has the registry asked.
    ///
    /// # Errors
    ///
    /// The registry's fault, or `DEADLINE_EXCEEDED` when the deadline comes before its answer.
    pub(super) async fn version(
        self: &Arc<Self>,
        model: &Arc<Model>,
        hosted: &HostedModel,
        deadline: Deadline,
    ) -> Result<Arc<Version>, Fault> {
        if let Some(serving) = hosted.serving.get() {
            return Ok(Arc::clone(&serving.0));
        }
        let waiter = match hosted.serving.lookup(Instant::now()) {
            Lookup::Ready(serving) => return Ok(Arc::clone(&serving.0)),
            Lookup::Failed(fault) => return Err(fault),
            Lookup::Loading(waiter) => waiter,
            Lookup::Missing(token, waiter) => {
                self.spawn_resolve(Arc::clone(model), token);
                waiter
            }
        };
        let late = || deadline.fault(Step::Resolving(hosted.uri.text()));
        deadline.until(waiter.outcome()).await.ok_or_else(late)?.map(|serving| Arc::clone(&serving.0))
    }

    /// Asks the registry in a task of its own, so that the answer does not depend on the request that asked first.
    fn spawn_resolve(self: &Arc<Self>, model: Arc<Model>, token: LoadToken<ServingVersion>) {
        let resolver = Arc::clone(self);
        self.background.spawn(async move { resolver.resolve(&model, token).await });
    }

    async fn resolve(&self, model: &Model, token: LoadToken<ServingVersion>) {
        let ModelSource::Hosted(hosted) = &model.source else { return };
        let begun = Instant::now();
        let resolved = match model.uri.target() {
            ModelTarget::Directory { path } => ResolvedModel::in_directory(path).await,
            target => self.registry.resolve(target).await.map(ResolvedModel::from),
        };
        let seconds = begun.elapsed().as_secs_f64();
        self.metrics.model_load_phase.with_label_values(&["resolve"]).observe(seconds);
        match resolved {
            Ok(resolved) => {
                let version = self.versions.version_of(resolved, &hosted.hosting);
                version.pinned.fetch_or(hosted.pinned, Ordering::Relaxed);
                token.finish(Arc::new(ServingVersion(version)));
            }
            Err(fault) => {
                tracing::warn!(model = %model.uri, %fault, "model cannot be found");
                token.fail(fault, LoadStep::Resolve, Instant::now());
            }
        }
    }
}
