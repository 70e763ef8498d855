//! Publishes what requests end in, and sees each one through until the broker has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::address::{Address, AllowedTopics};
use super::dead_letter::dead_letter_headers;
use super::delivery::{DeliveryContext, DeliveryMetrics, Destination, Job, Unsettled};
use super::record::reply_record;
use super::recourse::{Attempted, Recourse, recourse};
use crate::broker::{BrokerError, Cluster};
use crate::config::Kafka;
use crate::intake::Ticket;
use crate::message::{Code, Correlation, Fault, Outcome, Request, Stage};
use crate::telemetry::{Metrics, RouteMetrics};

/// How long a record that was not taken waits before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long a full producer queue is left to drain.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);

type JobRecord<'a> = BaseRecord<'a, [u8], [u8], Box<Job>>;

/// What a request ends in, on its way out.
pub struct Ending {
    /// The request.
    pub request: Arc<Request>,
    /// Its end.
    pub outcome: Outcome,
    /// Finished when the broker has the record.
    pub ticket: Ticket,
    /// The route's counters, when a route was chosen.
    pub metrics: Option<Arc<RouteMetrics>>,
}

/// Publishes what requests end in. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    producer: ThreadedProducer<DeliveryContext>,
    allowed: AllowedTopics,
    dead_letter_topic: String,
    group: String,
    metrics: Metrics,
    runtime: Handle,
    /// Pulled when the producer cannot go on, so that the process ends rather than stand still.
    failed: CancellationToken,
}

impl Publisher {
    /// Creates the producer. `failed` is cancelled if it cannot go on.
    ///
    /// # Errors
    /// When librdkafka refuses a property.
    pub fn start(
        config: &Kafka,
        cluster: &Cluster,
        allowed: AllowedTopics,
        metrics: &Metrics,
        failed: CancellationToken,
    ) -> Result<Self, BrokerError> {
        let (unsettled, receiver) = unbounded_channel();
        let context =
            DeliveryContext { broker: cluster.context("replies"), unsettled, metrics: DeliveryMetrics::new(metrics) };
        let producer = cluster.client("replies", SETTINGS, context)?;
        let shared = Arc::new(Shared {
            producer,
            allowed,
            dead_letter_topic: config.dead_letter_topic.clone(),
            group: config.group_id.clone(),
            metrics: metrics.clone(),
            runtime: Handle::current(),
            failed,
        });
        let publisher = Self { shared };
        tokio::spawn(publisher.clone().settle(receiver));
        Ok(publisher)
    }

    /// Where the reply to a request goes.
    ///
    /// # Errors
    /// When the request names a topic that is not allowed.
    pub fn address(&self, correlation: &Correlation) -> Result<Address, Fault> {
        self.shared.allowed.address(correlation)
    }

    /// Publishes an ending to where its caller wants it.
    pub async fn publish(&self, ending: Ending, correlation: Correlation, address: Address) {
        self.send(ending, correlation, Destination::Caller(address)).await;
    }

    /// Publishes a dead letter, and then the fault to the default topic.
    pub async fn dead_letter(&self, ending: Ending, correlation: Correlation, fault: Fault) {
        self.send(ending, correlation, Destination::DeadLetter { fault, whole: true, any_partition: false }).await;
    }

    /// Waits until everything that was handed over is acknowledged, this long at most. Blocks; not for the runtime's
    /// workers.
    pub fn flush(&self, timeout: Duration) {
        if let Err(error) = self.shared.producer.flush(timeout) {
            warn!(%error, "not every reply was acknowledged; their requests will be answered again");
        }
    }

    async fn send(&self, ending: Ending, correlation: Correlation, destination: Destination) {
        let mut job = Box::new(Job { ending, correlation, destination, sent: Instant::now() });
        loop {
            if job.ending.ticket.is_revoked() {
                debug!(source = %job.ending.request.source, "a late result is dropped; its partition has a new owner");
                return;
            }
            let Err((error, returned)) = self.hand_over(job) else { return };
            job = returned;
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                self.redirect(job, &error);
                return;
            }
            tokio::time::sleep(QUEUE_FULL_WAIT).await;
        }
    }

    /// Gives the record to librdkafka, which copies it.
    fn hand_over(&self, job: Box<Job>) -> Result<(), (KafkaError, Box<Job>)> {
        let shared = &self.shared;
        let request = job.ending.request.clone();
        let key = job.correlation.id.clone();
        let refused = |(error, record): (KafkaError, JobRecord<'_>)| (error, record.delivery_opaque);
        let address = match &job.destination {
            Destination::Caller(address) => address.clone(),
            Destination::Default | Destination::DeadLetter { .. } => shared.allowed.default_address(),
        };
        match job.destination.clone() {
            Destination::Caller(_) | Destination::Default => {
                let record = reply_record(&request, &job.correlation, &job.ending.outcome);
                let base = BaseRecord::with_opaque_to(&address.topic, job)
                    .key(&key[..])
                    .payload(&record.payload[..])
                    .headers(record.headers);
                shared.producer.send(BaseRecord { partition: address.partition, ..base }).map_err(refused)
            }
            Destination::DeadLetter { fault, whole, any_partition } => {
                let attempts = job.ending.outcome.served_by.attempts;
                let base = BaseRecord::with_opaque_to(&shared.dead_letter_topic, job).headers(dead_letter_headers(
                    &request,
                    &shared.group,
                    &fault,
                    attempts,
                ));
                let base = BaseRecord {
                    partition: (!any_partition).then_some(request.source.partition),
                    key: request.key.as_deref(),
                    payload: request.payload.as_deref().filter(|_| whole),
                    ..base
                };
                shared.producer.send(base).map_err(refused)
            }
        }
    }

    /// Takes up what the producer's thread reports.
    async fn settle(self, mut unsettled: UnboundedReceiver<Unsettled>) {
        while let Some(unsettled) = unsettled.recv().await {
            match unsettled {
                Unsettled::Failed(job, error) => self.redirect(job, &error),
                Unsettled::DeadLettered(job, fault) => {
                    let mut ending = job.ending;
                    ending.outcome.result = Err(fault);
                    self.spawn_send(ending, job.correlation, Destination::Default, Duration::ZERO);
                }
            }
        }
    }

    /// A record was not taken: sends what should go in its place.
    fn redirect(&self, job: Box<Job>, error: &KafkaError) {
        let shared = &self.shared;
        let code = error.rdkafka_error_code();
        shared.metrics.publish_failures.with_label_values(&[&reason(code)]).inc();
        if let Some((fatal, why)) = shared.producer.client().fatal_error() {
            error!(%fatal, why, "the producer of replies cannot go on");
            shared.failed.cancel();
            return;
        }
        let Job { mut ending, correlation, mut destination, .. } = *job;
        let mut pause = Duration::ZERO;
        match recourse(code, attempted(&destination, &shared.allowed)) {
            Recourse::Again => {
                debug!(source = %ending.request.source, %error, "a record was not taken; trying again");
                pause = AGAIN_AFTER;
            }
            Recourse::AnyPartition => match &mut destination {
                Destination::Caller(address) => address.partition = None,
                Destination::DeadLetter { any_partition, .. } => *any_partition = true,
                Destination::Default => {}
            },
            Recourse::TooLarge => ending.outcome.result = Err(too_large(&ending.outcome)),
            Recourse::DeadLetter => {
                let fault = unreachable_topic(&destination, error);
                warn!(source = %ending.request.source, %error, "a reply cannot be published; the request is a dead letter");
                destination = Destination::DeadLetter { fault, whole: true, any_partition: false };
            }
            Recourse::Stripped => {
                warn!(source = %ending.request.source, "a dead letter is too large and goes without its value");
                if let Destination::DeadLetter { whole, .. } = &mut destination {
                    *whole = false;
                }
            }
            Recourse::GiveUp => {
                error!(source = %ending.request.source, %error, "a dead letter cannot be published; its fault goes out alone");
                if let Destination::DeadLetter { fault, .. } = destination {
                    ending.outcome.result = Err(fault);
                }
                destination = Destination::Default;
            }
        }
        self.spawn_send(ending, correlation, destination, pause);
    }

    fn spawn_send(&self, ending: Ending, correlation: Correlation, destination: Destination, pause: Duration) {
        let publisher = self.clone();
        self.shared.runtime.spawn(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            publisher.send(ending, correlation, destination).await;
        });
    }
}

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

fn attempted(destination: &Destination, allowed: &AllowedTopics) -> Attempted {
    match destination {
        Destination::Caller(address) => Attempted::Caller {
            partition: address.partition.is_some(),
            default_topic: address.topic == allowed.default_address().topic,
        },
        Destination::Default => Attempted::Default,
        Destination::DeadLetter { whole, .. } => Attempted::DeadLetter { whole: *whole },
    }
}

fn too_large(outcome: &Outcome) -> Fault {
    match &outcome.result {
        Ok(reply) => Fault::permanent(
            Code::PayloadTooLarge,
            Stage::Publish,
            format!(
                "the model's answer of {} bytes is larger than the broker takes; ask for fewer rows, or raise \
                 message.max.bytes of the broker and of kafka.properties",
                reply.body.len()
            ),
        ),
        Err(fault) => Fault { message: "the fault is larger than the broker takes".to_owned(), ..fault.clone() },
    }
}

fn unreachable_topic(destination: &Destination, error: &KafkaError) -> Fault {
    let topic = match destination {
        Destination::Caller(address) => &address.topic,
        Destination::Default | Destination::DeadLetter { .. } => "",
    };
    Fault::permanent(
        Code::PermissionDenied,
        Stage::Publish,
        format!("the reply cannot be written to topic '{topic}': {error}"),
    )
}

fn reason(code: Option<RDKafkaErrorCode>) -> String {
    code.map_or_else(|| "other".to_owned(), |code| format!("{code:?}"))
}
