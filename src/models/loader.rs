//! Loading a version: its artifacts, room for it, and processes that answer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::artifacts::Artifacts;
use super::backend::{Backend, ServerBackend};
use super::background::Background;
use super::faults::{cannot_load, unavailable};
use super::host::{ExampleResult, HostSpec, LoadReport, OutputLog, Phases, ServerSpec, WarmUpResult};
use super::load_queue::{LoadQueue, Priority};
use super::loaded_version::LoadedVersion;
use super::memory::memory_of;
use super::pool::{HostPool, HostStarter};
use super::registry::Registry;
use super::residency::{Reservation, ResidencyManager};
use super::resolved_model::ArtifactLocation;
use super::single_flight::{LoadStep, LoadToken, Lookup};
use super::templates::Templates;
use super::use_count::UseCount;
use super::version::Version;
use crate::config::Runtime;
use crate::invocation::in_words;
use crate::invocation::row_independence::Finding;
use crate::message::{Deadline, Fault, Step};
use crate::telemetry::Metrics;

/// Loads versions, each once however many requests wait for it.
pub(super) struct Loader {
    pub(super) load_timeout: Duration,
    pub(super) registry: Arc<Registry>,
    pub(super) artifacts: Artifacts,
    pub(super) templates: Templates,
    pub(super) queue: LoadQueue,
    pub(super) residency: Arc<ResidencyManager>,
    pub(super) background: Background,
    pub(super) metrics: Metrics,
}

impl Loader {
    /// Waits until a version is loaded; the first caller has it loaded, and the load goes on when nobody waits any
    /// longer. `urgent` when a request waits.
    ///
    /// # Errors
    ///
    /// The fault of the load, now or a moment ago, or `DEADLINE_EXCEEDED` when the deadline comes first.
    pub(super) async fn loaded(
        self: &Arc<Self>,
        version: &Arc<Version>,
        urgent: bool,
        deadline: Deadline,
    ) -> Result<Arc<LoadedVersion>, Fault> {
        if let Some(loaded) = version.loaded.get() {
            if loaded.is_open() {
                return Ok(loaded);
            }
            self.residency.discard_broken(version, &loaded);
        }
        if self.background.closing.is_cancelled() {
            return Err(unavailable("Signalbox is stopping"));
        }
        let waiter = {
            // Held during the lookup, so that the priority is that of the load that the lookup finds.
            let mut priority = version.priority.lock();
            let waiter = match version.loaded.lookup(Instant::now()) {
                Lookup::Ready(loaded) => return Ok(loaded),
                Lookup::Failed(fault) => return Err(fault),
                Lookup::Loading(waiter) => waiter,
                Lookup::Missing(token, waiter) => {
                    *priority = Priority::default();
                    // In a task of its own, so that the load does not depend on the request that asked first.
                    let (loader, version, priority) = (Arc::clone(self), Arc::clone(version), priority.clone());
                    self.background.spawn(async move { loader.load(&version, &priority, token).await });
                    waiter
                }
            };
            if urgent {
                priority.raise();
            }
            waiter
        };
        deadline.until(waiter.outcome()).await.ok_or_else(|| deadline.fault(Step::Loading(&version.name)))?
    }

    async fn load(self: &Arc<Self>, version: &Arc<Version>, priority: &Priority, token: LoadToken<LoadedVersion>) {
        self.metrics.model_loads_waiting.inc();
        let permit = self.queue.acquire(priority).await;
        self.metrics.model_loads_waiting.dec();
        let begun = Instant::now();
        let result = self.make_loaded(version, priority).await;
        let (name, seconds) = (&*version.name, begun.elapsed().as_secs_f64());
        let label = if result.is_ok() { "ok" } else { "error" };
        let [model, _] = version.labels();
        self.metrics.model_loads.with_label_values(&[model, label]).inc();
        self.metrics.model_load_duration.with_label_values(&[model]).observe(seconds);
        match result {
            Ok((loaded, room)) => {
                log_load(version, &loaded, seconds);
                room.settle(version, Arc::new(loaded), token);
            }
            Err((fault, step)) => {
                tracing::warn!(model = name, seconds, %fault, "model cannot be loaded");
                if step == LoadStep::Room {
                    self.metrics.model_loads_refused.inc();
                }
                token.fail(fault, step, Instant::now());
            }
        }
        drop(permit);
    }

    /// Does the work of a load: fetches the artifacts, reserves room, starts the processes, and measures them.
    async fn make_loaded(
        self: &Arc<Self>,
        version: &Arc<Version>,
        priority: &Priority,
    ) -> Result<(LoadedVersion, Reservation), (Fault, LoadStep)> {
        // The artifacts come first: their size is the first estimate of the memory that the version needs.
        let begun = Instant::now();
        let deadline = begun + self.load_timeout;
        let (directory, cached) = match &version.location {
            ArtifactLocation::Registry(entry) => {
                let fetched = timeout_at(deadline, self.artifacts.fetch(&self.registry, entry)).await;
                let fetched = fetched.unwrap_or_else(|_| {
                    let limit = in_words(self.load_timeout);
                    let why = format!("its artifacts were not there within models.load_timeout ({limit})");
                    Err(cannot_load(&version.name, why))
                });
                let cached = fetched.map_err(|fault| (fault, LoadStep::Start))?;
                (cached.directory.clone(), Some(cached))
            }
            ArtifactLocation::Directory(path) => (path.clone(), None),
        };
        self.observe_phase("fetch", begun.elapsed());

        // Room is reserved before any process starts, so that memory never exceeds its limit for the sake of a load.
        let asked = Instant::now();
        version.adopt_memory(cached.as_ref());
        let expected = version.expected_memory(cached.as_ref().map_or(0, |cached| cached.bytes));
        let room = self.residency.reserve(&version.name, expected, priority).await;
        let room = room.map_err(|fault| (fault, LoadStep::Room))?;
        self.observe_phase("room", asked.elapsed());

        let deadline = Instant::now() + self.load_timeout;
        // The first request to a version that is known to be sound is as good as its example.
        let warm_up = version.warm_up.get().filter(|_| priority.is_urgent()).cloned();
        let started = self.start(version, &directory, warm_up, deadline).await;
        let (backend, report) = started.map_err(|fault| (fault, LoadStep::Start))?;
        let phases = report.phases;
        if !matches!(report.warm_up.example, Some(ExampleResult::Failed(_))) {
            let _ = version.warm_up.set(report.warm_up.clone());
        }
        version.row_independence.find(&report.warm_up.finding);
        for (name, duration) in [("fork", phases.fork), ("load", phases.load), ("warm", phases.warm)] {
            self.observe_phase(name, duration);
        }
        // Measuring takes milliseconds that a request waits for, so a load measures once; later the calls prompt it.
        let known = Some(version.history.memory.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0);
        let memory = match known {
            Some(bytes) => bytes,
            None => {
                let measured = memory_of(backend.pids()).await;
                if let Some(bytes) = measured {
                    version.record_memory(bytes, cached.as_ref());
                }
                measured.unwrap_or(expected)
            }
        };
        let loaded = LoadedVersion {
            uses: UseCount::default(),
            backend,
            loaded_at: self.residency.now(),
            load_cost: phases.fork + phases.load + phases.warm,
            preloaded: !priority.is_urgent(),
            was_used: AtomicBool::new(false),
            memory: AtomicU64::new(memory),
            memory_when_loaded: memory,
            report,
            _cached: cached,
        };
        Ok((loaded, room))
    }

    fn observe_phase(&self, name: &str, duration: Duration) {
        self.metrics.model_load_phase.with_label_values(&[name]).observe(duration.as_secs_f64());
    }

    /// Starts the processes that answer, in the runtime that the hosting names.
    async fn start(
        &self,
        version: &Version,
        directory: &Path,
        warm_up: Option<WarmUpResult>,
        deadline: Instant,
    ) -> Result<(Backend, LoadReport), Fault> {
        let hosting = &version.hosting;
        let template = self.templates.get(&hosting.python);
        match hosting.runtime {
            Runtime::Forked => {
                let spec = HostSpec {
                    shown: Arc::clone(&version.name),
                    threads: hosting.threads,
                    output: OutputLog::new(Arc::clone(&version.name)),
                    directory: directory.to_owned(),
                    deadline,
                    load_timeout: self.load_timeout,
                    warm_up,
                };
                let (background, metrics) = (self.background.clone(), self.metrics.clone());
                let starter = HostStarter { template, spec, background, metrics };
                let (pool, report) = HostPool::start(starter, hosting.workers, hosting.concurrency).await?;
                Ok((Backend::Hosts(pool), report))
            }
            Runtime::MlflowServe => {
                let spec = ServerSpec {
                    shown: Arc::clone(&version.name),
                    model: directory.display().to_string(),
                    env_manager: hosting.env_manager.name(),
                    environments: self.artifacts.environments(),
                    concurrency: hosting.concurrency,
                    deadline,
                    load_timeout: self.load_timeout,
                };
                let begun = Instant::now();
                let (server, http) = spec.start(&template).await?;
                let phases = Phases { load: begun.elapsed(), ..Phases::default() };
                let report = LoadReport { phases, warm_up: WarmUpResult::default(), signature: None };
                let backend = ServerBackend::new(http, hosting.concurrency, Some(server));
                Ok((Backend::Server(Arc::new(backend)), report))
            }
        }
    }
}

/// Logs a load: its time and memory, and every doubt about the model that the warm-up has raised.
fn log_load(version: &Version, loaded: &LoadedVersion, seconds: f64) {
    let LoadReport { phases, warm_up: WarmUpResult { example, unmet, finding }, .. } = &loaded.report;
    tracing::info!(
        model = &*version.name,
        seconds,
        fork = ?phases.fork,
        load = ?phases.load,
        warm = ?phases.warm,
        bytes = loaded.memory_when_loaded,
        "model is loaded"
    );
    if let Finding::Doubtful(why) = finding {
        tracing::info!(
            model = &*version.name,
            why = &**why,
            "model is called with one request at a time, unless its owner says that it may be called with several"
        );
    }
    if let Some(ExampleResult::Failed(why)) = example {
        tracing::warn!(model = &*version.name, why, "model does not answer its own example");
    }
    if !unmet.is_empty() {
        let unmet = unmet.join("; ");
        tracing::warn!(model = &*version.name, unmet, "model is loaded with other libraries than it asks for");
    }
}
