//! Loading a version: its artifacts, room for it, and processes that answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Inner;
use super::artifacts::Cached;
use super::backoff::Step;
use super::host::{Example, HostSpec, LoadReport, OutputLog, Phases, Proof, Server, ServerSpec};
use super::keeper::{Reservation, memory_of};
use super::leases::Leases;
use super::pool::{HostStarter, Pool};
use super::slot::Loading;
use super::turns::Urgency;
use super::version::{Loaded, Origin, Seats, ServerSeats, Version};
use crate::config::Runtime;
use crate::invocation::in_words;
use crate::invocation::trust::Finding;
use crate::message::{Code, Fault, Stage};

/// Why a load failed, and which of its steps.
#[derive(Debug)]
struct LoadFailure {
    fault: Fault,
    step: Step,
}

/// A version's artifacts on this machine.
struct Artifacts {
    directory: PathBuf,
    /// What they take on disk; 0 when that is not known.
    bytes: u64,
    /// Keeps them in the cache.
    cached: Option<Cached>,
}

impl Inner {
    /// Loads a version in a task of its own, so that it does not depend on the request that asked first.
    pub(super) fn spawn_load(self: &Arc<Self>, version: Arc<Version>, urgency: Urgency, loading: Loading<Loaded>) {
        let models = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = models.closing.cancelled() => {}
                () = models.load(&version, &urgency, loading) => {}
            }
        });
    }

    async fn load(self: &Arc<Self>, version: &Arc<Version>, urgency: &Urgency, loading: Loading<Loaded>) {
        self.metrics.model_loads_waiting.inc();
        let turn = self.turns.take(urgency).await;
        self.metrics.model_loads_waiting.dec();
        let begun = Instant::now();
        let result = self.make_loaded(version, urgency).await;
        let (name, seconds) = (&*version.name, begun.elapsed().as_secs_f64());
        let label = if result.is_ok() { "ok" } else { "error" };
        let [model, _] = version.labels();
        self.metrics.model_loads.with_label_values(&[model, label]).inc();
        self.metrics.model_load_duration.with_label_values(&[model]).observe(seconds);
        match result {
            Ok((loaded, room)) => {
                report(version, &loaded, seconds);
                room.settle(version, Arc::new(loaded), loading);
            }
            Err(LoadFailure { fault, step }) => {
                tracing::warn!(model = name, seconds, %fault, "model cannot be loaded");
                if step == Step::Room {
                    self.metrics.model_loads_refused.inc();
                }
                loading.fail(fault, step, Instant::now());
            }
        }
        drop(turn);
    }

    async fn make_loaded(
        self: &Arc<Self>,
        version: &Arc<Version>,
        urgency: &Urgency,
    ) -> Result<(Loaded, Reservation), LoadFailure> {
        let begun = Instant::now();
        let deadline = begun + self.settings.load_timeout;
        let fetched = timeout_at(deadline, self.artifacts_of(version)).await;
        let fetched = fetched.unwrap_or_else(|_| Err(self.not_fetched(version)));
        let artifacts = fetched.map_err(|fault| LoadFailure { fault, step: Step::Start })?;
        self.observe_phase("fetch", begun.elapsed());

        let asked = Instant::now();
        version.remember(artifacts.cached.as_ref());
        let expected = version.expected_memory(artifacts.bytes);
        let room = self.keeper.room(&version.name, expected, urgency).await;
        let room = room.map_err(|fault| LoadFailure { fault, step: Step::Room })?;
        self.observe_phase("room", asked.elapsed());

        let deadline = Instant::now() + self.settings.load_timeout;
        // The first request to a version that is known to be sound is as good as its example.
        let proof = version.proof.get().filter(|_| urgency.is_raised()).cloned();
        let started = self.start(version, &artifacts.directory, proof, deadline).await;
        let (seats, report) = started.map_err(|fault| LoadFailure { fault, step: Step::Start })?;
        let phases = report.phases;
        if !matches!(report.proof.example, Some(Example::Failed(_))) {
            let _ = version.proof.set(report.proof.clone());
        }
        version.trust.find(&report.proof.finding);
        for (name, duration) in [("fork", phases.fork), ("load", phases.load), ("warm", phases.warm)] {
            self.observe_phase(name, duration);
        }
        // Measuring takes milliseconds that a request waits for, so it is done once, and then when it is called.
        let known = Some(version.history.memory.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0);
        let memory = match known {
            Some(bytes) => bytes,
            None => {
                let measured = memory_of(seats.pids()).await;
                if let Some(bytes) = measured {
                    version.measured(bytes, artifacts.cached.as_ref());
                }
                measured.unwrap_or(expected)
            }
        };
        let loaded = Loaded {
            leases: Leases::default(),
            seats,
            loaded_at: self.keeper.now(),
            load_cost: phases.fork + phases.load + phases.warm,
            preloaded: !urgency.is_raised(),
            taken: AtomicBool::new(false),
            memory: AtomicU64::new(memory),
            memory_when_loaded: memory,
            report,
            _cached: artifacts.cached,
        };
        Ok((loaded, room))
    }

    fn not_fetched(&self, version: &Version) -> Fault {
        let limit = in_words(self.settings.load_timeout);
        let message = format!(
            "{} cannot be loaded: its artifacts were not there within models.load_timeout ({limit})",
            version.name
        );
        Fault::passing(Code::TemporarilyUnavailable, Stage::Load, message)
    }

    pub(super) fn observe_phase(&self, name: &str, duration: Duration) {
        self.metrics.model_load_phase.with_label_values(&[name]).observe(duration.as_secs_f64());
    }

    async fn artifacts_of(&self, version: &Version) -> Result<Artifacts, Fault> {
        match &version.origin {
            Origin::Registry(resolved) => {
                let cached = self.artifacts.fetch(&self.registry, resolved).await?;
                Ok(Artifacts { directory: cached.directory.clone(), bytes: cached.bytes, cached: Some(cached) })
            }
            Origin::Directory(path) => Ok(Artifacts { directory: path.clone(), bytes: 0, cached: None }),
        }
    }

    async fn start(
        &self,
        version: &Version,
        directory: &Path,
        proof: Option<Proof>,
        deadline: Instant,
    ) -> Result<(Seats, LoadReport), Fault> {
        let hosting = &version.hosting;
        let template = self.template(&hosting.python);
        match hosting.runtime {
            Runtime::Forked => {
                let spec = HostSpec {
                    shown: Arc::clone(&version.name),
                    threads: hosting.threads,
                    output: OutputLog::new(Arc::clone(&version.name)),
                    directory: directory.to_owned(),
                    deadline,
                    load_timeout: self.settings.load_timeout,
                    proof,
                };
                let (tasks, closing) = (self.tasks.clone(), self.closing.clone());
                let starter = HostStarter { template, spec, tasks, closing, metrics: self.metrics.clone() };
                let (pool, report) = Pool::start(starter, hosting.workers, hosting.concurrency).await?;
                Ok((Seats::Hosts(pool), report))
            }
            Runtime::MlflowServe => {
                let spec = ServerSpec {
                    shown: Arc::clone(&version.name),
                    model: directory.display().to_string(),
                    env_manager: hosting.env_manager.name(),
                    environments: self.artifacts.environments(),
                    concurrency: hosting.concurrency,
                    deadline,
                    load_timeout: self.settings.load_timeout,
                };
                let begun = Instant::now();
                let (server, backend) = Server::start(&template, &spec).await?;
                let phases = Phases { load: begun.elapsed(), ..Phases::default() };
                let report = LoadReport { phases, proof: Proof::default(), signature: None };
                let seats = ServerSeats::new(backend, hosting.concurrency, Some(server));
                Ok((Seats::Server(Arc::new(seats)), report))
            }
        }
    }
}

/// Tells the log what there is to know about a load.
fn report(version: &Version, loaded: &Loaded, seconds: f64) {
    let LoadReport { phases, proof: Proof { example, unmet, finding }, .. } = &loaded.report;
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
            "model is called singly, unless its owner says that it need not be"
        );
    }
    if let Some(Example::Failed(why)) = example {
        tracing::warn!(model = &*version.name, why, "model does not answer its own example");
    }
    if !unmet.is_empty() {
        let unmet = unmet.join("; ");
        tracing::warn!(model = &*version.name, unmet, "model is loaded with other libraries than it asks for");
    }
}
