//! Delivery mode `at_least_once`: each record goes by itself, and a request is finished when the broker has
//! acknowledged its record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer, ThreadedProducer};
use rdkafka::statistics::Statistics;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{debug, error, warn};

use super::counts::Counts;
use super::parts::{Parts, Prospect};
use super::publication::Publication;
use super::recourse::{Cause, RecordKind};
use super::throttle::Throttle;
use crate::broker::{BrokerContext, BrokerError, Deliveries};
use crate::telemetry::ProgressWatch;

/// Pause in which a full producer queue drains before the record is sent again.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);
/// Pause before a rejected record is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Pause before a topic is looked at again that is being looked up.
const KNOWN_AFTER: Duration = Duration::from_millis(20);

/// Settings of the producer; `kafka.properties` win over them.
const SETTINGS: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // A reply waits for the broker as long as that takes; the requests in flight are bounded, so nothing piles up.
    ("message.timeout.ms", "0"),
    // Replies leave at once: under load they gather while the broker is busy with the ones before.
    ("linger.ms", "0"),
    ("sticky.partitioning.linger.ms", "0"),
    // Keys choose partitions as in Java's clients.
    ("partitioner", "murmur2_random"),
];

/// Producer that sends each record by itself. Cheap to clone.
#[derive(Clone)]
pub(super) struct AtLeastOnce {
    state: Arc<ProducerState>,
}

struct ProducerState {
    producer: ThreadedProducer<BrokerContext<ReplyDeliveries>>,
    parts: Arc<Parts>,
    runtime: Handle,
}

/// Publication that needs another record. Few ever do, so the channel is unbounded in name only: it never holds more
/// than is in flight.
enum FollowUp {
    /// The broker has rejected the record.
    Rejected(Box<Publication>, KafkaError),
    /// The dead letter is acknowledged, and its caller still has to get the fault.
    DeadLetterWritten(Box<Publication>),
}

/// Receiver of the producer's delivery reports.
struct ReplyDeliveries {
    follow_ups: UnboundedSender<FollowUp>,
    counts: Counts,
    flow: ProgressWatch,
    throttle: Throttle,
}

impl AtLeastOnce {
    pub(super) fn start(parts: Arc<Parts>) -> Result<Self, BrokerError> {
        let (follow_ups, receiver) = unbounded_channel();
        let (counts, flow, throttle) = (parts.counts.clone(), parts.flow.clone(), parts.throttle.clone());
        let context = |broker: BrokerContext| broker.with(ReplyDeliveries { follow_ups, counts, flow, throttle });
        let producer = parts.cluster.client("replies", &parts.limits.after(SETTINGS), context)?;
        let acknowledged = Self { state: Arc::new(ProducerState { producer, parts, runtime: Handle::current() }) };
        acknowledged.state.runtime.spawn(acknowledged.clone().settle(receiver));
        Ok(acknowledged)
    }

    pub(super) fn flush(&self, timeout: Duration) {
        if let Err(error) = self.state.producer.flush(timeout) {
            warn!(%error, "not every reply was acknowledged; their requests will be answered again");
        }
    }

    /// Sends the record of a publication whose turn has come. A record that librdkafka does not take is replaced or
    /// sent again, within the same turn.
    pub(super) fn send(&self, publication: Box<Publication>) {
        if let Some((publication, pause)) = self.attempt(publication) {
            self.send_later(publication, pause);
        }
    }

    fn send_later(&self, mut publication: Box<Publication>, mut pause: Duration) {
        let producer = self.clone();
        self.state.runtime.spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                match producer.attempt(publication) {
                    Some(again) => (publication, pause) = again,
                    None => return,
                }
            }
        });
    }

    /// Sends one record. Returns the publication if librdkafka has not taken the record, with the pause before the next
    /// attempt.
    fn attempt(&self, mut publication: Box<Publication>) -> Option<(Box<Publication>, Duration)> {
        loop {
            if publication.ending.ticket.is_revoked() {
                debug!(source = %publication.ending.request.source, "a late result is dropped; its partition has a new owner");
                return None;
            }
            if publication.is_done() {
                self.state.parts.counts.end(*publication);
                return None;
            }
            // What can be known of the destination beforehand saves a record that would be rejected.
            let (cause, error) = match self.state.parts.prospect(&publication, publication.kind) {
                Ok(Prospect::Good | Prospect::Doubtful) => {
                    publication.sent = Instant::now();
                    let error;
                    (error, publication) = self.hand_over(publication).err()?;
                    match error.rdkafka_error_code() {
                        Some(RDKafkaErrorCode::QueueFull) => return Some((publication, QUEUE_FULL_WAIT)),
                        code => (Cause::of(code), error),
                    }
                }
                Ok(Prospect::Unknown) => return Some((publication, KNOWN_AFTER)),
                Ok(Prospect::Away) => return Some((publication, AGAIN_AFTER)),
                Err((cause, code)) => (cause, KafkaError::MessageProduction(code)),
            };
            match self.refused(&mut publication, cause, &error) {
                Some(Duration::ZERO) => {}
                pause => return pause.map(|pause| (publication, pause)),
            }
        }
    }

    /// Hands a record to librdkafka. Once librdkafka has the last record of a publication, the next one in order may
    /// leave; a dead letter is followed by another record.
    fn hand_over(&self, mut publication: Box<Publication>) -> Result<(), (KafkaError, Box<Publication>)> {
        let Some(outgoing) = publication.record(publication.kind, &self.state.parts.dead_letters) else {
            return Err((KafkaError::MessageProduction(RDKafkaErrorCode::InvalidRecord), publication));
        };
        let place = publication.ending.place.take_if(|_| publication.kind == RecordKind::Reply);
        outgoing.send(publication, |record| {
            self.state.producer.send(record).map_err(|(error, record)| {
                let mut publication = record.delivery_opaque;
                publication.ending.place = publication.ending.place.take().or(place);
                (error, publication)
            })
        })
    }

    /// Handles the publications that need another record, as the producer's thread reports them.
    async fn settle(self, mut follow_ups: UnboundedReceiver<FollowUp>) {
        while let Some(follow_ups) = follow_ups.recv().await {
            match follow_ups {
                FollowUp::Rejected(mut publication, error) => {
                    let cause = Cause::of(error.rdkafka_error_code());
                    let pause = match cause {
                        // The record was in a batch that is too large as a whole, so it is sent once more by itself.
                        Cause::Size
                            if !publication.was_refused
                                && self.state.parts.seems_to_fit(&publication, publication.kind) =>
                        {
                            Some(AGAIN_AFTER)
                        }
                        _ => self.refused(&mut publication, cause, &error),
                    };
                    publication.was_refused = true;
                    if let Some(pause) = pause {
                        self.send_later(publication, pause);
                    }
                }
                FollowUp::DeadLetterWritten(mut publication) => {
                    publication.kind = RecordKind::Reply;
                    self.send(publication);
                }
            }
        }
    }

    /// Changes a publication whose record was rejected into what should go in its place. Returns the pause before the
    /// next attempt; None when the producer cannot go on.
    fn refused(&self, publication: &mut Publication, cause: Cause, error: &KafkaError) -> Option<Duration> {
        let state = &self.state;
        state.parts.counts.refused(error.rdkafka_error_code());
        state.parts.flow.failed(error);
        if let Some((fatal, why)) = state.producer.client().fatal_error() {
            error!(%fatal, why, "the producer of replies cannot go on");
            state.parts.failed.cancel();
            return None;
        }
        let is_changed = publication.refused(publication.kind, cause, error, &state.parts.allowed);
        Some(if is_changed { Duration::ZERO } else { AGAIN_AFTER })
    }
}

impl Deliveries for ReplyDeliveries {
    type Record = Box<Publication>;

    fn delivered(&self, result: Result<(), &KafkaError>, publication: Box<Publication>) {
        if let Err(error) = result {
            // The receiver is gone only after everything in flight has ended or was given up.
            let _ = self.follow_ups.send(FollowUp::Rejected(publication, error.clone()));
            return;
        }
        self.flow.passed();
        match publication.kind {
            RecordKind::DeadLetter => {
                let _ = self.follow_ups.send(FollowUp::DeadLetterWritten(publication));
            }
            RecordKind::Reply => self.counts.end(*publication),
        }
    }

    fn statistics(&self, statistics: &Statistics) {
        self.throttle.take(0, statistics);
    }
}
