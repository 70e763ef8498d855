//! One immutable version of a model: whether it is loaded, by what, and how it has been used.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::artifacts::Cached;
use super::host::{LoadReport, Proof, Server};
use super::keeper::Leaving;
use super::lease::CallFailure;
use super::leases::Leases;
use super::pool::Pool;
use super::registry::{Registration, Resolved};
use super::slot::{Found, Slot};
use super::turns::Urgency;
use super::usage::Usage;
use super::{Inner, until};
use crate::config::{EnvManager, Runtime};
use crate::invocation::trust::Trust;
use crate::invocation::{Call, HttpBackend};
use crate::message::{Code, Fault, Reply, Stage};

/// Where a version's artifacts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// In an artifact store, as the registry says.
    Registry(Resolved),
    /// In a directory of this machine.
    Directory(PathBuf),
}

/// How a version is hosted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Hosting {
    pub(super) python: String,
    pub(super) runtime: Runtime,
    pub(super) env_manager: EnvManager,
    /// How many hosts are forked for it.
    pub(super) workers: usize,
    /// How many calls each of them answers at once.
    pub(super) threads: usize,
    /// Calls at once.
    pub(super) concurrency: usize,
}

/// One immutable version of a model, hosted in one way. All URIs that stand for it share it.
#[derive(Debug)]
pub(super) struct Version {
    /// What residency knows it by.
    pub(super) key: u64,
    /// What operators know it by: `sentiment/3`, a logged model's id, or a directory.
    pub(super) name: Arc<str>,
    /// What replies call it.
    pub(super) version: Arc<str>,
    pub(super) origin: Origin,
    pub(super) hosting: Hosting,
    pub(super) slot: Arc<Slot<Loaded>>,
    pub(super) usage: Usage,
    /// Whether it is to stay loaded whatever happens.
    pub(super) pinned: AtomicBool,
    pub(super) history: History,
    /// Whether it answers each row as if it were alone.
    pub(super) trust: Arc<Trust>,
    /// What it showed of itself when it was last loaded with care, if that was good.
    pub(super) proof: OnceLock<Proof>,
    /// Of the load that is under way, if one is.
    urgency: Mutex<Urgency>,
}

/// What became of a version over all its loads.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) loads: AtomicU64,
    pub(super) evictions: AtomicU64,
    /// Private bytes of its hosts when it had been loaded, 0 when they were never measured.
    pub(super) memory: AtomicU64,
    /// Why it is not loaded any more.
    left: Mutex<Option<Leaving>>,
}

/// A version that answers.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Those who call it, or wait to.
    pub(super) leases: Leases,
    pub(super) seats: Seats,
    /// Since the start of Signalbox.
    pub(super) loaded_at: Duration,
    pub(super) load_cost: Duration,
    /// Whether no request waited for it.
    pub(super) preloaded: bool,
    /// Whether it was ever called, or waited for.
    pub(super) taken: AtomicBool,
    /// Private bytes of its processes, as measured last.
    pub(super) memory: AtomicU64,
    /// The same when it had been warmed.
    pub(super) memory_when_loaded: u64,
    pub(super) report: LoadReport,
    /// Keeps its artifacts in the cache.
    pub(super) _cached: Option<Cached>,
}

/// What answers for a loaded version.
#[derive(Debug)]
pub(super) enum Seats {
    Hosts(Arc<Pool>),
    Server(Arc<ServerSeats>),
}

/// A server that speaks MLflow's scoring protocol, ours or somebody else's.
#[derive(Debug)]
pub(super) struct ServerSeats {
    pub(super) backend: HttpBackend,
    pub(super) permits: Arc<Semaphore>,
    /// Its process, when that is ours.
    pub(super) server: Option<Server>,
    /// Calls in a row that ran out of time.
    timeouts: AtomicUsize,
    /// How many places there are.
    pub(super) concurrency: usize,
    /// Whether it answers each row as if it were alone, when nobody knows which version that is.
    pub(super) trust: Arc<Trust>,
    /// Why it is not to be called any more.
    pub(super) broken: OnceLock<Fault>,
}

impl Version {
    pub(super) fn new(key: u64, name: Arc<str>, version: Arc<str>, origin: Origin, hosting: Hosting) -> Self {
        Self {
            key,
            name,
            version,
            origin,
            hosting,
            slot: Slot::empty(),
            usage: Usage::default(),
            pinned: AtomicBool::new(false),
            history: History::default(),
            trust: Arc::default(),
            proof: OnceLock::new(),
            urgency: Mutex::default(),
        }
    }

    /// Waits until it is loaded; the first who asks has it loaded, and the load goes on when nobody waits any longer.
    /// `urgent` when a request waits.
    pub(super) async fn loaded(
        self: &Arc<Self>,
        models: &Arc<Inner>,
        urgent: bool,
        deadline: Option<Instant>,
    ) -> Result<Arc<Loaded>, Fault> {
        if let Some(loaded) = self.slot.get() {
            if loaded.is_open() {
                return Ok(loaded);
            }
            models.keeper.abandon(self, &loaded);
        }
        if models.closing.is_cancelled() {
            return Err(Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "Signalbox is stopping"));
        }
        let waiting = {
            // Held while looking, so that it is the urgency of the load that is found.
            let mut current = self.urgency();
            let waiting = match self.slot.find(Instant::now()) {
                Found::Ready(loaded) => return Ok(loaded),
                Found::Failed(fault) => return Err(fault),
                Found::Loading(waiting) => waiting,
                Found::Missing(loading, waiting) => {
                    *current = Urgency::default();
                    models.spawn_load(Arc::clone(self), current.clone(), loading);
                    waiting
                }
            };
            if urgent {
                current.raise();
            }
            waiting
        };
        until(deadline, waiting.outcome()).await.unwrap_or_else(|| {
            let message = format!("{} was still being loaded when time was up; it goes on loading", self.name);
            Err(Fault::passing(Code::DeadlineExceeded, Stage::Load, message))
        })
    }

    /// Which registration it is of; none for a directory.
    pub(super) fn registration(&self) -> Option<&Registration> {
        match &self.origin {
            Origin::Registry(resolved) => Some(&resolved.registration),
            Origin::Directory(_) => None,
        }
    }

    /// The labels `model` and `version` of metrics.
    pub(super) fn labels(&self) -> [&str; 2] {
        let model = self.name.strip_suffix(&*self.version).and_then(|name| name.strip_suffix('/'));
        [model.unwrap_or(&self.name), &self.version]
    }

    /// How many bytes it will hold when it is loaded, as far as is known; its artifacts have this many.
    pub(super) fn expected_memory(&self, artifacts: u64) -> u64 {
        match self.history.memory.load(Ordering::Relaxed) {
            0 => artifacts.saturating_mul(2).max(SMALLEST_HOST).saturating_mul(self.hosting.workers as u64),
            measured => measured,
        }
    }

    /// Takes what a host of it took under an earlier Signalbox, if nothing newer is known.
    pub(super) fn remember(&self, cached: Option<&Cached>) {
        if self.hosting.runtime == Runtime::Forked
            && self.history.memory.load(Ordering::Relaxed) == 0
            && let Some(one_host) = cached.and_then(Cached::remembered_memory)
        {
            let all = one_host.saturating_mul(self.hosting.workers as u64);
            self.history.memory.store(all, Ordering::Relaxed);
        }
    }

    /// Its hosts take so many bytes now that they are loaded.
    pub(super) fn measured(&self, bytes: u64, cached: Option<&Cached>) {
        self.history.memory.store(bytes, Ordering::Relaxed);
        if self.hosting.runtime == Runtime::Forked
            && let Some(cached) = cached
        {
            cached.remember_memory(bytes / self.hosting.workers as u64);
        }
    }

    fn urgency(&self) -> MutexGuard<'_, Urgency> {
        // Nothing panics while it is held.
        self.urgency.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a host holds for itself, however small its model.
const SMALLEST_HOST: u64 = 16 << 20;

impl History {
    /// Whether an operator wanted it to leave.
    pub(super) fn was_sent_away(&self) -> bool {
        *self.left() == Some(Leaving::Operator)
    }

    /// Why it is not loaded any more; none when it is, or never was.
    pub(super) fn left(&self) -> MutexGuard<'_, Option<Leaving>> {
        // Nothing panics while it is held.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loaded {
    /// Whether it may be called.
    pub(super) fn is_open(&self) -> bool {
        !self.leases.is_closed() && self.broken().is_none()
    }

    /// Why it answers no longer, when that is so.
    pub(super) fn broken(&self) -> Option<&Fault> {
        match &self.seats {
            Seats::Hosts(pool) => pool.broken(),
            Seats::Server(seats) => seats.broken(),
        }
    }

    /// Ends its processes, and waits until they have gone. Nobody holds a lease any more.
    pub(super) async fn stop(&self) {
        match &self.seats {
            Seats::Hosts(pool) => pool.stop().await,
            Seats::Server(seats) => {
                if let Some(server) = &seats.server {
                    server.stop();
                    server.gone().await;
                }
            }
        }
    }
}

impl Seats {
    /// Their processes.
    pub(super) fn pids(&self) -> Vec<u32> {
        match self {
            Self::Hosts(pool) => pool.pids(),
            Self::Server(seats) => seats.server.as_ref().map(Server::pid).into_iter().collect(),
        }
    }
}

impl ServerSeats {
    pub(super) fn new(backend: HttpBackend, concurrency: usize, server: Option<Server>) -> Self {
        Self {
            backend,
            permits: Arc::new(Semaphore::new(concurrency)),
            server,
            timeouts: AtomicUsize::new(0),
            concurrency,
            trust: Arc::default(),
            broken: OnceLock::new(),
        }
    }

    /// Posts a call. A server that no longer listens is gone, even if we have not been told yet.
    pub(super) async fn invoke(&self, call: &Call<'_>, largest_answer: usize) -> Result<Reply, CallFailure> {
        let answer = self.backend.invoke_within(call.clone(), largest_answer).await;
        let timed_out = answer.as_ref().is_err_and(|failure| failure.fault.code == Code::DeadlineExceeded);
        let timeouts = if timed_out { self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
        if !timed_out {
            self.timeouts.store(0, Ordering::Relaxed);
        } else if timeouts >= self.concurrency
            && let Some(server) = &self.server
        {
            // Each of its threads is stuck by now, and nothing else frees them.
            server.stop();
        }
        match answer {
            Ok(reply) => Ok(reply),
            Err(failure) => {
                let disconnected = failure.disconnected;
                let crashed = disconnected && self.has_ended().await;
                // Our own permit is taken.
                let in_company = crashed && self.permits.available_permits() + 1 < self.concurrency;
                Err(CallFailure { fault: failure.fault, crashed, in_company, disconnected })
            }
        }
    }

    /// Whether the server is ours and gone. One that no longer listens is, even if we have not been told yet.
    async fn has_ended(&self) -> bool {
        let Some(server) = &self.server else { return false };
        if !server.is_gone() && self.backend.is_listening().await {
            return false;
        }
        server.stop();
        self.broken().is_some()
    }

    fn broken(&self) -> Option<&Fault> {
        if self.broken.get().is_none() && self.server.as_ref().is_some_and(Server::is_gone) {
            let fault = Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "the model's server has ended");
            let _ = self.broken.set(fault);
        }
        self.broken.get()
    }
}
