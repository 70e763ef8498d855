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
mod backoff;
mod call;
mod catalog;
mod deadline;
mod follower;
mod handle;
mod host;
mod lease;
mod load_queue;
mod loaded_version;
mod loader;
mod memory;
mod model;
mod options;
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
pub(crate) use deadline::until;
pub use handle::ModelHandle;
pub(crate) use host::{Child, Task, Template, frame};
pub use lease::Lease;
pub use options::HandleOptions;
pub use registry::RegistryError;
pub use status::{FollowingReport, MemoryReport, PendingReport, Report, VersionReport};
pub use uri::{ModelTarget, ModelUri, ModelUriError, VersionPick};

use crate::config::{self, Runtime, environment};
use crate::message::Fault;
use crate::telemetry::Metrics;
use artifacts::Artifacts;
use background::Background;
use catalog::ModelCatalog;
use follower::{Follower, Outages};
use load_queue::LoadQueue;
use loader::Loader;
use memory::machine_memory;
use model::{Model, ModelSource};
use registry::{Registry, RegistryAddresses};
use residency::{ResidencyManager, Rules};
use resolver::Resolver;
use serving::Serving;
use templates::Templates;
use versions::VersionCatalog;

/// Time that the hosts have to stop; hosts that take longer are left behind, with an error in the log.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Delay until a failed preload is tried again, when its fault does not name one.
const PRELOAD_RETRY: Duration = Duration::from_secs(5);

/// All models, loaded and not.
#[derive(Clone)]
pub struct Models {
    serving: Arc<Serving>,
    templates: Arc<Templates>,
    background: Background,
}

/// Error for which no model can be loaded at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelsError {
    /// The registry cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Models {
    /// Wires up the parts that serve models; nothing is loaded, and the registry is not asked yet. The settings that
    /// MLflow's clients read from the environment (the registry's address, and the caller's credentials) are read from
    /// there.
    ///
    /// # Errors
    ///
    /// The registry's address, or the settings for its client, cannot be used.
    pub fn start(models: &config::Models, registry: &config::Registry, metrics: &Metrics) -> Result<Self, ModelsError> {
        let background = Background::default();
        let addresses = RegistryAddresses::read(registry.tracking_uri.as_deref(), &environment)?;
        let limit = models.memory_limit.map_or_else(default_memory_limit, |limit| Some(limit.as_u64()));
        let imports = models.template.clone();
        let templates = Arc::new(Templates::new(imports, addresses.environment(), limit, background.clone()));
        let rules = Rules {
            memory_limit: limit,
            idle_timeout: Some(models.idle_timeout).filter(|timeout| !timeout.is_zero()),
            minimum_stay: models.minimum_stay,
        };
        let refresh = registry.refresh;
        let registry = Arc::new(Registry::new(addresses, &environment, templates.get(&models.python))?);
        let versions = Arc::new(VersionCatalog::default());
        initialize_counters(metrics);
        let residency = Arc::new(ResidencyManager::new(rules, background.tasks.clone(), metrics.clone()));
        let resolver = Arc::new(Resolver {
            registry: Arc::clone(&registry),
            versions: Arc::clone(&versions),
            background: background.clone(),
            metrics: metrics.clone(),
        });
        let cache = &models.cache;
        let loader = Arc::new(Loader {
            load_timeout: models.load_timeout,
            registry: Arc::clone(&registry),
            artifacts: Artifacts::open(cache.directory.as_deref(), cache.size.as_u64(), &environment),
            templates: Arc::clone(&templates),
            queue: LoadQueue::new(models.concurrent_loads),
            residency: Arc::clone(&residency),
            background: background.clone(),
            metrics: metrics.clone(),
        });
        background.tasks.spawn(Arc::clone(&residency).run(background.closing.clone()));
        let catalog = ModelCatalog::new(models);
        let serving = Arc::new(Serving { catalog, versions, resolver, loader, residency });
        let follower = Arc::new(Follower {
            serving: Arc::clone(&serving),
            registry,
            refresh,
            outages: Outages::default(),
            background: background.clone(),
            metrics: metrics.clone(),
        });
        background.spawn(follower.run());
        Ok(Self { serving, templates, background })
    }

    /// Returns the model that this URI names. The same URI with the same options is the same model, loaded once.
    pub fn handle(&self, uri: &ModelUri, options: HandleOptions) -> ModelHandle {
        let model = self.serving.catalog.model(uri, options);
        ModelHandle { model, serving: Arc::clone(&self.serving), _voucher: None }
    }

    /// Returns the template of an interpreter, for processes that hold no model.
    pub(crate) fn template(&self, python: &str) -> Template {
        self.templates.get(python)
    }

    /// Warms the templates of the interpreters that the models need, and loads the models to preload: with the options
    /// of the routes that use the same URI, else with the defaults. Both go on in the background.
    pub fn preload(&self) {
        let catalog = &self.serving.catalog;
        for uri in catalog.preloaded() {
            // A checked config has only URIs that can be parsed.
            let Ok(uri) = ModelUri::parse(uri) else { continue };
            if !catalog.all().iter().any(|model| model.uri == uri) {
                catalog.model(&uri, HandleOptions::default());
            }
            for model in catalog.all().into_iter().filter(|model| model.uri == uri) {
                self.background.spawn(preload(Arc::clone(&self.serving), model));
            }
        }
        let models = catalog.all();
        let pythons = models.iter().filter_map(|model| match &model.source {
            ModelSource::Hosted(hosted) if hosted.hosting.runtime == Runtime::Forked => Some(&hosted.hosting.python),
            _ => None,
        });
        for python in pythons.collect::<HashSet<_>>() {
            let template = self.templates.get(python);
            self.background.tasks.spawn(async move {
                if let Err(error) = template.warm().await {
                    tracing::warn!(%error, "no model can be loaded");
                }
            });
        }
    }

    /// Reports the versions that are loaded, those that are not and why, and the version behind each URI.
    pub fn report(&self) -> Report {
        status::report(&self.serving)
    }

    /// Loads a version, or the version that a URI stands for, in each of the ways it is hosted; and waits until that is
    /// done.
    ///
    /// # Errors
    ///
    /// The fault of the first load that failed, or `RESOURCE_DOES_NOT_EXIST` when nothing has this id.
    pub async fn load(&self, id: &str) -> Result<(), Fault> {
        self.serving.load(id).await
    }

    /// Unloads each version with this id. Calls under way get their answers; the next call loads it again.
    ///
    /// # Errors
    ///
    /// `RESOURCE_DOES_NOT_EXIST` when no version has this id, `BAD_REQUEST` when none of them is loaded.
    pub fn unload(&self, id: &str) -> Result<(), Fault> {
        self.serving.unload(id)
    }

    /// Stops every host, and waits until all their processes have ended. Calls that are under way are cut off, so they
    /// should have ended before. Nothing is loaded afterwards.
    pub async fn shutdown(&self) {
        let Background { tasks, closing } = &self.background;
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

/// Computes the default memory limit, in bytes: three quarters of the machine's memory, or of the container's.
fn default_memory_limit() -> Option<u64> {
    machine_memory().map(|bytes| bytes / 4 * 3)
}

#[cfg(test)]
mod tests;
