//! Delivery mode `exactly_once`: records, and the offsets of the requests that they end, in one transaction after
//! another.
//!
//! A record is produced as soon as it is there, so readers of uncommitted records (the shim of another instance) have
//! it at once. The transaction is committed a short interval after its first record, or as soon as nothing else is
//! under way, unless all of its replies are with their callers already. A request is finished when its transaction is
//! committed; if that comes to nothing, its record goes into the next one.
//!
//! Several producers take turns, so nothing waits for a commit: one gathers while another's transaction is committed.
//! Where replies leave in order, the next begins once the broker has all that the one before has written.

mod admission;
mod allowance;
mod batch;
mod committer;
mod deferred;
mod fencing;
mod session;
mod sessions;
mod transaction_loop;

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use tracing::warn;

use super::parts::Parts;
use super::publication::Publication;
use crate::broker::{BrokerError, Identity};
use crate::config::{Kafka, Ordering as ReplyOrdering};
use crate::intake::Offsets;
use crate::telemetry::Metrics;
use session::{SESSIONS, Session, SessionFactory};
use transaction_loop::TransactionLoop;

/// Hands publications to the thread that writes them in transactions. Cheap to clone.
#[derive(Clone)]
pub(super) struct ExactlyOnce {
    publications: Sender<Publication>,
    shared: Arc<LoopHandle>,
}

/// Handle on the thread.
struct LoopHandle {
    stop: Arc<AtomicBool>,
    /// Parts of the thread, until it begins.
    prepared: Mutex<Option<LoopParts>>,
    /// Closed when the thread has ended.
    ended: Mutex<Option<Receiver<()>>>,
}

/// Parts that the thread is made of, but for the offsets, which come with the intake.
struct LoopParts {
    publications: Receiver<Publication>,
    factory: Arc<SessionFactory>,
    opened: Vec<Session>,
    interval: Duration,
    ordered: bool,
    parts: Arc<Parts>,
    stop: Arc<AtomicBool>,
    metrics: Metrics,
}

impl ExactlyOnce {
    /// Checks that the broker's transactions are real, and closes those that an earlier process of this name has left
    /// open. Blocks; not for the runtime's workers.
    pub(super) fn prepare(config: &Kafka, parts: Arc<Parts>, metrics: &Metrics) -> Result<Self, BrokerError> {
        let (cluster, limits, throttle) = (parts.cluster.clone(), parts.limits.clone(), parts.throttle.clone());
        let identity = Identity::of(config)?;
        cluster.probe_transactions(config, identity.name())?;
        let factory = Arc::new(SessionFactory::new(config, cluster, identity, limits, throttle));
        let opened = (0..SESSIONS).map(|index| factory.open(index)).collect::<Result<_, _>>()?;
        let (sender, publications) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let prepared = LoopParts {
            publications,
            factory,
            opened,
            interval: config.transaction_interval,
            ordered: config.ordering != ReplyOrdering::Unordered,
            parts,
            stop: stop.clone(),
            metrics: metrics.clone(),
        };
        let shared = LoopHandle { stop, prepared: Mutex::new(Some(prepared)), ended: Mutex::new(None) };
        Ok(Self { publications: sender, shared: Arc::new(shared) })
    }

    /// Starts the thread.
    pub(super) fn begin(&self, offsets: Offsets) -> Result<(), BrokerError> {
        let Some(prepared) = self.shared.prepared.lock().take() else {
            return Ok(());
        };
        let (alive, ended) = channel();
        *self.shared.ended.lock() = Some(ended);
        let transaction_loop = TransactionLoop::new(prepared, offsets)?;
        let run = move || {
            transaction_loop.run();
            drop::<Sender<()>>(alive);
        };
        thread::Builder::new()
            .name("transactions".to_owned())
            .spawn(run)
            .map(drop)
            .map_err(|_| BrokerError::Interrupted)
    }

    /// Sends a publication to the thread. Never waits: publications are bounded by the requests under way.
    pub(super) fn send(&self, publication: Publication) {
        // The receiver is gone only when the process is about to be.
        let _ = self.publications.send(publication);
    }

    /// Ends the thread once everything that was handed over is committed, and waits for that, this long at most.
    pub(super) fn finish(&self, timeout: Duration) {
        self.shared.stop.store(true, Ordering::Release);
        let ended = self.shared.ended.lock().take();
        let in_time = ended.is_none_or(|ended| ended.recv_timeout(timeout) != Err(RecvTimeoutError::Timeout));
        if !in_time {
            warn!("the last transaction is not decided; its requests will be answered again, unless it was committed");
        }
    }
}
