//! `delivery: exactly_once`: records, and the offsets of the requests that they end, in one transaction after another.
//!
//! A record is produced as soon as it is there, so whoever reads uncommitted (the shim of another instance) has it at
//! once; the transaction is committed a short interval after its first record, or as soon as nothing else is under way,
//! unless all of its replies are with their callers already. A request is finished when its transaction is committed; if
//! that comes to nothing, its record goes into the next one.
//!
//! Several producers take turns, so nothing waits for a commit: one gathers while another's transaction is concluded.
//! Where replies leave in order, the next begins once the broker has all that the one before has written.

mod admission;
mod allowance;
mod batch;
mod concluder;
mod held;
mod pool;
mod session;
mod transactor;
mod twins;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::address::AllowedTopics;
use super::counts::Counts;
use super::directory::Directory;
use super::job::Job;
use super::outgoing::Graveyard;
use super::publisher::Parts;
use crate::broker::{BrokerError, Identity};
use crate::config::{Kafka, Ordering as Order};
use crate::intake::Offsets;
use crate::telemetry::{Flow, Metrics};
use session::{Maker, SESSIONS, Session};
use transactor::Transactor;

/// Takes jobs to the thread that puts them into transactions. Cheap to clone.
#[derive(Clone)]
pub(super) struct Transactions {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
}

struct Shared {
    stop: Arc<AtomicBool>,
    /// Until it begins.
    prepared: Mutex<Option<Prepared>>,
    /// Closed when the thread has ended.
    ended: Mutex<Option<Receiver<()>>>,
}

/// All that the thread needs but the offsets, which come with the intake.
struct Prepared {
    jobs: Receiver<Job>,
    maker: Arc<Maker>,
    opened: Vec<Session>,
    interval: Duration,
    ordered: bool,
    allowed: Arc<AllowedTopics>,
    graveyard: Graveyard,
    directory: Directory,
    counts: Counts,
    flow: Flow,
    stop: Arc<AtomicBool>,
    metrics: Metrics,
    failed: CancellationToken,
}

impl Transactions {
    /// Sees that the broker's transactions are real, and closes what an earlier process of this name has left open.
    /// Blocks; not for the runtime's workers.
    pub(super) fn prepare(config: &Kafka, parts: Parts, metrics: &Metrics) -> Result<Self, BrokerError> {
        let Parts { cluster, allowed, graveyard, counts, limits, directory, throttle, flow, failed } = parts;
        let identity = Identity::of(config)?;
        cluster.probe_transactions(config, identity.name())?;
        let maker = Arc::new(Maker::new(config, cluster, identity, limits, throttle));
        let opened = (0..SESSIONS).map(|index| maker.open(index)).collect::<Result<_, _>>()?;
        let (sender, jobs) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let prepared = Prepared {
            jobs,
            maker,
            opened,
            interval: config.transaction_interval,
            ordered: config.ordering != Order::Unordered,
            allowed,
            graveyard,
            directory,
            counts,
            flow,
            stop: stop.clone(),
            metrics: metrics.clone(),
            failed,
        };
        let shared = Shared { stop, prepared: Mutex::new(Some(prepared)), ended: Mutex::new(None) };
        Ok(Self { jobs: sender, shared: Arc::new(shared) })
    }

    /// Starts the thread.
    pub(super) fn begin(&self, offsets: Offsets) -> Result<(), BrokerError> {
        let Some(prepared) = self.shared.prepared.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        let (alive, ended) = channel();
        *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        let shared = self.shared.clone();
        let transactor = Transactor::new(prepared, offsets, move || shared.stop.load(Ordering::Acquire))?;
        let run = move || {
            transactor.run();
            drop::<Sender<()>>(alive);
        };
        thread::Builder::new()
            .name("transactions".to_owned())
            .spawn(run)
            .map(drop)
            .map_err(|_| BrokerError::Interrupted)
    }

    /// What is sent is bounded by what is under way, so this never waits.
    pub(super) fn send(&self, job: Job) {
        // The receiver is gone only when the process is about to be.
        let _ = self.jobs.send(job);
    }

    /// Ends the thread once everything that was handed over is committed, and waits for that, this long at most.
    pub(super) fn finish(&self, timeout: Duration) {
        self.shared.stop.store(true, Ordering::Release);
        let ended = self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        let in_time =
            ended.is_none_or(|ended| ended.recv_timeout(timeout) != Err(std::sync::mpsc::RecvTimeoutError::Timeout));
        if !in_time {
            warn!("the last transaction is not decided; its requests will be answered again, unless it was committed");
        }
    }
}
