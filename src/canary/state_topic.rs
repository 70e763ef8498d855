//! The state topic: a compacted topic of canaries' states, which each instance reads whole and writes to.

use std::convert::identity;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, warn};

use super::policy::CanaryState;
use crate::broker::{BrokerContext, BrokerError, Cluster, Deliveries};
use crate::config::Kafka;

/// Longest wait of one poll for records; a state that is to be written waits that long at most.
const POLL: Duration = Duration::from_millis(20);

/// Pause between two attempts to open the topic; until one succeeds, no canary takes a share.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// Tells the watcher what was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StateEvent {
    /// An instance has written the state of the canary with this key.
    Record(String, CanaryState),
    /// Everything that was in the topic at the start has been read.
    CaughtUp,
}

/// Owns the running thread, which stops, a moment later, when this is dropped.
#[derive(Debug)]
pub(super) struct StateTopic {
    writes: Sender<(String, CanaryState)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Reads and writes the topic on the thread.
struct StateReader {
    cluster: Arc<Cluster>,
    config: Kafka,
    writes: Receiver<(String, CanaryState)>,
    events: UnboundedSender<StateEvent>,
    stop: Arc<AtomicBool>,
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
    /// Starts the thread, which creates the topic if it may, and reads it from its beginning.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn open(
        cluster: &Arc<Cluster>,
        config: &Kafka,
        events: UnboundedSender<StateEvent>,
    ) -> Result<Self, std::io::Error> {
        let (sender, writes) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let reader = StateReader {
            cluster: Arc::clone(cluster),
            config: config.clone(),
            writes,
            events,
            stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new().name("canaries".to_owned()).spawn(move || reader.run())?;
        Ok(Self { writes: sender, stop, thread: Some(thread) })
    }

    /// Writes the state of a canary. The state holds once it has been read back.
    pub(super) fn write(&self, key: &str, state: &CanaryState) {
        // The thread ends only when this is closed or dropped.
        let _ = self.writes.send((key.to_owned(), state.clone()));
    }

    /// Stops the thread and waits until its clients are gone.
    pub(super) async fn close(mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked is gone as well.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for StateTopic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl StateReader {
    fn run(self) {
        let Some(mut open) = self.open_with_retries() else { return };
        while !self.is_stopped() {
            match open.consumer.poll(POLL) {
                Some(Ok(record)) => self.forward(&record),
                Some(Err(KafkaError::PartitionEOF(partition))) => self.mark_read(&mut open, partition),
                Some(Err(error)) => debug!(%error, "the state topic of canaries cannot be read for now"),
                None => {}
            }
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
                match self.open_with_retries() {
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
        for (key, state) in self.writes.try_iter() {
            open.write(&self.config.state_topic, &key, &state);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn open_with_retries(&self) -> Option<OpenClients> {
        let mut is_logged = false;
        while !self.is_stopped() {
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
            ("group.id", group.as_str()),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("enable.partition.eof", "true"),
            ("fetch.wait.max.ms", wait),
        ];
        let consumer: BaseConsumer<BrokerContext> =
            self.cluster.client_with_topic_ids("state-consumer", &settings, identity)?;
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
            (Some(key), Some(state)) => {
                let _ = self.events.send(StateEvent::Record(key.to_owned(), state));
            }
            // The record is of a later version, or somebody else's.
            _ => debug!(offset = record.offset(), "a record of the state topic of canaries cannot be read"),
        }
    }

    fn mark_read(&self, open: &mut OpenClients, partition: i32) {
        let before = open.unread.len();
        open.unread.retain(|unread| *unread != partition);
        if before > 0 && open.unread.is_empty() {
            let _ = self.events.send(StateEvent::CaughtUp);
        }
    }
}

impl OpenClients {
    fn write(&self, topic: &str, key: &str, state: &CanaryState) {
        let Ok(payload) = serde_json::to_vec(state) else { return };
        if let Err((error, _)) = self.producer.send(BaseRecord::to(topic).key(key).payload(&payload)) {
            warn!(%error, topic, "the state of a canary cannot be written");
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
