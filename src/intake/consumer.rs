//! The polling thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use tracing::{error, info, warn};

use super::budget::Budget;
use super::context::{IntakeContext, State};
use super::lanes::MAX_WINDOW;
use super::pressure::{Pressure, Step};
use super::record::request_from;
use super::ticket::{Completion, Ticket};
use super::{Handler, Refusal};
use crate::broker::{BrokerError, Cluster};
use crate::config::Kafka;
use crate::telemetry::{Metrics, Part, Readiness};

/// How long one poll waits for a record. Ends of requests are taken in between polls.
const POLL: Duration = Duration::from_millis(20);
/// How often gauges are brought up to date.
const OBSERVE: Duration = Duration::from_secs(1);

/// The running intake.
pub struct Intake {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), IntakeError>>>,
}

/// Why the intake ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The consumer cannot go on.
    #[error("the consumer of '{topic}' cannot go on: {source}")]
    Fatal {
        /// The requests topic.
        topic: Arc<str>,
        /// librdkafka's words.
        source: KafkaError,
    },
    /// The polling thread could not be started, or it panicked.
    #[error("the polling thread has failed: {0}")]
    Thread(String),
}

/// What the polling thread works with.
struct Poller {
    topic: Arc<str>,
    embedded: bool,
    consumer: BaseConsumer<IntakeContext>,
    handler: Arc<dyn Handler>,
    completions: Sender<Completion>,
    stop: Arc<AtomicBool>,
    pressure: Pressure,
    commit_interval: Duration,
    drain_timeout: Duration,
    metrics: Metrics,
    readiness: Part,
    /// Polling errors since the last record, so that each streak is logged once.
    errors: u64,
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
        let readiness = readiness.part("intake");
        readiness.waits_for(format!("partitions of '{}' to be assigned", config.requests_topic));
        let topic: Arc<str> = Arc::from(config.requests_topic.as_str());
        let budget = Budget::new(
            config.max_in_flight,
            usize::try_from(config.max_in_flight_bytes.as_u64()).unwrap_or(usize::MAX),
        );
        let (completions, receiver) = channel();
        let context = IntakeContext::new(
            cluster.context("intake"),
            topic.clone(),
            config.drain_timeout,
            State::new(budget, receiver),
            metrics.clone(),
            readiness.clone(),
        );
        let consumer: BaseConsumer<IntakeContext> = cluster.client("intake", &settings(config, cluster), context)?;
        consumer.subscribe(&[&topic]).map_err(|source| BrokerError::Topic { topic: topic.to_string(), source })?;

        let stop = Arc::new(AtomicBool::new(false));
        let poller = Poller {
            topic,
            embedded: cluster.is_embedded(),
            consumer,
            handler,
            completions,
            stop: stop.clone(),
            pressure: Pressure::default(),
            commit_interval: config.commit_interval,
            drain_timeout: config.drain_timeout,
            metrics: metrics.clone(),
            readiness,
            errors: 0,
        };
        let run = move || {
            let result = poller.run();
            ended();
            result
        };
        let thread =
            thread::Builder::new().name("intake".to_owned()).spawn(run).map_err(|_| BrokerError::Interrupted)?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops reading, waits for the requests under way as long as `kafka.drain_timeout`, commits, and leaves the group.
    /// Blocks; not for the runtime's workers.
    ///
    /// # Errors
    /// When the intake had ended by itself before.
    pub fn stop(mut self) -> Result<(), IntakeError> {
        self.stop.store(true, Ordering::Release);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(IntakeError::Thread("it panicked".to_owned())),
            None => Ok(()),
        }
    }
}

/// The consumer's settings; `kafka.properties` win over them.
fn settings<'a>(config: &'a Kafka, cluster: &Cluster) -> Vec<(&'static str, &'a str)> {
    let mut settings = vec![
        ("group.id", config.group_id.as_str()),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        // A crashed instance's partitions move after this long.
        ("session.timeout.ms", "10000"),
        // An empty queue is refilled at once, not after a second.
        ("fetch.queue.backoff.ms", "10"),
        ("queued.max.messages.kbytes", "16384"),
        ("statistics.interval.ms", "5000"),
    ];
    if cluster.is_embedded() {
        // Its fetches are not woken by a produce, and its classic groups take seconds to form.
        settings.extend([("fetch.wait.max.ms", "5"), ("group.protocol", "consumer")]);
        settings.retain(|(key, _)| *key != "session.timeout.ms");
    } else {
        settings.extend([("fetch.wait.max.ms", "100"), ("partition.assignment.strategy", "cooperative-sticky")]);
    }
    settings
}

impl Poller {
    fn run(mut self) -> Result<(), IntakeError> {
        info!(topic = %self.topic, "reading requests");
        let (mut committed, mut observed) = (Instant::now(), Instant::now());
        while !self.stop.load(Ordering::Acquire) {
            self.read()?;
            let now = Instant::now();
            if now.duration_since(committed) >= self.commit_interval {
                committed = now;
                self.commit();
            }
            if now.duration_since(observed) >= OBSERVE {
                observed = now;
                self.observe(now);
                self.hold_wide_lanes();
            }
        }
        self.drain();
        Ok(())
    }

    /// One step: takes in the ends of requests, then reads a record if there is room for it.
    fn read(&mut self) -> Result<(), IntakeError> {
        let step = {
            let mut state = self.consumer.context().state();
            state.settle();
            // On the embedded broker what is not read is lost, so there everything is read, and refused if need be.
            let full = state.budget.is_full() && !self.embedded;
            self.pressure.step(full, state.budget.is_relieved(), Instant::now())
        };
        match step {
            Step::Wait => {
                self.consumer.context().state().settle_within(POLL);
                return Ok(());
            }
            Step::Pause => self.pause_all(true),
            Step::Resume => self.pause_all(false),
            Step::Read | Step::Idle => {}
        }
        if std::mem::take(&mut self.consumer.context().state().has_new_lanes) {
            self.set_paused(self.pressure.is_paused());
        }
        match self.consumer.poll(POLL) {
            None => Ok(()),
            Some(Ok(message)) => {
                self.dispatch(&message);
                self.errors = 0;
                Ok(())
            }
            Some(Err(error)) => self.survive(error),
        }
    }

    fn dispatch(&self, message: &BorrowedMessage<'_>) {
        let context = self.consumer.context();
        context.broker().health().answered();
        let now = Instant::now();
        let (request, readable) = request_from(message, &self.topic);
        let bytes = request.size();
        let (ticket, full) = {
            let mut state = context.state();
            let full = state.budget.is_full();
            let Some(lane) = state.lanes.get_mut(message.partition()) else { return };
            if !lane.window.begin(message.offset(), now) {
                return;
            }
            let assignment = lane.assignment.clone();
            state.budget.take(bytes);
            (Ticket::new(assignment, message.offset(), bytes, now, self.completions.clone()), full)
        };
        if !readable {
            self.handler.refuse(request, ticket, Refusal::UnreadableHeaders);
        } else if full && self.embedded {
            self.handler.refuse(request, ticket, Refusal::NoRoom);
        } else {
            self.handler.accept(request, ticket);
        }
    }

    /// Most errors pass; the streak is logged once.
    fn survive(&mut self, error: KafkaError) -> Result<(), IntakeError> {
        if let KafkaError::MessageConsumptionFatal(_) = error {
            error!(%error, "the consumer cannot go on");
            self.readiness.waits_for(format!("a restart: {error}"));
            return Err(IntakeError::Fatal { topic: self.topic.clone(), source: error });
        }
        let code = error.rdkafka_error_code();
        if code.is_some_and(crate::broker::is_connection_trouble) {
            return Ok(());
        }
        self.errors += 1;
        if self.errors == 1 {
            warn!(topic = %self.topic, %error, advice = advice(code), "requests cannot be read for now");
        }
        Ok(())
    }

    fn commit(&self) {
        let Some(list) = self.consumer.context().take_commits(None) else { return };
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            warn!(%error, "offsets could not be committed; trying again");
            let mut state = self.consumer.context().state();
            list.elements().iter().for_each(|element| state.lanes.commit_failed(element.partition()));
        }
    }

    fn observe(&self, now: Instant) {
        let context = self.consumer.context();
        let state = context.state();
        self.metrics.in_flight_requests.set(gauge(state.budget.requests()));
        self.metrics.in_flight_bytes.set(gauge(state.budget.bytes()));
        self.metrics.intake_paused.set(i64::from(self.pressure.is_paused()));
        let age = state.lanes.oldest().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.metrics.oldest_in_flight.set(age.as_secs_f64());
        drop(state);
        match context.broker().health().is_unreachable() {
            true => self.readiness.waits_for("the broker, which cannot be reached"),
            false => self.readiness_of_assignment(),
        }
    }

    fn readiness_of_assignment(&self) {
        // Before the first assignment the part says so itself; afterwards an instance may well own nothing.
        if !self.consumer.context().state().lanes.partitions().is_empty() {
            self.readiness.ready();
        }
    }

    /// Pauses a lane whose window has grown too wide behind one slow request, and resumes it when it has narrowed.
    fn hold_wide_lanes(&self) {
        let (mut hold, mut release) = (TopicPartitionList::new(), TopicPartitionList::new());
        for (partition, lane) in self.consumer.context().state().lanes.iter_mut() {
            let wide = lane.window.width() >= if lane.held { MAX_WINDOW / 2 } else { MAX_WINDOW };
            if wide != lane.held {
                lane.held = wide;
                let list = if wide { &mut hold } else { &mut release };
                list.add_partition(&self.topic, partition);
                info!(partition, held = wide, "a partition waits for its oldest request, or goes on");
            }
        }
        let results = [self.consumer.pause(&hold), self.consumer.resume(&release)];
        for error in results.into_iter().filter_map(Result::err) {
            warn!(%error, "a partition could not be held or released");
        }
    }

    fn pause_all(&self, pause: bool) {
        if self.set_paused(pause) {
            info!("{}", if pause { "partitions are paused" } else { "partitions are read again" });
        }
    }

    /// Pauses or resumes every partition but those that wait for their oldest request. True when that went well.
    fn set_paused(&self, pause: bool) -> bool {
        let mut list = TopicPartitionList::new();
        for (partition, lane) in self.consumer.context().state().lanes.iter() {
            if !lane.held {
                list.add_partition(&self.topic, partition);
            }
        }
        let result = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = &result {
            warn!(%error, "partitions could not be paused or resumed");
        }
        self.metrics.intake_paused.set(i64::from(pause));
        result.is_ok()
    }

    /// Stops reading, goes on polling while requests end, commits, and leaves.
    fn drain(self) {
        self.readiness.waits_for("nothing any more: it is shutting down");
        self.pause_all(true);
        let partitions = self.consumer.context().state().lanes.partitions();
        let until = Instant::now() + self.drain_timeout;
        let mut left = self.consumer.context().state().lanes.in_flight(&partitions);
        info!(in_flight = left, "no more requests are read; those under way are waited for");
        while left > 0 && Instant::now() < until {
            // A record that was fetched before the pause is dropped here: nothing commits past it, so it is read again.
            drop(self.consumer.poll(Duration::ZERO));
            let mut state = self.consumer.context().state();
            state.settle_within(POLL);
            left = state.lanes.in_flight(&partitions);
        }
        if left > 0 {
            warn!(in_flight = left, "not all requests have ended in time; they will be read again");
        }
        // While the group is being rebalanced a commit is refused; polling lets that go on, and then it is taken.
        while !self.consumer.context().commit_now(&self.consumer, &partitions) {
            if Instant::now() >= until {
                warn!("offsets could not be committed in time; their requests will be answered again");
                break;
            }
            drop(self.consumer.poll(POLL));
        }
        if left > 0 {
            // Leaving would wait for them once more.
            let mut state = self.consumer.context().state();
            partitions.iter().for_each(|partition| state.lanes.close(*partition));
        }
        // Dropping the consumer leaves the group.
    }
}

/// What a person can do about an error of reading.
fn advice(code: Option<RDKafkaErrorCode>) -> &'static str {
    match code {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => "create the requests topic, or correct kafka.requests_topic",
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => "let this client read the requests topic",
        Some(RDKafkaErrorCode::GroupAuthorizationFailed) => "let this client join kafka.group_id",
        _ => "it is tried again",
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
