//! Models behind routes: resolves a model URI to a version, and keeps that version loaded in processes that answer.
//!
//! A version is loaded when it is first called, stays while it is used, and is unloaded when it idles or memory is
//! short. The rest of Signalbox gets a [`Lease`] on a backend that answers; everything behind it is hidden here:
//!
//! ```text
//! ModelHandle ── Model: one URI and one set of options      (catalog, resolver, follower)
//!                  └─ Version: immutable                    (loader: artifacts, room, hosts)
//!                       └─ LoadedVersion: held by leases           (residency: policy and manager)
//!                            └─ HostPool: hosts, each forked from a template
//! ```

mod artifacts;
mod backend;
mod background;
mod call;
mod catalog;
mod examiner;
mod faults;
mod follower;
mod handle;
mod host;
mod lease;
mod load_queue;
mod loaded_version;
mod loader;
mod memory;
mod model;
mod places;
mod pool;
mod registry;
mod residency;
mod resolved_model;
mod resolver;
mod serving;
mod single_flight;
mod status;
mod templates;
mod unload;
mod uri;
mod usage;
mod use_count;
mod version;
mod versions;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

pub use call::CallFailure;
pub use catalog::HandleOptions;
pub(crate) use examiner::{ExaminedModel, Examiner};
pub use handle::ModelHandle;
pub(crate) use host::{Child, EnvironmentFiles, Interpreter, Task, Template, frame};
pub use lease::Lease;
pub use registry::{RegistryError, TrackingOrigin, tracking_uri};
pub use status::{FollowingReport, MemoryReport, PendingReport, Report, VersionReport};
pub(crate) use uri::redacted;
pub use uri::{ModelTarget, ModelUri, ModelUriError, VersionPick};

use crate::config::{self, Runtime, environment};
use crate::message::{Code, Deadline, Fault, Stage};
use crate::telemetry::Metrics;
use artifacts::Artifacts;
use background::Background;
use catalog::ModelCatalog;
use follower::{Follower, Outages};
use host::TemplateSpec;
use load_queue::LoadQueue;
use loader::Loader;
use memory::machine_memory;
use model::Model;
use registry::{Registry, RegistryAddresses};
use residency::{ResidencyManager, Rules};
use serving::Serving;
use templates::Templates;
use unload::UnloadReason;
use versions::VersionCatalog;

/// Time that the hosts have to stop; hosts that take longer are left behind, with an error in the log.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Delay until a failed preload is tried again, when its fault does not name one.
const PRELOAD_RETRY: Duration = Duration::from_secs(5);

/// All models, loaded and not.
#[derive(Clone)]
pub struct Models {
    serving: Arc<Serving>,
}

impl Models {
    /// Wires up the parts that serve models; nothing is loaded, and the registry is not asked yet. The settings that
    /// MLflow's clients read from the environment (the registry's address, and the caller's credentials) are read from
    /// there.
    ///
    /// # Errors
    ///
    /// The registry's address, or the settings for its client, cannot be used.
    pub fn start(
        models: &config::Models,
        registry: &config::Registry,
        metrics: &Metrics,
    ) -> Result<Self, RegistryError> {
        let background = Background::default();
        let addresses = RegistryAddresses::read(registry.tracking_uri.as_deref(), &environment)?;
        // By default, three quarters of the machine's memory, or of the container's.
        let default = || machine_memory().map(|bytes| bytes / 4 * 3);
        let limit = models.memory_limit.map_or_else(default, |limit| Some(limit.as_u64()));
        let template = TemplateSpec {
            libraries: models.template.libraries.clone(),
            exclude: models.template.exclude.clone(),
            environment: addresses.environment(),
            data_limit: limit,
            ..TemplateSpec::default()
        };
        let templates = Templates::new(template, background.clone());
        let rules = Rules {
            memory_limit: limit,
            idle_timeout: Some(models.idle_timeout).filter(|timeout| !timeout.is_zero()),
            minimum_stay: models.minimum_stay,
        };
        let refresh = registry.refresh;
        let registry = Arc::new(Registry::new(addresses, &environment, templates.get(&models.python))?);
        initialize_counters(metrics);
        let residency = Arc::new(ResidencyManager::new(rules, background.tasks.clone(), metrics.clone()));
        let cache = &models.cache;
        let loader = Arc::new(Loader {
            load_timeout: models.load_timeout,
            registry: Arc::clone(&registry),
            artifacts: Artifacts::open(cache.directory.as_deref(), cache.size.as_u64(), &environment),
            templates,
            queue: LoadQueue::new(models.concurrent_loads),
            residency: Arc::clone(&residency),
            background: background.clone(),
            metrics: metrics.clone(),
        });
        background.spawn(Arc::clone(&residency).run());
        let catalog = ModelCatalog::new(models);
        let serving = Arc::new(Serving {
            registry,
            catalog,
            versions: VersionCatalog::default(),
            loader,
            residency,
            background: background.clone(),
            metrics: metrics.clone(),
        });
        let follower = Arc::new(Follower { serving: Arc::clone(&serving), refresh, outages: Outages::default() });
        background.spawn(follower.run());
        Ok(Self { serving })
    }

    /// Returns the model that this URI names. The same URI with the same options is the same model, loaded once.
    pub fn handle(&self, uri: &ModelUri, options: HandleOptions) -> ModelHandle {
        let model = self.serving.catalog.model(uri, options);
        ModelHandle { model, serving: Arc::clone(&self.serving), _voucher: None }
    }

    /// Returns the template of an interpreter, for processes that hold no model.
    pub(crate) fn template(&self, python: &str) -> Arc<Template> {
        self.serving.loader.templates.get(python)
    }

    /// Warms the templates of the interpreters that the models need, and loads the models to preload: with the options
    /// of the routes that use the same URI, else with the defaults. Both go on in the background.
    pub fn preload(&self) {
        let Serving { catalog, background, .. } = &*self.serving;
        for uri in catalog.preloaded() {
            // A checked config has only URIs that can be parsed.
            let Ok(uri) = ModelUri::parse(uri) else { continue };
            if !catalog.all().iter().any(|model| model.uri == uri) {
                catalog.model(&uri, HandleOptions::default());
            }
            for model in catalog.all().into_iter().filter(|model| model.uri == uri) {
                background.spawn(preload(Arc::clone(&self.serving), model));
            }
        }
        let models = catalog.all();
        let hostings = models.iter().filter_map(|model| model.hosted()).map(|hosted| &hosted.hosting);
        let forked = hostings.filter(|hosting| hosting.runtime == Runtime::Forked);
        for python in forked.map(|hosting| &hosting.python).collect::<HashSet<_>>() {
            let template = self.serving.loader.templates.get(python);
            background.tasks.spawn(async move {
                if let Err(error) = template.warm().await {
                    tracing::warn!(%error, "no model can be loaded");
                }
            });
        }
    }

    /// Loads a version, or the version that a URI stands for, in each of the ways it is hosted; and waits until that is
    /// done.
    ///
    /// # Errors
    ///
    /// The fault of the first load that failed, or `RESOURCE_DOES_NOT_EXIST` when nothing has this id.
    pub async fn load(&self, id: &str) -> Result<(), Fault> {
        let models: Vec<_> = self.serving.catalog.all().into_iter().filter(|model| **model.uri.text() == *id).collect();
        let mut result = Ok(());
        for model in &models {
            result = result.and(self.serving.load_model(model, true).await);
        }
        if models.is_empty() {
            for version in self.serving.versions_named(id)? {
                result = result.and(self.serving.loader.loaded(&version, true, Deadline::NONE).await.map(drop));
            }
        }
        result
    }

    /// Unloads each version with this id. Calls under way get their answers; the next call loads it again.
    ///
    /// # Errors
    ///
    /// `RESOURCE_DOES_NOT_EXIST` when no version has this id, `BAD_REQUEST` when none of them is loaded.
    pub fn unload(&self, id: &str) -> Result<(), Fault> {
        let mut unloaded = false;
        for version in self.serving.versions_named(id)? {
            unloaded |= self.serving.residency.unload(&version, UnloadReason::Operator);
        }
        if unloaded {
            return Ok(());
        }
        Err(Fault::permanent(Code::BadRequest, Stage::Load, format!("{id} is not loaded")))
    }

    /// Stops every host, and waits until all their processes have ended. Calls that are under way are cut off, so they
    /// should have ended before. Nothing is loaded afterwards.
    pub async fn shutdown(&self) {
        let Background { tasks, closing } = &self.serving.background;
        closing.cancel();
        tasks.close();
        if timeout(STOP_TIMEOUT, tasks.wait()).await.is_err() {
            tracing::error!(left = tasks.len(), "some models' processes have not stopped in time");
        }
    }
}

impl fmt::Debug for Models {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Models").field("serving", &self.serving).finish_non_exhaustive()
    }
}

/// Loads a model at the start, and tries again for as long as its fault may pass.
async fn preload(serving: Arc<Serving>, model: Arc<Model>) {
    loop {
        let Err(fault) = serving.load_model(&model, false).await else { return };
        tracing::warn!(model = %model.uri, %fault, "model cannot be preloaded");
        if !fault.retryable {
            return;
        }
        sleep(fault.retry_after.unwrap_or(PRELOAD_RETRY)).await;
    }
}

/// Starts the counters of hosts, switches and refreshes from zero, so that the first event of each shows as an
/// increase.
fn initialize_counters(metrics: &Metrics) {
    for reason in ["crashed", "timed_out"] {
        metrics.model_hosts_lost.with_label_values(&[reason]);
    }
    for result in ["ok", "error"] {
        metrics.model_switches.with_label_values(&[result]);
        metrics.registry_refreshes.with_label_values(&[result]);
    }
}

#[cfg(test)]
mod tests;
