//! Session: one transactional producer, from its introduction to the coordinator to the error that ends it.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer, PurgeConfig};
use rdkafka::statistics::Statistics;

use tracing::debug;

use crate::broker::{BrokerContext, BrokerError, Cluster, Deliveries, Identity, is_fenced, is_for_want_of_time};
use crate::config::Kafka;
use crate::intake::StagedOffsets;
use crate::replies::limits::TopicLimits;
use crate::replies::recourse::RecordKind;
use crate::replies::throttle::Throttle;

/// Time that one attempt of a step may take. After it the process may have been told to end.
const TRY: Duration = Duration::from_secs(5);
/// Interval at which a flush looks whether the broker has all records.
const LOOK: Duration = Duration::from_micros(500);
/// Time for which a step is tried again. After that another producer of the same name finds out the outcome.
const PERSIST: Duration = Duration::from_secs(30);

/// Silence of librdkafka after which a step is stuck. The coordinator has given the transaction up by then.
const STUCK: Duration = Duration::from_secs(10);

/// Time that the coordinator waits for a transaction's end, in milliseconds, as the property has it.
const TIMEOUT: (&str, &str) = ("transaction.timeout.ms", "10000");
/// Part of that time which is left to the records, so that a transaction which takes longer is aborted before that.
const FOR_RECORDS: f64 = 0.7;
/// Least time for the records of a transaction after the one before it is over.
const AT_LEAST: Duration = Duration::from_secs(2);
/// Time without a written record after which a flush is late: the partition may be away, or the outcome of an earlier
/// transaction of the same producer may not be written down yet.
const STANDSTILL: Duration = Duration::from_secs(4);
/// Time for which the records under way may hold up an abort.
const ABORT: Duration = Duration::from_secs(5);
/// Interval at which queued records are thrown away during an abort.
const PURGE: Duration = Duration::from_millis(100);

/// Settings of the producer; `kafka.properties` win over them.
const SETTINGS: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // A transaction of a process that is gone may hold up readers of committed records so long, unless the process
    // comes back.
    TIMEOUT,
    // Records leave at once, so that readers of uncommitted records have them.
    ("linger.ms", "0"),
    ("sticky.partitioning.linger.ms", "0"),
    // Keys choose partitions as in Java's clients.
    ("partitioner", "murmur2_random"),
];

/// Sessions that take turns. While one gathers and another commits, the broker still writes down the outcome of the
/// third's transaction, and would have its next transaction wait.
pub(super) const SESSIONS: usize = 3;
/// Most sessions, with the spare ones: a replaced session waits until the brokers have written down the outcome of its
/// last transaction.
pub(super) const MAX_SESSIONS: usize = 6;

/// Record of a transaction: the index of its publication, and which of the publication's records it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RecordId {
    pub(super) publication: usize,
    pub(super) kind: RecordKind,
}

/// Record that was not taken, and why.
pub(super) type RejectedRecord = (RecordId, KafkaError);

/// Opens sessions, by the instance's name and their index.
pub(super) struct SessionFactory {
    cluster: Arc<Cluster>,
    identity: Identity,
    limits: TopicLimits,
    throttle: Throttle,
    for_records: Duration,
}

/// One transactional producer.
pub(super) struct Session {
    index: usize,
    for_records: Duration,
    producer: Arc<SessionProducer>,
}

/// Error of a step.
#[derive(Debug)]
pub(super) enum StepError {
    /// The transaction has to be aborted; the session goes on.
    Abortable(KafkaError),
    /// The session is lost. Whether a commit took place is not known.
    Fatal(KafkaError),
}

/// Outcome of flushing the records of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlushOutcome {
    /// The broker has all records.
    Complete,
    /// A record was rejected.
    Rejected,
    /// Not all records were written in time.
    Late,
}

/// Client of a session.
pub(super) type SessionProducer = BaseProducer<BrokerContext<SessionDeliveries>>;

/// Receiver of the producer's delivery reports.
pub(super) struct SessionDeliveries {
    /// Records of the transaction that the broker did not take.
    refused: Mutex<Vec<RejectedRecord>>,
    index: usize,
    throttle: Throttle,
}

impl RecordId {
    /// Packs the id into the number that travels with the record through librdkafka.
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
        limits: TopicLimits,
        throttle: Throttle,
    ) -> Self {
        let timeout = config.properties.get(TIMEOUT.0).map_or(TIMEOUT.1, String::as_str);
        let timeout = Duration::from_millis(timeout.parse().unwrap_or(10_000));
        Self { cluster, identity, limits, throttle, for_records: timeout.mul_f64(FOR_RECORDS) }
    }

    /// Names the instance whose transactions these are, for a person.
    pub(super) fn name(&self) -> &str {
        self.identity.name()
    }

    /// Introduces a producer to the coordinator, which decides the transaction that an earlier producer of this name
    /// has left open, and takes nothing from that one any more (fencing).
    pub(super) fn open(&self, index: usize) -> Result<Session, BrokerError> {
        let throttle = self.throttle.clone();
        let deliveries = SessionDeliveries { refused: Mutex::default(), index, throttle };
        let context = |broker: BrokerContext| broker.at_rest().with(deliveries);
        let name = format!("{}.{index}", self.identity.name());
        let mut settings = self.limits.after(SETTINGS);
        settings.push(("transactional.id", &name));
        let producer: SessionProducer = self.cluster.client("replies", &settings, context)?;
        let session = Session { index, for_records: self.for_records, producer: Arc::new(producer) };
        let opened = persist(&session.producer, |producer| producer.init_transactions(TRY));
        opened.map_err(|error| BrokerError::Transactions { source: error.into_error() })?;
        Ok(session)
    }
}

impl Session {
    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn producer(&self) -> &SessionProducer {
        &self.producer
    }

    /// Takes in librdkafka's events. Only the owner of the session does: another thread beside it would take from a
    /// step of the transaction the event that the step waits for.
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
        // The library's own flush looks ten times a second. A poll for less than a millisecond does not wait in
        // librdkafka and would spin until the time is over, so the thread sleeps instead.
        let until = (began + self.for_records).max(Instant::now() + AT_LEAST);
        let (mut left, mut progress) = (self.producer.in_flight_count(), Instant::now());
        loop {
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            let now_left = self.producer.in_flight_count();
            if now_left != left {
                (left, progress) = (now_left, Instant::now());
            } else if progress.elapsed() > STANDSTILL || Instant::now() > until {
                return FlushOutcome::Late;
            } else {
                thread::sleep(LOOK);
            }
        }
    }

    /// Returns the same without waiting; None while records are under way. A standstill does not matter here.
    pub(super) fn written(&self, began: Instant) -> Option<FlushOutcome> {
        self.outcome().or_else(|| (began.elapsed() > self.for_records).then_some(FlushOutcome::Late))
    }

    /// Returns what has become of all records; None while records are under way and none was rejected.
    fn outcome(&self) -> Option<FlushOutcome> {
        self.poll();
        if self.has_refused() {
            return Some(FlushOutcome::Rejected);
        }
        (self.producer.in_flight_count() == 0).then_some(FlushOutcome::Complete)
    }

    /// Adds offsets to the transaction. While the group's coordinator is away librdkafka may wait for ever, whatever
    /// time it is given (its issues 5456 and 5511), so another thread waits for it: one that is stuck is left behind,
    /// and its client with it, until a broker comes or goes. The requests that it may still send then have been fenced.
    pub(super) fn add_offsets(&self, staged: StagedOffsets) -> Result<(), StepError> {
        let (sender, result) = channel();
        let producer = self.producer.clone();
        let add = move || {
            let StagedOffsets { offsets, group } = staged;
            let added = persist(&producer, |producer| producer.send_offsets_to_transaction(&offsets, &group, TRY));
            // The receiver is gone when the step took too long.
            let _ = sender.send(added);
        };
        let stuck = || StepError::Fatal(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut));
        thread::Builder::new().name("offsets".to_owned()).spawn(add).map_err(|_| stuck())?;
        result.recv_timeout(STUCK).unwrap_or_else(|_| Err(stuck()))
    }

    pub(super) fn commit(&self) -> Result<(), StepError> {
        persist(&self.producer, |producer| producer.commit_transaction(TRY))
    }

    /// Aborts the transaction, whose records that were not taken come with the session, unless that is lost.
    pub(super) fn roll_back(self) -> (Vec<RejectedRecord>, Result<Self, StepError>) {
        let aborted = self.abort();
        let refused = self.take_refused();
        match aborted {
            Ok(()) => (refused, Ok(self)),
            Err(error) => {
                self.discard();
                (refused, Err(error))
            }
        }
    }

    pub(super) fn abort(&self) -> Result<(), StepError> {
        // librdkafka waits for the records under way, and leaves it to us to take in their outcomes.
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

    /// Leaves a transaction as it is to the next producer of this name, which has it aborted. Returns the records that
    /// were not written, as far as is known.
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

    /// Drops the session on a thread of its own: librdkafka may wait for brokers that are away, and the next session of
    /// its name must not.
    pub(super) fn discard(self) {
        let dropped = thread::Builder::new().name("discarded".to_owned()).spawn(move || drop(self));
        if let Err(error) = dropped {
            debug!(%error, "a producer was dropped on the spot");
        }
    }

    /// Takes the records of the transaction that the broker did not take.
    pub(super) fn take_refused(&self) -> Vec<RejectedRecord> {
        std::mem::take(&mut *self.producer.context().deliveries().refused.lock())
    }

    pub(super) fn has_refused(&self) -> bool {
        !self.producer.context().deliveries().refused.lock().is_empty()
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

    /// Returns whether another producer of the same name has taken over, or the coordinator has given this one up.
    pub(super) fn is_fenced(&self) -> bool {
        is_fenced(self.error())
    }

    /// Returns whether librdkafka never came back from a step.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(self, Self::Fatal(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut)))
    }
}

/// Takes a step, again and again while only time is lacking. librdkafka goes on with the same step each time.
fn persist(
    producer: &SessionProducer,
    step: impl Fn(&SessionProducer) -> Result<(), KafkaError>,
) -> Result<(), StepError> {
    let until = Instant::now() + PERSIST;
    loop {
        let Err(error) = step(producer) else { return Ok(()) };
        if !is_for_want_of_time(&error) || Instant::now() >= until {
            return Err(classify(error));
        }
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

impl Deliveries for SessionDeliveries {
    type Record = usize;

    fn delivered(&self, result: Result<(), &KafkaError>, opaque: usize) {
        if let Err(error) = result {
            self.refused.lock().push((RecordId::from_opaque(opaque), error.clone()));
        }
    }

    fn statistics(&self, statistics: &Statistics) {
        self.throttle.take(self.index, statistics);
    }
}

#[cfg(test)]
mod tests;
