//! `delivery: at_least_once`: each record by itself, and a request is finished when the broker has acknowledged it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{debug, error, warn};

use super::counts::Counts;
use super::directory::Standing;
use super::job::Job;
use super::publisher::Parts;
use super::recourse::{Cause, Part};
use super::throttle::Throttle;
use crate::broker::{BrokerContext, BrokerError};
use crate::telemetry::Flow;

/// How long a full producer queue is left to drain.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);
/// How long a record that was not taken waits before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How soon it may be known how it stands with a topic.
const KNOWN_AFTER: Duration = Duration::from_millis(20);

/// The producer's settings; `kafka.properties` win over them.
const SETTINGS: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // A reply waits for the broker as long as it takes; what is in flight is bounded, so nothing piles up.
    ("message.timeout.ms", "0"),
    // Replies leave at once: under load they gather while the broker is busy with the ones before.
    ("linger.ms", "0"),
    ("sticky.partitioning.linger.ms", "0"),
    // As Java's clients partition.
    ("partitioner", "murmur2_random"),
];

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Acknowledged {
    shared: Arc<Shared>,
}

struct Shared {
    producer: ThreadedProducer<DeliveryContext>,
    parts: Parts,
    runtime: Handle,
}

/// A job that needs another record. Few ever do, so the channel is unbounded in name only: it never holds more than is
/// in flight.
enum Unsettled {
    /// The broker did not take the record.
    Failed(Box<Job>, KafkaError),
    /// The dead letter is acknowledged; its caller is still to be told.
    Lettered(Box<Job>),
}

/// The producer's callbacks.
struct DeliveryContext {
    broker: BrokerContext,
    unsettled: UnboundedSender<Unsettled>,
    counts: Counts,
    flow: Flow,
    throttle: Throttle,
}

impl Acknowledged {
    pub(super) fn start(parts: Parts) -> Result<Self, BrokerError> {
        let (unsettled, receiver) = unbounded_channel();
        let (counts, flow, throttle) = (parts.counts.clone(), parts.flow.clone(), parts.throttle.clone());
        let context = |broker| DeliveryContext { broker, unsettled, counts, flow, throttle };
        let producer = parts.cluster.client("replies", &parts.limits.after(SETTINGS), context)?;
        let acknowledged = Self { shared: Arc::new(Shared { producer, parts, runtime: Handle::current() }) };
        acknowledged.shared.runtime.spawn(acknowledged.clone().settle(receiver));
        Ok(acknowledged)
    }

    pub(super) fn flush(&self, timeout: Duration) {
        if let Err(error) = self.shared.producer.flush(timeout) {
            warn!(%error, "not every reply was acknowledged; their requests will be answered again");
        }
    }

    /// Sends the record of a job whose turn it is. What librdkafka does not take it sends another way, within its turn.
    pub(super) fn send(&self, job: Box<Job>) {
        if let Some((job, pause)) = self.attempt(job) {
            self.send_later(job, pause);
        }
    }

    fn send_later(&self, mut job: Box<Job>, mut pause: Duration) {
        let acknowledged = self.clone();
        self.shared.runtime.spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                match acknowledged.attempt(job) {
                    Some(again) => (job, pause) = again,
                    None => return,
                }
            }
        });
    }

    /// Sends a record. Comes back with the job if librdkafka has not taken it, and when to try again.
    fn attempt(&self, mut job: Box<Job>) -> Option<(Box<Job>, Duration)> {
        loop {
            if job.ending.ticket.is_revoked() {
                debug!(source = %job.ending.request.source, "a late result is dropped; its partition has a new owner");
                return None;
            }
            if job.is_done() {
                self.shared.parts.counts.ended(&job);
                job.ending.ticket.finish();
                return None;
            }
            match self.look(&job) {
                Ok(None) => {}
                Ok(Some(pause)) => return Some((job, pause)),
                Err((cause, error)) => match self.refused(&mut job, cause, &error) {
                    Some(Duration::ZERO) => continue,
                    pause => return pause.map(|pause| (job, pause)),
                },
            }
            job.sent = Instant::now();
            let error;
            (error, job) = self.hand_over(job).err()?;
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => return Some((job, QUEUE_FULL_WAIT)),
                code => match self.refused(&mut job, Cause::of(code), &error) {
                    Some(Duration::ZERO) => {}
                    pause => return pause.map(|pause| (job, pause)),
                },
            }
        }
    }

    /// How it stands with the place that a job's record goes to: whether it has to wait, or why it need not be tried.
    fn look(&self, job: &Job) -> Result<Option<Duration>, (Cause, KafkaError)> {
        let Parts { directory, graveyard, .. } = &self.shared.parts;
        let Some(target) = job.target(job.part, graveyard) else { return Ok(None) };
        match directory.standing(target.topic, target.partition, target.key.as_deref()) {
            Standing::Open => Ok(None),
            Standing::Unknown => Ok(Some(KNOWN_AFTER)),
            // Our own are an operator's to mend; librdkafka finds out when that is done.
            Standing::NoTopic(_) if directory.is_own(target.topic) => Ok(None),
            Standing::NoTopic(code) => Err((Cause::Topic, KafkaError::MessageProduction(code))),
            Standing::NoPartition => {
                Err((Cause::Partition, KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition)))
            }
            Standing::Away(since) if job.waits_no_longer(since) => {
                Err((Cause::Topic, KafkaError::MessageProduction(RDKafkaErrorCode::LeaderNotAvailable)))
            }
            Standing::Away(_) => Ok(Some(AGAIN_AFTER)),
        }
    }

    /// Whoever waits behind the job may leave once librdkafka has its last record; a dead letter is followed by another.
    fn hand_over(&self, mut job: Box<Job>) -> Result<(), (KafkaError, Box<Job>)> {
        let Shared { producer, parts: Parts { graveyard, directory, .. }, .. } = &*self.shared;
        let Some(outgoing) = job.record(job.part, graveyard) else {
            return Err((KafkaError::MessageProduction(RDKafkaErrorCode::InvalidRecord), job));
        };
        if outgoing.bytes > directory.largest_record(&outgoing.topic) {
            return Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), job));
        }
        let place = job.ending.place.take_if(|_| job.part == Part::Reply);
        outgoing.send(producer, job).map_err(|(error, mut job)| {
            job.ending.place = job.ending.place.take().or(place);
            (error, job)
        })
    }

    /// Takes up what the producer's thread reports.
    async fn settle(self, mut unsettled: UnboundedReceiver<Unsettled>) {
        while let Some(unsettled) = unsettled.recv().await {
            match unsettled {
                Unsettled::Failed(mut job, error) => {
                    let cause = Cause::of(error.rdkafka_error_code());
                    let pause = match cause {
                        // It was refused with others that it was sent with.
                        Cause::Size if !job.was_refused && self.seems_to_fit(&job) => Some(AGAIN_AFTER),
                        _ => self.refused(&mut job, cause, &error),
                    };
                    job.was_refused = true;
                    if let Some(pause) = pause {
                        self.send_later(job, pause);
                    }
                }
                Unsettled::Lettered(mut job) => {
                    job.part = Part::Reply;
                    self.send(job);
                }
            }
        }
    }

    /// A record was not taken: changes the job into what should go in its place, and says how long to wait. None when
    /// nothing can go any more.
    fn refused(&self, job: &mut Job, cause: Cause, error: &KafkaError) -> Option<Duration> {
        let shared = &self.shared;
        shared.parts.counts.refused(error.rdkafka_error_code());
        shared.parts.flow.failed(error);
        if let Some((fatal, why)) = shared.producer.client().fatal_error() {
            error!(%fatal, why, "the producer of replies cannot go on");
            shared.parts.failed.cancel();
            return None;
        }
        let is_changed = job.refused(job.part, cause, error, &shared.parts.allowed);
        Some(if is_changed { Duration::ZERO } else { AGAIN_AFTER })
    }

    fn seems_to_fit(&self, job: &Job) -> bool {
        let Parts { graveyard, directory, .. } = &self.shared.parts;
        let record = job.record(job.part, graveyard);
        record.is_some_and(|record| record.bytes <= directory.largest_record(&record.topic))
    }
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.broker.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.broker.error(error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.broker.stats_raw(statistics);
        self.throttle.take(0, statistics);
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Box<Job>;

    fn delivery(&self, result: &DeliveryResult<'_>, job: Box<Job>) {
        if let Err((error, _)) = result {
            // The receiver is gone only after everything in flight has ended or was given up.
            let _ = self.unsettled.send(Unsettled::Failed(job, error.clone()));
            return;
        }
        self.broker.health().answered();
        self.flow.passed();
        match job.part {
            Part::Letter => {
                let _ = self.unsettled.send(Unsettled::Lettered(job));
            }
            Part::Reply => {
                self.counts.ended(&job);
                job.ending.ticket.finish();
            }
        }
    }
}
