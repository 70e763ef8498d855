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

use crate::broker::{BrokerContext, BrokerError, Cluster, Identity};
use crate::config::Kafka;
use crate::intake::StagedOffsets;
use crate::replies::limits::Limits;
use crate::replies::recourse::RecordKind;
use crate::replies::throttle::Throttle;

/// How long one attempt of a step may take. After it the process may have been told to end.
const TRY: Duration = Duration::from_secs(5);
/// How often it is looked whether the broker has all records.
const LOOK: Duration = Duration::from_micros(500);
/// How long a step is tried again. After that another producer of the same name finds out.
const PERSIST: Duration = Duration::from_secs(30);

/// After this long without a word librdkafka is stuck in a step. The coordinator has given the transaction up by then.
const STUCK: Duration = Duration::from_secs(10);

/// How long the coordinator waits for a transaction's end, in milliseconds, as the property has it; and which part of it
/// is left to the records, so that what takes longer is given up before that.
const TIMEOUT: (&str, &str) = ("transaction.timeout.ms", "10000");
const FOR_RECORDS: f64 = 0.7;
/// So long at least a transaction has for its records after the one before it is over.
const AT_LEAST: Duration = Duration::from_secs(2);
/// When nothing is written for this long, the partition may be away, or what became of an earlier transaction of the same
/// producer may not be written down yet.
const STANDSTILL: Duration = Duration::from_secs(4);
/// How long the records under way may hold up an abort.
const ABORT: Duration = Duration::from_secs(5);
/// How often what waits is thrown away meanwhile.
const PURGE: Duration = Duration::from_millis(100);

/// The producer's settings; `kafka.properties` win over them.
const SETTINGS: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // So long may a transaction of a process that is gone hold up readers of committed records, unless it comes back.
    TIMEOUT,
    // Records leave at once, so that whoever reads uncommitted has them.
    ("linger.ms", "0"),
    ("sticky.partitioning.linger.ms", "0"),
    // As Java's clients partition.
    ("partitioner", "murmur2_random"),
];

/// While one gathers and another is at its commit, the broker still writes down what became of the third's, and would
/// have its next transaction wait.
pub(super) const SESSIONS: usize = 3;
/// With those that take the place of others, which wait until the brokers have written down what became of their last.
pub(super) const MAX_SESSIONS: usize = 6;

/// Which record of a transaction: a job's index, and which of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RecordId {
    pub(super) publication: usize,
    pub(super) kind: RecordKind,
}

/// A record that was not taken, and why.
pub(super) type RejectedRecord = (RecordId, KafkaError);

/// Makes sessions, by the instance's name and their index.
pub(super) struct SessionFactory {
    cluster: Arc<Cluster>,
    identity: Identity,
    limits: Limits,
    throttle: Throttle,
    for_records: Duration,
}

/// One transactional producer.
pub(super) struct Session {
    index: usize,
    for_records: Duration,
    producer: Arc<BaseProducer<SessionContext>>,
}

/// Why a step did not succeed.
#[derive(Debug)]
pub(super) enum StepError {
    /// The transaction has to be aborted; the session goes on.
    Abortable(KafkaError),
    /// The session is of no use any more. Whether a commit took place is not known.
    Fatal(KafkaError),
}

/// What became of the records of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlushOutcome {
    /// The broker has all of them.
    Complete,
    /// One was refused.
    Rejected,
    /// Not all were there in time.
    Late,
}

/// The producer's callbacks.
pub(super) struct SessionContext {
    broker: BrokerContext,
    /// The records of the transaction that the broker did not take.
    refused: Mutex<Vec<RejectedRecord>>,
    index: usize,
    throttle: Throttle,
}

impl RecordId {
    /// What travels with the record through librdkafka.
    pub(super) fn opaque(self) -> usize {
        self.publication << 1 | usize::from(self.kind == RecordKind::DeadLetter)
    }

    pub(super) fn from_opaque(opaque: usize) -> Self {
        Self {
            publication: opaque >> 1,
            kind: if opaque & 1 == 1 { RecordKind::DeadLetter } else { RecordKind::Reply },
        }
    }
}

impl SessionFactory {
    pub(super) fn new(
        config: &Kafka,
        cluster: Arc<Cluster>,
        identity: Identity,
        limits: Limits,
        throttle: Throttle,
    ) -> Self {
        let timeout = config.properties.get(TIMEOUT.0).map_or(TIMEOUT.1, String::as_str);
        let timeout = Duration::from_millis(timeout.parse().unwrap_or(10_000));
        Self { cluster, identity, limits, throttle, for_records: timeout.mul_f64(FOR_RECORDS) }
    }

    /// Whose transactions these are, for a person.
    pub(super) fn name(&self) -> &str {
        self.identity.name()
    }

    /// Introduces a producer to the coordinator, which decides what an earlier one of this name has left open, and takes
    /// nothing from that one any more.
    pub(super) fn open(&self, index: usize) -> Result<Session, BrokerError> {
        let throttle = self.throttle.clone();
        let context = |broker: BrokerContext| SessionContext {
            broker: broker.at_rest(),
            refused: Mutex::new(Vec::new()),
            index,
            throttle,
        };
        let name = format!("{}.{index}", self.identity.name());
        let mut settings = self.limits.after(SETTINGS);
        settings.push(("transactional.id", &name));
        let producer: BaseProducer<SessionContext> = self.cluster.client("replies", &settings, context)?;
        let session = Session { index, for_records: self.for_records, producer: Arc::new(producer) };
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

    pub(super) fn begin(&self) -> Result<(), StepError> {
        self.take_refused();
        self.producer.begin_transaction().map_err(classify)
    }

    /// Waits until the broker has all records of a transaction that began then, or until that is not to be expected in
    /// time any more.
    pub(super) fn flush(&self, began: Instant) -> FlushOutcome {
        // The library's own way looks ten times a second. To be polled for less than a millisecond it takes as "do not
        // wait", again and again until the time is over, so the thread sleeps instead.
        let until = (began + self.for_records).max(Instant::now() + AT_LEAST);
        let (mut left, mut progress) = (self.producer.in_flight_count(), Instant::now());
        loop {
            self.poll();
            let now_left = self.producer.in_flight_count();
            if self.has_refused() {
                return FlushOutcome::Rejected;
            }
            if now_left == 0 {
                return FlushOutcome::Complete;
            }
            if now_left != left {
                (left, progress) = (now_left, Instant::now());
            } else if progress.elapsed() > STANDSTILL || Instant::now() > until {
                return FlushOutcome::Late;
            } else {
                thread::sleep(LOOK);
            }
        }
    }

    /// The same without waiting; None while they are under way. How long nothing is written does not matter here.
    pub(super) fn written(&self, began: Instant) -> Option<FlushOutcome> {
        self.poll();
        if self.has_refused() {
            Some(FlushOutcome::Rejected)
        } else if self.producer.in_flight_count() == 0 {
            Some(FlushOutcome::Complete)
        } else {
            (began.elapsed() > self.for_records).then_some(FlushOutcome::Late)
        }
    }

    /// Adds offsets to the transaction. While the group's coordinator is away librdkafka may wait for ever, whatever time
    /// it is given (its issues 5456 and 5511), so another thread waits for it: one that is stuck is left behind, and its
    /// client with it, until a broker comes or goes. What it may still send then has been fenced.
    pub(super) fn add_offsets(&self, staged: StagedOffsets) -> Result<(), StepError> {
        let (tell, told) = channel();
        let producer = self.producer.clone();
        let add = move || {
            let StagedOffsets { offsets, group } = staged;
            let added = persist(&producer, |producer| producer.send_offsets_to_transaction(&offsets, &group, TRY));
            // Nobody listens any more when it took too long.
            let _ = tell.send(added);
        };
        let stuck = || StepError::Fatal(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut));
        thread::Builder::new().name("offsets".to_owned()).spawn(add).map_err(|_| stuck())?;
        told.recv_timeout(STUCK).unwrap_or_else(|_| Err(stuck()))
    }

    pub(super) fn commit(&self) -> Result<(), StepError> {
        persist(&self.producer, |producer| producer.commit_transaction(TRY))
    }

    pub(super) fn abort(&self) -> Result<(), StepError> {
        // librdkafka waits for the records under way, and leaves it to us to take in what became of them.
        let (began, mut purged) = (Instant::now(), None::<Instant>);
        while self.producer.in_flight_count() > 0 {
            if began.elapsed() > ABORT {
                return Err(StepError::Fatal(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)));
            }
            if purged.is_none_or(|purged| purged.elapsed() > PURGE) {
                self.producer.purge(PurgeConfig::default().queue());
                purged = Some(Instant::now());
            }
            self.poll();
            thread::sleep(LOOK);
        }
        persist(&self.producer, |producer| producer.abort_transaction(TRY))
    }

    /// Leaves a transaction as it is to the next producer of this name, which has it aborted. Comes back with the records
    /// that were not written, as far as is known.
    pub(super) fn leave(self) -> Vec<RejectedRecord> {
        self.producer.purge(PurgeConfig::default().queue().inflight());
        let began = Instant::now();
        while self.producer.in_flight_count() > 0 && began.elapsed() < PURGE {
            self.poll();
            thread::sleep(LOOK);
        }
        self.poll();
        let refused = self.take_refused();
        self.discard();
        refused
    }

    /// Drops it beside: librdkafka may wait for brokers that are away, and the next of its name must not.
    pub(super) fn discard(self) {
        let dropped = thread::Builder::new().name("discarded".to_owned()).spawn(move || drop(self));
        if let Err(error) = dropped {
            debug!(%error, "a producer was dropped on the spot");
        }
    }

    /// The records of the transaction that the broker did not take.
    pub(super) fn take_refused(&self) -> Vec<RejectedRecord> {
        std::mem::take(&mut *self.producer.context().refused.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn has_refused(&self) -> bool {
        !self.producer.context().refused.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl StepError {
    pub(super) fn into_error(self) -> KafkaError {
        match self {
            Self::Abortable(error) | Self::Fatal(error) => error,
        }
    }

    pub(super) fn error(&self) -> &KafkaError {
        match self {
            Self::Abortable(error) | Self::Fatal(error) => error,
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
        matches!(self, Self::Fatal(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut)))
    }
}

/// Takes a step, again and again while only time is lacking. librdkafka goes on with the same step each time.
fn persist(
    producer: &BaseProducer<SessionContext>,
    step: impl Fn(&BaseProducer<SessionContext>) -> Result<(), KafkaError>,
) -> Result<(), StepError> {
    let until = Instant::now() + PERSIST;
    loop {
        let Err(error) = step(producer) else { return Ok(()) };
        if !is_for_want_of_time(&error) || Instant::now() >= until {
            return Err(classify(error));
        }
    }
}

fn is_for_want_of_time(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable() && !error.txn_requires_abort() && !error.is_fatal(),
        _ => false,
    }
}

fn classify(error: KafkaError) -> StepError {
    match &error {
        KafkaError::Transaction(cause) if cause.txn_requires_abort() && !cause.is_fatal() => {
            StepError::Abortable(error)
        }
        _ => StepError::Fatal(error),
    }
}

impl ClientContext for SessionContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.broker.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.broker.error(error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.broker.stats_raw(statistics);
        self.throttle.take(self.index, statistics);
    }
}

impl ProducerContext for SessionContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        match result {
            Ok(_) => self.broker.health().answered(),
            Err((error, _)) => {
                let refused = (RecordId::from_opaque(opaque), error.clone());
                self.refused.lock().unwrap_or_else(PoisonError::into_inner).push(refused);
            }
        }
    }
}

#[cfg(test)]
mod tests;
