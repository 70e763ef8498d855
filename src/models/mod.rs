//! What a route points at: which version a model URI stands for, and the processes that hold it.
//!
//! A model is loaded when it is first asked for, stays while it is used, and leaves when it idles or memory is short.
//! What the rest of Signalbox gets is a [`Lease`] on something that answers; how that came to be is hidden here:
//!
//! ```text
//! ModelHandle ── Model: what a URI stands for now   (registry, follower)
//!                  └─ Version: immutable            (loader: artifacts, room, hosts)
//!                       └─ Loaded: held by leases   (keeper, by the rules of residency)
//!                            └─ Pool of hosts, each forked from a template
//! ```

mod artifacts;
mod backoff;
mod follower;
mod found;
mod host;
mod keeper;
mod lease;
mod leases;
mod loader;
mod memory;
mod model;
mod places;
mod pool;
mod registry;
mod residency;
mod slot;
mod status;
mod turns;
mod uri;
mod usage;
mod version;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use lease::{CallFailure, Lease, ModelHandle};
pub use registry::RegistryError;
pub use status::{FollowingReport, MemoryReport, PendingReport, Report, VersionReport};
pub use uri::{ModelUri, ModelUriError, Pick, Target};

use crate::config::{self, EnvManager, Runtime};
use crate::invocation::{Concern, HttpBackend};
use crate::telemetry::Metrics;
use artifacts::Artifacts;
use backoff::Step;
use found::Found;
use host::{Template, TemplateSpec};
use keeper::Keeper;
use model::{Current, Hosted, Model, Standing};
use registry::{Addresses, Registry};
use residency::Rules;
use slot::Loading;
use turns::Turns;
use version::{Hosting, ServerSeats, Version};

/// How many calls of `mlflow models serve` run at once: it holds one Python interpreter lock.
const SERVER_CONCURRENCY: usize = 4;

/// How many calls of what serves at an address run at once.
const ADDRESS_CONCURRENCY: usize = 64;

/// How long the hosts may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a preload that failed waits until it is tried again.
const PRELOAD_AGAIN: Duration = Duration::from_secs(5);

/// All models, loaded and not.
#[derive(Debug, Clone)]
pub struct Models {
    inner: Arc<Inner>,
}

struct Inner {
    settings: config::Models,
    refresh: Duration,
    memory_limit: Option<u64>,
    environment: Vec<(String, String)>,
    registry: Registry,
    artifacts: Artifacts,
    keeper: Arc<Keeper>,
    turns: Turns,
    outages: follower::Outages,
    templates: Mutex<HashMap<String, Template>>,
    models: Mutex<HashMap<(ModelUri, HandleOptions), Arc<Model>>>,
    versions: Mutex<Vec<Weak<Version>>>,
    next_key: AtomicU64,
    tasks: TaskTracker,
    closing: CancellationToken,
    metrics: Metrics,
}

/// How a route wants its model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HandleOptions {
    /// The interpreter, when it is not `models.python`.
    pub python: Option<String>,
    /// What serves it.
    pub runtime: Runtime,
    /// How `mlflow models serve` makes the model's environment.
    pub env_manager: Option<EnvManager>,
    /// How many hosts are forked for it.
    pub workers: Option<usize>,
    /// How many calls each of them answers at once.
    pub threads: Option<usize>,
    /// How many calls run at once.
    pub max_concurrency: Option<usize>,
}

/// Why no model can be loaded at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelsError {
    /// The registry cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Models {
    /// Makes ready to load models; nothing is loaded, and the registry is not asked yet. What MLflow's clients read from
    /// the environment (where the registry is, and who is calling) is read from there.
    pub fn start(models: &config::Models, registry: &config::Registry, metrics: &Metrics) -> Result<Self, ModelsError> {
        let env = |name: &str| std::env::var(name).ok();
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let addresses = Addresses::read(registry.tracking_uri.as_deref(), &env)?;
        let environment = addresses.environment();
        let limit = models.memory_limit.map_or_else(default_memory_limit, |limit| Some(limit.as_u64()));
        let template =
            Template::new(template_spec(models, &models.python, &environment, limit), tasks.clone(), &closing);
        let rules = Rules {
            memory_limit: limit,
            idle_timeout: Some(models.idle_timeout).filter(|timeout| !timeout.is_zero()),
            minimum_stay: models.minimum_stay,
        };
        let cache = &models.cache;
        let inner = Inner {
            settings: models.clone(),
            refresh: registry.refresh,
            registry: Registry::new(addresses, &env, template.clone())?,
            artifacts: Artifacts::open(cache.directory.as_deref(), cache.size.as_u64(), &env),
            keeper: Arc::new(Keeper::new(rules, tasks.clone(), metrics.clone())),
            turns: Turns::new(models.concurrent_loads),
            outages: follower::Outages::default(),
            templates: Mutex::new(HashMap::from([(models.python.clone(), template)])),
            environment,
            memory_limit: limit,
            models: Mutex::default(),
            versions: Mutex::default(),
            next_key: AtomicU64::new(0),
            tasks,
            closing,
            metrics: metrics.clone(),
        };
        let inner = Arc::new(inner);
        inner.tasks.spawn(Arc::clone(&inner.keeper).run(inner.closing.clone()));
        inner.spawn(Arc::clone(&inner).follow());
        Ok(Self { inner })
    }

    /// The model that this URI names. The same URI with the same options is the same model, loaded once.
    pub fn handle(&self, uri: &ModelUri, options: HandleOptions) -> ModelHandle {
        let mut models = self.inner.models.lock().unwrap_or_else(PoisonError::into_inner);
        let model =
            models.entry((uri.clone(), options)).or_insert_with_key(|(uri, options)| self.inner.model(uri, options));
        ModelHandle { model: Arc::clone(model), models: Arc::clone(&self.inner), _voucher: None }
    }

    /// Has the interpreters that the models need import what they need, and loads what is to be preloaded: as the
    /// routes want it that use the same URI, else with the defaults. Both go on in the background.
    pub fn preload(&self) {
        let inner = &self.inner;
        for uri in inner.settings.preload.iter().chain(&inner.settings.pin) {
            // A checked config has no others.
            let Ok(uri) = ModelUri::parse(uri) else { continue };
            if !inner.models().iter().any(|model| model.uri == uri) {
                self.handle(&uri, HandleOptions::default());
            }
            for model in inner.models().into_iter().filter(|model| model.uri == uri) {
                inner.spawn(Arc::clone(inner).preload(model));
            }
        }
        let models = inner.models();
        let pythons = models.iter().filter_map(|model| match &model.standing {
            Standing::Hosted(hosted) if hosted.hosting.runtime == Runtime::Forked => Some(&hosted.hosting.python),
            _ => None,
        });
        for python in pythons.collect::<HashSet<_>>() {
            let template = inner.template(python);
            inner.tasks.spawn(async move {
                if let Err(error) = template.warm().await {
                    tracing::warn!(%error, "no model can be loaded");
                }
            });
        }
    }

    /// Stops every host, and waits until all their processes have ended. Calls that are under way are cut off, so they
    /// should have ended before. Nothing is loaded afterwards.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.closing.cancel();
        inner.tasks.close();
        if timeout(STOP_TIMEOUT, inner.tasks.wait()).await.is_err() {
            tracing::error!(left = inner.tasks.len(), "some models' processes have not stopped in time");
        }
    }
}

impl Inner {
    fn model(&self, uri: &ModelUri, options: &HandleOptions) -> Arc<Model> {
        let limit = |default: usize| options.max_concurrency.unwrap_or(default).clamp(1, Semaphore::MAX_PERMITS);
        let standing = match uri.target() {
            Target::Noop => Standing::Noop,
            Target::Address { invocations } => {
                let concurrency = limit(ADDRESS_CONCURRENCY);
                let backend =
                    HttpBackend::new(invocations.clone(), Arc::clone(uri.text()), Concern::Theirs, concurrency);
                Standing::Address(backend.map(|backend| Arc::new(ServerSeats::new(backend, concurrency, None))))
            }
            Target::Registered { .. } | Target::Logged { .. } | Target::Directory { .. } => {
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
                Standing::Hosted(Box::new(Hosted::new(uri.clone(), hosting, pinned)))
            }
        };
        Arc::new(Model { uri: uri.clone(), standing, vouchers: Arc::default() })
    }

    /// Forgets the models that no route uses any more and that are not to be preloaded. What is loaded of them stays for
    /// as long as anything that nobody calls.
    fn forget_unused(&self) {
        let is_kept = |uri: &ModelUri| {
            self.settings.preload.iter().chain(&self.settings.pin).any(|listed| **listed == **uri.text())
        };
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        // Who asks for it gets it from here, under the lock; so one that nobody has now, nobody is about to get.
        models.retain(|(uri, _), model| Arc::strong_count(model) > 1 || is_kept(uri));
    }

    /// Every model that routes use.
    fn models(&self) -> Vec<Arc<Model>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }

    /// Every version that somebody still has: those that take calls, and those that are loaded.
    fn versions(&self) -> Vec<Arc<Version>> {
        alive(&mut self.versions.lock().unwrap_or_else(PoisonError::into_inner)).collect()
    }

    /// The one version with this name, hosted in this way.
    fn version_of(&self, found: Found, hosting: &Hosting) -> Arc<Version> {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |version: &Arc<Version>| {
            version.name == found.name && version.origin == found.origin && version.hosting == *hosting
        };
        if let Some(version) = alive(&mut versions).find(same) {
            version.trust.tag(found.is_tagged);
            return version;
        }
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let version = Arc::new(Version::new(key, found.name, found.version, found.origin, hosting.clone()));
        version.trust.tag(found.is_tagged);
        versions.push(Arc::downgrade(&version));
        version
    }

    /// The template of an interpreter.
    fn template(&self, python: &str) -> Template {
        let mut templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        let template = templates.entry(python.to_owned()).or_insert_with(|| {
            let spec = template_spec(&self.settings, python, &self.environment, self.memory_limit);
            Template::new(spec, self.tasks.clone(), &self.closing)
        });
        template.clone()
    }

    /// Has the registry asked, in a task of its own, what a URI stands for.
    fn spawn_resolve(self: &Arc<Self>, model: Arc<Model>, resolving: Loading<Current>) {
        let models = Arc::clone(self);
        self.spawn(async move { models.resolve(&model, resolving).await });
    }

    /// Has something done in the background, which ends when we stop.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.closing.clone().run_until_cancelled_owned(work));
    }

    async fn resolve(&self, model: &Model, resolving: Loading<Current>) {
        let Standing::Hosted(hosted) = &model.standing else { return };
        let begun = Instant::now();
        let found = match model.uri.target() {
            Target::Directory { path } => Found::in_directory(path).await,
            target => self.registry.resolve(target).await.map(Found::from),
        };
        self.observe_phase("resolve", begun.elapsed());
        match found {
            Ok(found) => {
                let version = self.version_of(found, &hosted.hosting);
                version.pinned.fetch_or(hosted.pinned, Ordering::Relaxed);
                resolving.finish(Arc::new(Current(version)));
            }
            Err(fault) => {
                tracing::warn!(model = %model.uri, %fault, "model cannot be found");
                resolving.fail(fault, Step::Resolve, Instant::now());
            }
        }
    }

    async fn preload(self: Arc<Self>, model: Arc<Model>) {
        loop {
            let Err(fault) = model.load(&self, false).await else { return };
            tracing::warn!(model = %model.uri, %fault, "model cannot be preloaded");
            if !fault.retryable {
                return;
            }
            sleep(fault.retry_after.unwrap_or(PRELOAD_AGAIN)).await;
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Models")
            .field("settings", &self.settings)
            .field("registry", &self.registry)
            .field("keeper", &self.keeper)
            .finish_non_exhaustive()
    }
}

/// Those that somebody still has; the others are forgotten.
fn alive(versions: &mut Vec<Weak<Version>>) -> impl Iterator<Item = Arc<Version>> {
    versions.retain(|version| version.strong_count() > 0);
    versions.iter().filter_map(Weak::upgrade)
}

fn template_spec(
    models: &config::Models,
    python: &str,
    environment: &[(String, String)],
    data_limit: Option<u64>,
) -> TemplateSpec {
    TemplateSpec {
        python: python.to_owned(),
        libraries: models.template.libraries.clone(),
        exclude: models.template.exclude.clone(),
        environment: environment.to_vec(),
        data_limit,
    }
}

/// Three quarters of what the machine has, or of what the container may use.
fn default_memory_limit() -> Option<u64> {
    memory::machine_memory().map(|bytes| bytes / 4 * 3)
}

/// What comes of something before the deadline, if there is one.
pub(crate) async fn until<T>(deadline: Option<Instant>, what: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, what).await.ok(),
        None => Some(what.await),
    }
}

#[cfg(test)]
mod tests;
