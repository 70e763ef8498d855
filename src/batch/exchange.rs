//! Exchange with the router: requests go to its topic, and replies come back over one partition of the replies topic.

use std::convert::identity;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::debug;
use uuid::Uuid;

use super::answer::ReceivedReply;
use super::error::BatchError;
use crate::broker::{BrokerContext, BrokerError, Cluster, Deliveries, read_foreign};
use crate::config::Kafka;
use crate::message::{header, since_1970};

/// Longest time in which the broker must say where the replies end.
const START: Duration = Duration::from_secs(30);

/// Time of one question for that.
const QUESTION: Duration = Duration::from_secs(5);

/// Longest time that the last requests may take to leave; nobody waits for their answers.
const FLUSH: Duration = Duration::from_millis(500);

/// Media type of the bodies.
const CONTENT_TYPE: &str = "application/json";

/// Bytes of the largest request; whether the broker takes it is for the broker to say.
const LARGEST: &str = "1000000000";

/// Way of requests to the router, and of replies back.
pub(super) trait Link {
    /// Returns the correlation id of a request.
    fn correlation(&self, request: u64) -> String;

    /// Hands a request over for delivery in the background. Never blocks.
    ///
    /// # Errors
    /// When nothing can be sent at all.
    fn send(&self, request: u64, body: &[u8], timeout: Duration) -> Result<Sent, KafkaError>;

    /// Waits for the next reply of this run; None when the time is over, or something else came.
    fn receive(&self, wait: Duration) -> Option<ReceivedReply>;

    /// Returns a request that the broker did not take, with the reason.
    fn undelivered(&self) -> Option<(u64, KafkaError)>;

    /// Returns whether the broker cannot be reached.
    fn is_broker_away(&self) -> bool;
}

/// Sends requests and receives their replies over Kafka.
pub(super) struct Exchange {
    producer: ThreadedProducer<BrokerContext<Undelivered>>,
    consumer: BaseConsumer<BrokerContext>,
    undelivered: Receiver<(u64, KafkaError)>,
    /// The cluster, dropped after the clients.
    cluster: Arc<Cluster>,
    requests_topic: String,
    headers: OwnedHeaders,
    /// Beginning of the correlation ids of this run.
    run: String,
}

/// Receives the reports of requests that the broker did not take.
struct Undelivered(Sender<(u64, KafkaError)>);

/// Tells what became of the wish to send a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The request is on its way.
    Yes,
    /// The broker takes requests more slowly than they come; the request is to be sent again.
    Later,
}

impl Exchange {
    /// Connects, and finds the end of the replies: no reply to a later request can lie before it. Blocks.
    ///
    /// # Errors
    /// When no broker answers, or a topic is missing.
    pub(super) fn open(
        cluster: Arc<Cluster>,
        kafka: &Kafka,
        endpoint: Option<&str>,
        more: &[(String, String)],
        timeout: Duration,
    ) -> Result<Self, BatchError> {
        for (topic, option) in [(&kafka.requests_topic, "--requests-topic"), (&kafka.replies_topic, "--replies-topic")]
        {
            if cluster.partitions(topic)?.is_none() {
                return Err(BatchError::Unavailable(format!(
                    "topic '{topic}' does not exist at {}; does the router run there? {option} names another",
                    cluster.bootstrap_servers()
                )));
            }
        }
        let partitions = cluster.partitions(&kafka.replies_topic)?.unwrap_or(1);
        // Runs spread over the partitions.
        let partition = fastrand::i32(0..partitions);
        // The embedded broker does not wake a waiting fetch when a record comes.
        let wait = if cluster.is_embedded() { "5" } else { "100" };
        let settings = [
            // The Kafka library insists on a group; this group is never joined, and nothing is committed to it.
            ("group.id", "signalbox-batch"),
            ("enable.auto.commit", "false"),
            // Where the partition has lost the next offset, no reply that is left may be skipped.
            ("auto.offset.reset", "earliest"),
            ("isolation.level", "read_committed"),
            ("fetch.wait.max.ms", wait),
            ("fetch.queue.backoff.ms", "5"),
            ("queued.max.messages.kbytes", "16384"),
        ];
        let consumer: BaseConsumer<BrokerContext> = cluster.client("batch-consumer", &settings, identity)?;
        assign(&consumer, &cluster, &kafka.replies_topic, partition)?;

        let (failures, undelivered) = channel();
        let timeout = timeout.as_millis().max(1_000).to_string();
        let settings = [
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("linger.ms", "2"),
            ("message.timeout.ms", &timeout),
            ("message.max.bytes", LARGEST),
            ("queue.buffering.max.kbytes", "65536"),
        ];
        let context = |broker: BrokerContext| broker.with(Undelivered(failures));
        let producer = cluster.client("batch-producer", &settings, context)?;

        let mut headers = OwnedHeaders::new_with_capacity(6 + more.len())
            .insert(Header { key: header::REPLY_TOPIC, value: Some(&kafka.replies_topic) })
            .insert(Header { key: header::REPLY_PARTITION, value: Some(&partition.to_be_bytes()) });
        if let Some(endpoint) = endpoint {
            headers = headers.insert(Header { key: header::ENDPOINT, value: Some(endpoint) });
        }
        for (key, value) in more {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        Ok(Self {
            producer,
            consumer,
            undelivered,
            cluster,
            requests_topic: kafka.requests_topic.clone(),
            headers,
            run: format!("batch-{}-", Uuid::now_v7().simple()),
        })
    }

    fn read(&self, record: &BorrowedMessage<'_>) -> Option<ReceivedReply> {
        let (mut request, mut status, mut retry_after) = (None, None, None);
        for header in record.headers()?.iter() {
            let text = || std::str::from_utf8(header.value?).ok();
            match header.key {
                header::CORRELATION_ID => request = text().and_then(|id| id.strip_prefix(&self.run)?.parse().ok()),
                header::STATUS => status = text().and_then(|status| status.parse().ok()),
                header::RETRY_AFTER => retry_after = text().and_then(|seconds| seconds.parse().ok()),
                _ => {}
            }
        }
        Some(ReceivedReply {
            // A reply of another run, or another client, is none of ours.
            request: request?,
            status: status?,
            retry_after: retry_after.map(Duration::from_secs),
            body: record.payload().unwrap_or_default().to_vec().into(),
        })
    }
}

impl Link for Exchange {
    fn correlation(&self, request: u64) -> String {
        format!("{}{request}", self.run)
    }

    fn send(&self, request: u64, body: &[u8], timeout: Duration) -> Result<Sent, KafkaError> {
        let deadline = (since_1970() + timeout).as_millis().to_string();
        let headers = self
            .headers
            .clone()
            .insert(Header { key: header::CORRELATION_ID, value: Some(&self.correlation(request)) })
            .insert(Header { key: header::CONTENT_TYPE, value: Some(CONTENT_TYPE) })
            .insert(Header { key: header::DEADLINE, value: Some(&deadline) });
        // Without a key, requests spread over the partitions.
        let record: BaseRecord<'_, [u8], [u8], Box<u64>> =
            BaseRecord::with_opaque_to(&self.requests_topic, Box::new(request)).headers(headers).payload(body);
        match self.producer.send(record) {
            Ok(()) => Ok(Sent::Yes),
            Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => Ok(Sent::Later),
            Err((error, _)) => Err(error),
        }
    }

    fn receive(&self, wait: Duration) -> Option<ReceivedReply> {
        match self.consumer.poll(wait)? {
            Ok(record) => {
                self.cluster.health().answered();
                read_foreign(|| self.read(&record)).flatten()
            }
            Err(error) => {
                debug!(%error, "replies cannot be read for now");
                None
            }
        }
    }

    fn undelivered(&self) -> Option<(u64, KafkaError)> {
        self.undelivered.try_recv().ok()
    }

    fn is_broker_away(&self) -> bool {
        self.cluster.health().is_unreachable()
    }
}

/// Assigns the partition from its end, as soon as the broker says where that is.
fn assign(
    consumer: &BaseConsumer<BrokerContext>,
    cluster: &Cluster,
    topic: &str,
    partition: i32,
) -> Result<(), BatchError> {
    let begin = Instant::now();
    let assigned = loop {
        match consumer.fetch_watermarks(topic, partition, QUESTION) {
            Ok((_, end)) => {
                let mut assignment = TopicPartitionList::with_capacity(1);
                break assignment
                    .add_partition_offset(topic, partition, Offset::Offset(end))
                    .and_then(|()| consumer.assign(&assignment));
            }
            Err(error) if begin.elapsed() >= START => break Err(error),
            Err(error) => debug!(%error, "the end of the replies is asked for again"),
        }
    };
    assigned.map_err(|source| {
        let servers = cluster.bootstrap_servers().to_owned();
        BatchError::Broker(BrokerError::Unreachable { servers, tried: begin.elapsed(), source })
    })
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // A request that is not answered any more need not be delivered, so a late broker is not waited for.
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue());
        let _ = self.producer.flush(FLUSH);
    }
}

impl Deliveries for Undelivered {
    type Record = Box<u64>;

    fn delivered(&self, result: Result<(), &KafkaError>, request: Box<u64>) {
        if let Err(error) = result {
            // When nobody listens any more, the run has ended.
            let _ = self.0.send((*request, error.clone()));
        }
    }
}
