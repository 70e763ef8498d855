//! One transactional producer, from its introduction to the coordinator to the error that ends it.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext, PurgeConfig};

use tracing::debug;

use super::batch::Slot;
use crate::broker::{BrokerContext, BrokerError, Cluster, Identity};
use crate::intake::Staged;
use crate::replies::limits::Limits;

/// How long one attempt of a step may take. After it the process may have been told to end.
const TRY: Duration = Duration::from_secs(5);
/// How often it is looked whether the broker has all records.
const LOOK: Duration = Duration::from_micros(500);
/// How long a step is tried again. After that another producer of the same name finds out.
const PERSIST: Duration = Duration::from_secs(30);

/// After this long without a word librdkafka is stuck in a step. The coordinator has given the transaction up by then.
const STUCK: Duration = Duration::from_secs(10);

/// The producer's settings; `kafka.properties` win over them.
const SETTINGS: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // So long may a transaction of a process that is gone hold up readers of committed records, unless it comes back.
    ("transaction.timeout.ms", "10000"),
    // Records leave at once, so that whoever reads uncommitted has them.
    ("linger.ms", "0"),
    ("sticky.partitioning.linger.ms", "0"),
    // As Java's clients partition.
    ("partitioner", "murmur2_random"),
];

/// While one gathers and another is at its commit, the broker still writes down what became of the third's, and would
/// have its next transaction wait.
pub(super) const SESSIONS: usize = 3;

/// Makes sessions, by the instance's name and their index.
pub(super) struct Maker {
    cluster: Arc<Cluster>,
    identity: Identity,
    limits: Limits,
}

/// One transactional producer.
pub(super) struct Session {
    index: usize,
    producer: Arc<BaseProducer<SessionContext>>,
}

/// Why a step did not succeed.
#[derive(Debug)]
pub(super) enum Broken {
    /// The transaction has to be aborted; the session goes on.
    Transaction(KafkaError),
    /// The session is of no use any more. Whether a commit took place is not known.
    Session(KafkaError),
}

/// The producer's callbacks.
pub(super) struct SessionContext {
    broker: BrokerContext,
    /// The records of the transaction that the broker did not take.
    refused: Mutex<Vec<(Slot, KafkaError)>>,
}

impl Maker {
    pub(super) fn new(cluster: Arc<Cluster>, identity: Identity, limits: Limits) -> Self {
        Self { cluster, identity, limits }
    }

    /// Whose transactions these are, for a person.
    pub(super) fn name(&self) -> &str {
        self.identity.name()
    }

    /// Introduces a producer to the coordinator, which decides what an earlier one of this name has left open, and takes
    /// nothing from that one any more.
    pub(super) fn open(&self, index: usize) -> Result<Session, BrokerError> {
        let context = SessionContext { broker: self.cluster.context("replies"), refused: Mutex::new(Vec::new()) };
        let name = format!("{}.{index}", self.identity.name());
        let mut settings = self.limits.after(SETTINGS);
        settings.push(("transactional.id", &name));
        let producer: BaseProducer<SessionContext> = self.cluster.client("replies", &settings, context)?;
        let session = Session { index, producer: Arc::new(producer) };
        let opened = persist(&session.producer, |producer| producer.init_transactions(TRY));
        opened.map_err(|broken| BrokerError::Transactions { source: broken.into_error() })?;
        Ok(session)
    }
}

impl Session {
    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn producer(&self) -> &BaseProducer<SessionContext> {
        &self.producer
    }

    /// Takes in what librdkafka has to say. Only whoever has the session does: another beside would take from a step of
    /// the transaction what that waits for.
    pub(super) fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    pub(super) fn begin(&self) -> Result<(), Broken> {
        self.take_refused();
        self.producer.begin_transaction().map_err(classify)
    }

    /// Waits until the broker has all records of the transaction.
    pub(super) fn flush(&self) -> Result<(), Broken> {
        persist(&self.producer, flush)
    }

    /// Adds offsets to the transaction. While the group's coordinator is away librdkafka may wait for ever, whatever time
    /// it is given (its issues 5456 and 5511), so another thread waits for it: one that is stuck is left behind, and its
    /// client with it, until a broker comes or goes. What it may still send then has been fenced.
    pub(super) fn add_offsets(&self, staged: Staged) -> Result<(), Broken> {
        let (tell, told) = channel();
        let producer = self.producer.clone();
        let add = move || {
            let Staged { offsets, group } = staged;
            let added = persist(&producer, |producer| producer.send_offsets_to_transaction(&offsets, &group, TRY));
            // Nobody listens any more when it took too long.
            let _ = tell.send(added);
        };
        let stuck = || Broken::Session(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut));
        thread::Builder::new().name("offsets".to_owned()).spawn(add).map_err(|_| stuck())?;
        told.recv_timeout(STUCK).unwrap_or_else(|_| Err(stuck()))
    }

    pub(super) fn commit(&self) -> Result<(), Broken> {
        persist(&self.producer, |producer| producer.commit_transaction(TRY))
    }

    pub(super) fn abort(&self) -> Result<(), Broken> {
        persist(&self.producer, |producer| {
            // librdkafka waits for the records under way, and leaves it to us to take in what became of them.
            producer.purge(PurgeConfig::default().queue());
            flush(producer)?;
            producer.abort_transaction(TRY)
        })
    }

    /// Drops it beside: librdkafka may wait for brokers that are away, and the next of its name must not.
    pub(super) fn discard(self) {
        let dropped = thread::Builder::new().name("discarded".to_owned()).spawn(move || drop(self));
        if let Err(error) = dropped {
            debug!(%error, "a producer was dropped on the spot");
        }
    }

    /// The records of the transaction that the broker did not take.
    pub(super) fn take_refused(&self) -> Vec<(Slot, KafkaError)> {
        std::mem::take(&mut *self.producer.context().refused.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn has_refused(&self) -> bool {
        !self.producer.context().refused.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Broken {
    pub(super) fn into_error(self) -> KafkaError {
        match self {
            Self::Transaction(error) | Self::Session(error) => error,
        }
    }

    pub(super) fn error(&self) -> &KafkaError {
        match self {
            Self::Transaction(error) | Self::Session(error) => error,
        }
    }

    /// Whether another producer of the same name has taken over, or the coordinator has given this one up.
    pub(super) fn is_fenced(&self) -> bool {
        matches!(
            self.error().rdkafka_error_code(),
            Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
        )
    }

    /// Whether librdkafka never came back from a step.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(self, Self::Session(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut)))
    }
}

/// Takes a step, again and again while only time is lacking. librdkafka goes on with the same step each time.
fn persist(
    producer: &BaseProducer<SessionContext>,
    step: impl Fn(&BaseProducer<SessionContext>) -> Result<(), KafkaError>,
) -> Result<(), Broken> {
    let until = Instant::now() + PERSIST;
    loop {
        let Err(error) = step(producer) else { return Ok(()) };
        if !is_for_want_of_time(&error) || Instant::now() >= until {
            return Err(classify(error));
        }
    }
}

/// The library's own way looks ten times a second. To be polled for less than a millisecond it takes as "do not wait", again
/// and again until the time is over, so the thread sleeps instead.
fn flush(producer: &BaseProducer<SessionContext>) -> Result<(), KafkaError> {
    let until = Instant::now() + TRY;
    while producer.in_flight_count() > 0 {
        if Instant::now() >= until {
            return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
        }
        let before = producer.in_flight_count();
        producer.poll(Duration::ZERO);
        if producer.in_flight_count() == before {
            thread::sleep(LOOK);
        }
    }
    Ok(())
}

fn is_for_want_of_time(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable() && !error.txn_requires_abort() && !error.is_fatal(),
        KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        _ => false,
    }
}

fn classify(error: KafkaError) -> Broken {
    match &error {
        KafkaError::Transaction(cause) if cause.txn_requires_abort() && !cause.is_fatal() => Broken::Transaction(error),
        _ => Broken::Session(error),
    }
}

impl ClientContext for SessionContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.broker.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // What one at rest has to say is heard late, when it may long be otherwise. The other clients say this as well.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.broker.error(error, reason);
        }
    }
}

impl ProducerContext for SessionContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        match result {
            Ok(_) => self.broker.health().answered(),
            Err((error, _)) => {
                let refused = (Slot::from_opaque(opaque), error.clone());
                self.refused.lock().unwrap_or_else(PoisonError::into_inner).push(refused);
            }
        }
    }
}

#[cfg(test)]
mod tests;
