//! Consumer of requests, and the thread that is its own.

use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::Handler;
use super::budget::Budget;
use super::committer::OffsetCommitter;
use super::context::{IntakeContext, IntakeState};
use super::error::IntakeError;
use super::error_streak::ErrorStreak;
use super::handoff::Handoff;
use super::offsets::Offsets;
use super::partition_start::PartitionStart;
use super::partitions::Partitions;
use super::poller::Poller;
use super::pressure::BackPressure;
use super::topics::Topics;
use crate::broker::{BrokerError, Cluster, TOPIC_IDS};
use crate::config::{Delivery, Kafka};
use crate::telemetry::{Metrics, Readiness};

/// Running intake.
pub struct Intake {
    stop: Arc<OnceLock<Duration>>,
    offsets: Offsets,
    partitions: Partitions,
    thread: Option<JoinHandle<Result<(), IntakeError>>>,
}

impl Intake {
    /// Joins the consumer group and starts to hand requests over. `ended` runs on the polling thread when the intake
    /// stops by itself, which it does only when it cannot go on.
    ///
    /// # Errors
    /// When the consumer cannot be created.
    pub fn start(
        config: &Kafka,
        cluster: &Cluster,
        handler: Arc<dyn Handler>,
        metrics: &Metrics,
        readiness: &Readiness,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Self, BrokerError> {
        let readiness = readiness.part("requests");
        readiness.waits_for(format!("partitions of '{}' to be assigned", config.requests_topic));
        let topics = Topics::of(config, &cluster.topics()?);
        let (completions, receiver) = channel();
        let bytes = usize::try_from(config.max_in_flight_bytes.as_u64()).unwrap_or(usize::MAX);
        let context = |broker| IntakeContext {
            broker,
            topics: topics.clone(),
            drain: config.drain_timeout,
            commits: config.delivery() == Delivery::AtLeastOnce,
            state: Mutex::new(IntakeState::new(Budget::new(config.max_in_flight, bytes))),
            completions: Mutex::new(receiver),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
        };
        let consumer: BaseConsumer<IntakeContext> = cluster.client("intake", &settings(config, cluster), context)?;
        let subscribed = consumer.subscribe(&[topics.requests()]);
        subscribed.map_err(|source| BrokerError::Topic { topic: topics.requests().to_string(), source })?;
        let consumer = Arc::new(consumer);
        let (offsets, partitions) = (Offsets::new(&consumer), Partitions::new(&consumer));
        let committer = OffsetCommitter::start(&consumer)?;

        let stop = Arc::<OnceLock<Duration>>::default();
        let poller = Poller {
            topics: topics.clone(),
            limits: config.limits.clone(),
            consumer: consumer.clone(),
            handoff: Handoff { handler, completions, embedded: cluster.is_embedded() },
            stop: stop.clone(),
            pressure: BackPressure::default(),
            start: PartitionStart::new(consumer, topics),
            committer,
            commit_interval: config.commit_interval,
            metrics: metrics.clone(),
            readiness,
            errors: ErrorStreak::default(),
            looked_at: 0,
        };
        let run = move || {
            let result = poller.run();
            ended();
            result
        };
        let thread =
            thread::Builder::new().name("intake".to_owned()).spawn(run).map_err(|_| BrokerError::Interrupted)?;
        Ok(Self { stop, offsets, partitions, thread: Some(thread) })
    }

    /// Returns the offsets of the requests under way, for transactions.
    pub fn offsets(&self) -> Offsets {
        self.offsets.clone()
    }

    /// Returns the view of the partitions, for operators.
    pub fn partitions(&self) -> Partitions {
        self.partitions.clone()
    }

    /// Stops reading, waits for the requests under way, this long at most, commits, and leaves the group. Blocks; not
    /// for the runtime's workers.
    ///
    /// # Errors
    /// When the intake had ended by itself before.
    pub fn stop(mut self, patience: Duration) -> Result<(), IntakeError> {
        self.stop.get_or_init(|| patience);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(IntakeError::Thread("it panicked".to_owned())),
            None => Ok(()),
        }
    }
}

/// Lists the consumer's settings; `kafka.properties` win over them.
fn settings<'a>(config: &'a Kafka, cluster: &Cluster) -> Vec<(&'static str, &'a str)> {
    let mut settings = vec![
        TOPIC_IDS,
        ("group.id", config.group_id.as_str()),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        // A commit that is part of an open transaction is waited for.
        ("isolation.level", "read_committed"),
        // An empty queue is refilled at once, not after a second.
        ("fetch.queue.backoff.ms", "10"),
        // Kilobytes of a backlog that are in memory, and a fetch on top of them, however long the backlog is; more is
        // not faster.
        ("queued.max.messages.kbytes", "2048"),
        ("fetch.max.bytes", "4194304"),
        // The bytes that zstd unpacks to count as well: a record that does not fit would stop its partition for ever.
        ("receive.message.max.bytes", "2147483647"),
        // Partitions that are added are seen within this time.
        ("topic.metadata.refresh.interval.ms", "5000"),
    ];
    // The embedded broker's fetches are not woken by a produce, and its classic groups take seconds to form.
    let embedded = cluster.is_embedded();
    settings.push(("fetch.wait.max.ms", if embedded { "5" } else { "100" }));
    if embedded {
        settings.push(("group.protocol", "consumer"));
    }
    // With Kafka 4's own protocol the broker decides about the rest.
    let brokers_protocol = config.properties.get("group.protocol").is_some_and(|protocol| protocol == "consumer");
    if !embedded && !brokers_protocol {
        settings.push(("partition.assignment.strategy", "cooperative-sticky"));
        // A crashed instance's partitions move after this long.
        settings.push(("session.timeout.ms", "10000"));
    }
    settings
}
