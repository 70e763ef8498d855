//! The models that routes use.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::backend::ServerBackend;
use super::model::{HostedModel, Model, ModelSource};
use super::uri::{ModelTarget, ModelUri};
use super::version::{Hosting, Version};
use crate::config::{self, EnvManager, Runtime};
use crate::invocation::{HttpBackend, ServerOwner};

/// Calls of `mlflow models serve` that run at once by default: it holds one Python interpreter lock, so more gain
/// nothing.
const SERVER_CONCURRENCY: usize = 4;

/// Calls of a server at an address that run at once by default.
const ADDRESS_CONCURRENCY: usize = 64;

/// Keeps one [`Model`] for each URI and set of options, so that routes with the same share it.
#[derive(Debug)]
pub(super) struct ModelCatalog {
    settings: config::Models,
    models: Mutex<HashMap<(ModelUri, HandleOptions), Arc<Model>>>,
}

/// Options by which a route overrides the hosting of its model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HandleOptions {
    /// The interpreter, when it is not `models.python`.
    pub python: Option<String>,
    /// The runtime that serves the model: forked hosts, or `mlflow models serve`.
    pub runtime: Runtime,
    /// The tool by which `mlflow models serve` makes the model's environment.
    pub env_manager: Option<EnvManager>,
    /// The number of hosts that are forked for the model.
    pub workers: Option<usize>,
    /// The number of calls that each host answers at once.
    pub threads: Option<usize>,
    /// The number of calls that run at once, over all hosts.
    pub max_concurrency: Option<usize>,
}

impl ModelCatalog {
    /// Builds an empty catalog.
    pub(super) fn new(settings: &config::Models) -> Self {
        Self { settings: settings.clone(), models: Mutex::default() }
    }

    /// Returns the model of a URI with these options, which is made on first use; nothing is loaded.
    pub(super) fn model(&self, uri: &ModelUri, options: HandleOptions) -> Arc<Model> {
        let mut models = self.models.lock();
        let model = models.entry((uri.clone(), options)).or_insert_with_key(|(uri, options)| self.make(uri, options));
        Arc::clone(model)
    }

    /// Lists every model that routes use, or that is to be preloaded.
    pub(super) fn all(&self) -> Vec<Arc<Model>> {
        self.models.lock().values().map(Arc::clone).collect()
    }

    /// Lists the URIs that are to be loaded at the start.
    pub(super) fn preloaded(&self) -> impl Iterator<Item = &String> {
        self.settings.preload.iter().chain(&self.settings.pin)
    }

    /// Forgets the models that no route uses any more and that are not to be preloaded. Their loaded versions stay for
    /// as long as any version that nobody calls.
    pub(super) fn forget_unused(&self) {
        let is_kept = |uri: &ModelUri| self.preloaded().any(|listed| **listed == **uri.text());
        let mut models = self.models.lock();
        // Routes get their models from here, under the lock; so a model that no route has now, none is about to get.
        models.retain(|(uri, _), model| Arc::strong_count(model) > 1 || is_kept(uri));
    }

    /// Tells for each URI that stands for a version whether the URI is pinned.
    pub(super) fn pins_of(&self, version: &Version) -> Vec<bool> {
        let models = self.all();
        let serving = models.iter().filter_map(|model| model.hosted()).filter(|hosted| hosted.serves(version));
        serving.map(|hosted| hosted.pinned).collect()
    }

    fn make(&self, uri: &ModelUri, options: &HandleOptions) -> Arc<Model> {
        let limit = |default: usize| options.max_concurrency.unwrap_or(default).clamp(1, Semaphore::MAX_PERMITS);
        let source = match uri.target() {
            ModelTarget::Noop => ModelSource::Noop,
            ModelTarget::Address { invocations } => {
                let concurrency = limit(ADDRESS_CONCURRENCY);
                let http =
                    HttpBackend::new(invocations.clone(), Arc::clone(uri.text()), ServerOwner::Others, concurrency);
                ModelSource::Address(http.map(|http| Arc::new(ServerBackend::new(http, concurrency, None))))
            }
            ModelTarget::Registered { .. } | ModelTarget::Logged { .. } | ModelTarget::Directory { .. } => {
                let workers = options.workers.unwrap_or(1);
                let threads = options.threads.unwrap_or(1).clamp(1, config::MOST_THREADS);
                let places = workers.saturating_mul(threads);
                let hosting = Hosting {
                    python: options.python.clone().unwrap_or_else(|| self.settings.python.clone()),
                    runtime: options.runtime,
                    env_manager: options.env_manager.unwrap_or(EnvManager::Virtualenv),
                    workers,
                    threads,
                    concurrency: match options.runtime {
                        Runtime::Forked => limit(places).min(places),
                        Runtime::MlflowServe => limit(SERVER_CONCURRENCY),
                    },
                };
                let pinned = self.settings.pin.iter().any(|pin| **pin == **uri.text());
                ModelSource::Hosted(Box::new(HostedModel::new(hosting, pinned)))
            }
        };
        Arc::new(Model { uri: uri.clone(), source, vouchers: Arc::default() })
    }
}
