//! Resolving a URI: the version that it stands for, and that takes its calls.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::faults::with_cure;
use super::model::{HostedModel, Model};
use super::resolved_model::ResolvedModel;
use super::serving::Serving;
use super::single_flight::{LoadStep, LoadToken, Lookup};
use super::uri::ModelTarget;
use super::version::Version;
use crate::message::{Deadline, Fault, Step};

impl Serving {
    /// Returns the version that takes the calls; the first caller has the registry asked, once for each URI. From then on
    /// the follower keeps the answer current.
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
            return Ok(serving);
        }
        let waiter = match hosted.serving.lookup(Instant::now()) {
            Lookup::Ready(serving) => return Ok(serving),
            Lookup::Failed(fault) => return Err(fault),
            Lookup::Loading(waiter) => waiter,
            Lookup::Missing(token, waiter) => {
                // In a task of its own, so that the answer does not depend on the request that asked first.
                let (serving, model) = (Arc::clone(self), Arc::clone(model));
                self.background.spawn(async move { serving.resolve(&model, token).await });
                waiter
            }
        };
        let late = || deadline.fault(Step::Resolving(model.uri.text()));
        deadline.until(waiter.outcome()).await.ok_or_else(late)?
    }

    async fn resolve(&self, model: &Model, token: LoadToken<Version>) {
        let Some(hosted) = model.hosted() else { return };
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
                token.finish(version);
            }
            Err(fault) => {
                let fault = with_cure(fault);
                tracing::warn!(model = %model.uri, %fault, "model cannot be found");
                token.fail(fault, LoadStep::Resolve, Instant::now());
            }
        }
    }
}
