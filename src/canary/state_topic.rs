//! The state topic: a compacted topic of canaries' states, which each instance reads whole and writes to.

use std::convert::identity;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::watcher::CanaryWatcher;
use crate::broker::{BrokerContext, BrokerError, Cluster, Deliveries, TOPIC_IDS};
use crate::config::Kafka;

/// Longest wait of one poll for records; a state that is to be written waits that long at most.
const POLL: Duration = Duration::from_millis(20);

/// Pause between two attempts to open the topic; until one succeeds, no canary takes a share.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// Reads the topic for the watcher, and writes what the watcher decides, on a thread.
pub(super) struct StateTopic {
    pub(super) cluster: Arc<Cluster>,
    pub(super) config: Kafka,
    pub(super) watcher: Arc<Mutex<CanaryWatcher>>,
}

/// Holds the Kafka clients, once the topic exists.
struct OpenClients {
    consumer: BaseConsumer<BrokerContext>,
    producer: BaseProducer<BrokerContext<StateWriter>>,
    /// The partitions whose end has not been reached yet.
    unread: Vec<i32>,
}

/// Receives delivery reports, and logs failures. Nothing is repeated here: the watcher writes a state again that has
/// not come back.
struct StateWriter;

impl StateTopic {
    /// Creates the topic if that is allowed, and reads it from its beginning, until the thread is told to stop.
    pub(super) fn run(&self, stop: &CancellationToken) {
        let Some(mut open) = self.open_with_retries(stop) else { return };
        while !stop.is_cancelled() {
            match open.consumer.poll(POLL) {
                Some(Ok(record)) => self.forward(&record),
                Some(Err(KafkaError::PartitionEOF(partition))) => self.mark_read(&mut open, partition),
                Some(Err(error)) => debug!(%error, "the state topic of canaries cannot be read for now"),
                None => {}
            }
            self.watcher.lock().evaluate();
            // Writes wait for one poll at most, and delivery reports are served in the same turn.
            self.produce_writes(&open);
            open.producer.poll(Duration::ZERO);
            // A topic of a new id has none of the states that were read, and offsets of its own, so both clients begin
            // again.
            if open.consumer.context().topic_ids().is_any_anew() {
                warn!(
                    topic = self.config.state_topic,
                    "the state topic of canaries was deleted and created again; it is read from its beginning"
                );
                match self.open_with_retries(stop) {
                    Some(reopened) => open = reopened,
                    None => return,
                }
            }
        }
        // The last decisions are written before the end: an operator may have been told of them already.
        self.produce_writes(&open);
        let _ = open.producer.flush(Duration::from_secs(2));
    }

    fn produce_writes(&self, open: &OpenClients) {
        let topic = &self.config.state_topic;
        let writes = self.watcher.lock().take_writes();
        for (key, state) in writes {
            let Ok(payload) = serde_json::to_vec(&state) else { continue };
            if let Err((error, _)) = open.producer.send(BaseRecord::to(topic).key(&key).payload(&payload)) {
                warn!(%error, topic, "the state of a canary cannot be written");
            }
        }
    }

    fn open_with_retries(&self, stop: &CancellationToken) -> Option<OpenClients> {
        let mut is_logged = false;
        while !stop.is_cancelled() {
            match self.open() {
                Ok(open) => return Some(open),
                Err(error) if is_logged => debug!(%error, "the state topic of canaries cannot be opened yet"),
                Err(error) => {
                    let topic = &self.config.state_topic;
                    warn!(%error, topic, "the state topic cannot be opened; until it can, no canary takes a share");
                    is_logged = true;
                }
            }
            thread::sleep(REOPEN_PAUSE);
        }
        None
    }

    fn open(&self) -> Result<OpenClients, BrokerError> {
        self.cluster.ensure_state_topic(&self.config)?;
        let topic = &self.config.state_topic;
        let count = self.cluster.partitions(topic)?.unwrap_or(1);
        // The Kafka library insists on a group; this group is never joined, and nothing is committed to it.
        let group = format!("{}-state", self.config.group_id);
        // The embedded broker does not wake a waiting fetch when a record comes.
        let wait = if self.cluster.is_embedded() { "5" } else { "500" };
        let settings = [
            TOPIC_IDS,
            ("group.id", group.as_str()),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("enable.partition.eof", "true"),
            ("fetch.wait.max.ms", wait),
        ];
        let consumer: BaseConsumer<BrokerContext> = self.cluster.client("state-consumer", &settings, identity)?;
        let settings =
            [("acks", "all"), ("enable.idempotence", "true"), ("message.timeout.ms", "10000"), ("linger.ms", "0")];
        let producer = self.cluster.client("state-producer", &settings, |broker| broker.with(StateWriter))?;
        let mut assignment = TopicPartitionList::with_capacity(1);
        let of_topic = |source| BrokerError::Topic { topic: topic.clone(), source };
        for partition in 0..count {
            assignment.add_partition_offset(topic, partition, Offset::Beginning).map_err(of_topic)?;
        }
        consumer.assign(&assignment).map_err(of_topic)?;
        Ok(OpenClients { consumer, producer, unread: (0..count).collect() })
    }

    fn forward(&self, record: &BorrowedMessage<'_>) {
        self.cluster.health().answered();
        let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
        let state = record.payload().and_then(|payload| serde_json::from_slice(payload).ok());
        match (key, state) {
            (Some(key), Some(state)) => self.watcher.lock().read(key.to_owned(), state),
            // The record is of a later version, or somebody else's.
            _ => debug!(offset = record.offset(), "a record of the state topic of canaries cannot be read"),
        }
    }

    fn mark_read(&self, open: &mut OpenClients, partition: i32) {
        let before = open.unread.len();
        open.unread.retain(|unread| *unread != partition);
        if before > 0 && open.unread.is_empty() {
            self.watcher.lock().catch_up();
        }
    }
}

impl Deliveries for StateWriter {
    type Record = ();

    fn delivered(&self, result: Result<(), &KafkaError>, (): ()) {
        if let Err(error) = result {
            debug!(%error, "the state of a canary was not written");
        }
    }
}
