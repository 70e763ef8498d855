//! What a route points at: which version a model URI stands for, and the host that holds it.
//!
//! A model is loaded when it is first asked for. What the rest of Signalbox gets is a [`Lease`] on something that
//! answers; how that came to be is hidden here.

#[cfg_attr(not(test), expect(dead_code, reason = "the loader does not use it yet"))]
mod artifacts;
mod backoff;
#[expect(dead_code, unused_imports, reason = "models are loaded by servers alone so far")]
mod host;
mod lease;
mod loader;
#[cfg_attr(not(test), expect(dead_code, reason = "the keeper is going to use it"))]
mod memory;
#[cfg_attr(not(test), expect(dead_code, reason = "the loader does not use all of it yet"))]
mod registry;
#[cfg_attr(not(test), expect(dead_code, reason = "the keeper is going to use it"))]
mod residency;
mod slot;
#[cfg_attr(not(test), expect(dead_code, reason = "the keeper is going to use it"))]
mod turns;
mod uri;
#[cfg_attr(not(test), expect(dead_code, reason = "the keeper is going to use it"))]
mod usage;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use lease::{Lease, ModelHandle};
pub use registry::RegistryError;
pub use uri::{ModelUri, ModelUriError, Pick, Target};

use crate::config;
use crate::message::Fault;
use host::{Template, TemplateSpec};
use lease::Model;
use loader::{Loaded, Loader};
use registry::{Addresses, Registry};
use slot::{Loading, Slot};

/// How many calls of a model that is hosted here run at once: it holds one Python interpreter lock.
const HOSTED_CONCURRENCY: usize = 4;

/// How many calls of what serves at an address run at once.
const ADDRESS_CONCURRENCY: usize = 64;

/// How long the hosts may take to stop; each of them forces itself before that.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// All models, loaded and not.
#[derive(Debug, Clone)]
pub struct Models {
    inner: Arc<Inner>,
}

struct Inner {
    loader: Loader,
    python: String,
    observer: LoadObserver,
    models: Mutex<HashMap<(ModelUri, HandleOptions), Arc<Model>>>,
}

/// How a route wants its model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HandleOptions {
    /// The interpreter, when it is not `models.python`.
    pub python: Option<String>,
    /// How many calls run at once. By default 4 for a model that is hosted here, 64 for an address, and any number for
    /// `builtin:noop`.
    pub max_concurrency: Option<usize>,
}

/// Told of each load when it has ended.
pub type LoadObserver = Arc<dyn Fn(&LoadEvent<'_>) + Send + Sync>;

/// A load that has ended.
#[derive(Debug, Clone, Copy)]
pub struct LoadEvent<'a> {
    /// The model's URI, as configured.
    pub model: &'a str,
    /// The version, or why there is none.
    pub result: Result<&'a str, &'a Fault>,
    /// From the decision to load it to the end.
    pub duration: Duration,
}

/// Why no model can be loaded at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelsError {
    /// The registry cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Models {
    /// Makes ready to load models; nothing is loaded, and the registry is not asked yet. What MLflow's clients read
    /// from the environment (where the tracking server is, and who is calling) is read from there.
    pub fn start(
        models: &config::Models,
        registry: &config::Registry,
        observer: LoadObserver,
    ) -> Result<Self, ModelsError> {
        let env = |name: &str| std::env::var(name).ok();
        let addresses = Addresses::read(registry.tracking_uri.as_deref(), &env)?;
        let environment = addresses.environment();
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let python = models.python.clone();
        let spec = TemplateSpec { python: python.clone(), environment: environment.clone(), ..Default::default() };
        let template = Template::new(spec, tasks.clone(), &closing);
        let loader = Loader {
            registry: Registry::new(addresses, &env, template.clone())?,
            load_timeout: models.load_timeout,
            tasks,
            closing,
            environment,
            templates: Mutex::new(HashMap::from([(python, template)])),
        };
        let inner = Inner { loader, python: models.python.clone(), observer, models: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The model that this URI names. The same URI with the same options is the same model, loaded once.
    pub fn handle(&self, uri: &ModelUri, options: HandleOptions) -> ModelHandle {
        let mut models = self.inner.models.lock().unwrap_or_else(PoisonError::into_inner);
        let model =
            models.entry((uri.clone(), options)).or_insert_with_key(|(uri, options)| self.inner.model(uri, options));
        ModelHandle { model: Arc::clone(model), models: Arc::clone(&self.inner) }
    }

    /// Stops every host, and waits until all their processes have ended. Calls that are under way are cut off, so they
    /// should have ended before. Nothing is loaded afterwards.
    pub async fn shutdown(&self) {
        let loader = &self.inner.loader;
        loader.closing.cancel();
        loader.tasks.close();
        if timeout(STOP_TIMEOUT, loader.tasks.wait()).await.is_err() {
            tracing::error!(left = loader.tasks.len(), "some models' servers have not stopped in time");
        }
    }
}

impl Inner {
    fn model(&self, uri: &ModelUri, options: &HandleOptions) -> Arc<Model> {
        let default_concurrency = match uri.target() {
            Target::Noop => None,
            Target::Address { .. } => Some(ADDRESS_CONCURRENCY),
            Target::Registered { .. } | Target::Logged { .. } | Target::Directory { .. } => Some(HOSTED_CONCURRENCY),
        };
        let limit = options.max_concurrency.or(default_concurrency).map(|limit| limit.clamp(1, Semaphore::MAX_PERMITS));
        let max_concurrency = limit.unwrap_or(usize::MAX);
        Arc::new(Model {
            slot: loader::at_hand(uri, max_concurrency).map_or_else(Slot::empty, Slot::settled),
            uri: uri.clone(),
            python: options.python.clone().unwrap_or_else(|| self.python.clone()),
            max_concurrency,
            permits: limit.map(|limit| Arc::new(Semaphore::new(limit))),
        })
    }

    /// Loads a model in a task of its own, so that it does not depend on the request that asked first.
    fn spawn_load(self: &Arc<Self>, model: Arc<Model>, loading: Loading<Loaded>) {
        let inner = Arc::clone(self);
        self.loader.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = inner.loader.closing.cancelled() => {}
                () = inner.load(&model, loading) => {}
            }
        });
    }

    async fn load(&self, model: &Model, loading: Loading<Loaded>) {
        let begun = Instant::now();
        let result = self.loader.load(&model.uri, &model.python, model.max_concurrency).await;
        let duration = begun.elapsed();
        let (uri, seconds) = (&**model.uri.text(), duration.as_secs_f64());
        match &result {
            Ok(loaded) => tracing::info!(model = uri, version = &*loaded.version, seconds, "model is loaded"),
            Err(failure) => tracing::warn!(model = uri, seconds, fault = %failure.fault, "model cannot be loaded"),
        }
        let told = result.as_ref().map(|loaded| &*loaded.version).map_err(|failure| &failure.fault);
        (self.observer)(&LoadEvent { model: uri, result: told, duration });
        match result {
            Ok(loaded) => loading.finish(loaded),
            Err(failure) => loading.fail(failure.fault, failure.step, Instant::now()),
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Models")
            .field("loader", &self.loader)
            .field("python", &self.python)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
