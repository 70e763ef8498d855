//! What the polling thread remembers, and the callbacks that librdkafka makes on that same thread.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, info, warn};

use super::budget::Budget;
use super::lanes::{Lane, Lanes};
use super::position::Position;
use super::ticket::{Completion, LaneId};
use crate::broker::BrokerContext;
use crate::config::{Kafka, RetryTopic};
use crate::telemetry::{Metrics, Part};

/// This part of the window is for requests whose route had too much to do: the rest is for the others.
const OVERFLOW_PART: usize = 4;

/// What is remembered of the requests under way. The polling thread holds it for moments, in its loop and in the
/// callbacks that librdkafka makes while it polls; where replies go in transactions, their thread asks for it once in
/// each.
pub(super) struct State {
    pub(super) lanes: Lanes,
    pub(super) budget: Budget,
    /// The share of it that those may take which were put aside since their route had too much to do.
    pub(super) overflow: Budget,
    /// Partitions have come: librdkafka remembers of each whether it was paused when we last had it.
    pub(super) has_new_lanes: bool,
    /// Since when no broker has said anything, as far as is known.
    pub(super) silent_since: Option<Instant>,
}

/// The consumer's callbacks.
pub(super) struct IntakeContext {
    broker: BrokerContext,
    topics: Topics,
    /// How long a revoked partition's requests are waited for before they are given back.
    drain: Duration,
    /// Whether offsets are committed here, rather than with the replies in a transaction.
    commits: bool,
    state: Mutex<State>,
    /// Only the polling thread takes from it; the mutex says so to the compiler.
    completions: Mutex<Receiver<Completion>>,
    metrics: Metrics,
    readiness: Part,
}

/// The topics that requests are read from; the requests topic is the first, and then come the retry topics.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    names: Arc<[Arc<str>]>,
    /// How long a request waits in each of them.
    delays: Arc<[Duration]>,
    /// How many partitions each of them has.
    partitions: Arc<[i32]>,
}

/// What a context is made of.
pub(super) struct ContextParts {
    pub(super) broker: BrokerContext,
    pub(super) topics: Topics,
    pub(super) drain: Duration,
    pub(super) commits: bool,
    pub(super) budget: Budget,
    pub(super) completions: Receiver<Completion>,
    pub(super) metrics: Metrics,
    pub(super) readiness: Part,
}

impl Topics {
    /// Those of a config; `partitions` says how many a topic has.
    ///
    /// # Errors
    /// When it cannot.
    pub(super) fn of<E>(config: &Kafka, partitions: impl Fn(&str) -> Result<i32, E>) -> Result<Self, E> {
        let requests = RetryTopic { name: config.requests_topic.as_str().into(), delay: Duration::ZERO };
        let (names, delays): (Vec<_>, Vec<_>) =
            [requests].into_iter().chain(config.retry_topics()).map(|topic| (topic.name, topic.delay)).unzip();
        let partitions = names.iter().map(|name| partitions(name)).collect::<Result<_, _>>()?;
        Ok(Self { names: names.into(), delays: delays.into(), partitions })
    }

    /// Adds to some partitions of the requests topic those of the same number of the retry topics. The group knows
    /// nothing of these: it would share all partitions out alike, and one instance might have nothing but such as are
    /// hardly ever used.
    fn add_companions(&self, list: &mut TopicPartitionList) {
        let of_requests: Vec<i32> =
            self.lanes(list).iter().filter(|lane| lane.topic == 0).map(|lane| lane.partition).collect();
        for (name, partitions) in self.names.iter().zip(&*self.partitions).skip(1) {
            for partition in of_requests.iter().filter(|partition| *partition < partitions) {
                list.add_partition(name, *partition);
            }
        }
    }

    /// The requests topic, and the retry topics.
    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// How long a request waits there.
    pub(super) fn delay(&self, lane: LaneId) -> Duration {
        self.delays[lane.topic]
    }

    /// The requests topic.
    pub(super) fn requests(&self) -> &Arc<str> {
        &self.names[0]
    }

    pub(super) fn name(&self, lane: LaneId) -> &Arc<str> {
        &self.names[lane.topic]
    }

    pub(super) fn lane(&self, topic: &str, partition: i32) -> Option<LaneId> {
        let topic = self.names.iter().position(|name| **name == *topic)?;
        Some(LaneId { topic, partition })
    }

    /// The lanes that a list names.
    pub(super) fn lanes(&self, list: &TopicPartitionList) -> Vec<LaneId> {
        list.elements().iter().filter_map(|element| self.lane(element.topic(), element.partition())).collect()
    }

    pub(super) fn list(&self, lanes: impl IntoIterator<Item = LaneId>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for lane in lanes {
            list.add_partition(self.name(lane), lane.partition);
        }
        list
    }

    /// Positions as librdkafka wants them.
    pub(super) fn offsets(&self, positions: &[(LaneId, Position)]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (lane, position) in positions {
            let mut element = list.add_partition(self.name(*lane), lane.partition);
            // Only an offset below zero is refused, and there are none.
            let _ = element.set_offset(Offset::Offset(position.offset));
            element.set_metadata(position.metadata());
        }
        list
    }
}

impl State {
    /// A request is under way from now on.
    pub(super) fn take(&mut self, lane: LaneId, bytes: usize) {
        self.budget.take(bytes);
        if lane.is_overflow() {
            self.overflow.take(bytes);
        }
    }

    fn complete(&mut self, completion: &Completion) {
        self.budget.give_back(completion.bytes);
        if completion.claim.lane.is_overflow() {
            self.overflow.give_back(completion.bytes);
        }
        if !self.lanes.complete(completion) {
            debug!(?completion, "a request ended whose partition is not ours any more, or without an answer");
        }
    }
}

impl IntakeContext {
    pub(super) fn new(parts: ContextParts) -> Self {
        let ContextParts { broker, topics, drain, commits, budget, completions, metrics, readiness } = parts;
        let overflow = budget.part(OVERFLOW_PART);
        let state = State { lanes: Lanes::default(), budget, overflow, has_new_lanes: false, silent_since: None };
        Self {
            broker,
            topics,
            drain,
            commits,
            state: Mutex::new(state),
            completions: Mutex::new(completions),
            metrics,
            readiness,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn broker(&self) -> &BrokerContext {
        &self.broker
    }

    pub(super) fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Whether offsets are committed here, rather than with the replies in a transaction.
    pub(super) fn commits(&self) -> bool {
        self.commits
    }

    /// Takes in the ends of requests that have arrived.
    pub(super) fn settle(&self) {
        let completions = self.completions.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(first) = completions.try_recv() else { return };
        let mut state = self.state();
        state.complete(&first);
        while let Ok(completion) = completions.try_recv() {
            state.complete(&completion);
        }
    }

    /// Waits for one end, this long at most, and takes in all that have arrived. False when none came.
    pub(super) fn settle_within(&self, timeout: Duration) -> bool {
        let waited = self.completions.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(timeout);
        match waited {
            Ok(completion) => {
                self.state().complete(&completion);
                self.settle();
                true
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => false,
        }
    }

    /// Waits until no request of these partitions is under way, this long at most. True when all have ended.
    fn drain(&self, lanes: &[LaneId], timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        loop {
            if self.state().lanes.in_flight(lanes) == 0 {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.settle_within(left) {
                return false;
            }
        }
    }

    /// Commits what is due of some partitions that go, and waits for the broker's answer. False when it did not take
    /// place, so that it is still due.
    pub(super) fn commit_now(&self, consumer: &BaseConsumer<Self>, lanes: &[LaneId]) -> bool {
        let due = {
            let mut state = self.state();
            let chosen: Vec<LaneId> = match self.commits {
                true => lanes.to_vec(),
                // All that is finished is committed already. What is not is given back, so that nobody takes its owner
                // for dead; where a transaction may still say otherwise, it has the last word.
                false => lanes.iter().copied().filter(|lane| state.lanes.is_given_back(*lane)).collect(),
            };
            state.lanes.take_commits(Some(&chosen), true)
        };
        if due.is_empty() {
            return true;
        }
        let Err(error) = consumer.commit(&self.topics.offsets(&due), CommitMode::Sync) else { return true };
        debug!(%error, "offsets could not be committed");
        self.metrics.commits.with_label_values(&["error"]).inc();
        let mut state = self.state();
        due.iter().for_each(|(lane, _)| state.lanes.commit_failed(*lane));
        false
    }

    /// Counts what waits in the retry topics, as far as they are ours.
    fn count_parked(&self, statistics: &Statistics) {
        let state = self.state();
        for (index, name) in self.topics.names().iter().enumerate().skip(1) {
            let Some(topic) = statistics.topics.get(&**name) else { continue };
            let waiting = |(id, lane): (LaneId, &Lane)| {
                let partition = topic.partitions.get(&id.partition)?;
                let first = lane.window.first_unfinished().or(lane.first_held())?;
                // What ends a transaction has an offset as well, and is no request.
                let is_any = lane.first_held().is_some() || lane.window.in_flight() > 0 || partition.fetchq_cnt > 0;
                is_any.then_some((partition.hi_offset - first).max(0))
            };
            let waiting = state.lanes.iter().filter(|(id, _)| id.topic == index).filter_map(waiting).sum();
            self.metrics.parked_requests.with_label_values(&[&**name]).set(waiting);
        }
    }

    fn assigned(&self, lanes: &[LaneId]) {
        let mut state = self.state();
        lanes.iter().for_each(|lane| state.lanes.take(*lane));
        state.has_new_lanes = true;
        self.metrics.rebalances.with_label_values(&["assigned"]).inc();
        let owned = state.lanes.ids().iter().filter(|lane| lane.topic == 0).count();
        info!(partitions = %names(lanes), owned, "partitions assigned");
        self.readiness.ready();
    }

    /// Publishes what is finished, gives back the rest.
    fn revoked(&self, consumer: &BaseConsumer<Self>, lanes: &[LaneId]) {
        let lost = consumer.assignment_lost();
        self.metrics.rebalances.with_label_values(&[if lost { "lost" } else { "revoked" }]).inc();
        let partitions = names(lanes);
        if lost {
            // Another owner may have them already: its word holds, and a commit of ours would be wrong.
            warn!(%partitions, "partitions lost; requests under way will be answered by their new owner");
        } else {
            let drained = self.drain(lanes, self.drain);
            let committed = self.commit_now(consumer, lanes);
            info!(%partitions, drained, committed, "partitions revoked");
        }
        let mut state = self.state();
        for lane in lanes {
            state.lanes.close(*lane);
            if lane.topic == 0 {
                let _ = self.metrics.consumer_lag.remove_label_values(&[&lane.partition.to_string()]);
            }
        }
    }
}

/// How long ago the last word of any broker came, over connections that seem to be up. Fetches and heartbeats are answered
/// every few seconds, so a long silence is that of a broker, or of a network, which says not even that it is gone.
fn silence(statistics: &Statistics) -> Option<Duration> {
    let words = statistics.brokers.values().filter_map(|broker| u64::try_from(broker.rxidle).ok());
    words.min().map(Duration::from_micros)
}

/// The partitions of the requests topic, such as `0, 3, 7`. Those of the retry topics go with them.
fn names(lanes: &[LaneId]) -> String {
    let of_requests = lanes.iter().filter(|lane| lane.topic == 0);
    of_requests.map(|lane| lane.partition.to_string()).collect::<Vec<_>>().join(", ")
}

impl ClientContext for IntakeContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.broker.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.broker.error(error, reason);
    }

    /// Keeps the lag up to date: what the broker has, less what is answered for good.
    fn stats(&self, statistics: Statistics) {
        self.count_parked(&statistics);
        self.state().silent_since = silence(&statistics).and_then(|silence| Instant::now().checked_sub(silence));
        let Some(topic) = statistics.topics.get(&**self.topics.requests()) else { return };
        for (id, lane) in self.state().lanes.iter().filter(|(id, _)| id.topic == 0) {
            let Some(end) = topic.partitions.get(&id.partition).map(|partition| partition.hi_offset) else { continue };
            let Some(answered) = lane.window.first_unfinished() else { continue };
            let lag = self.metrics.consumer_lag.with_label_values(&[&id.partition.to_string()]);
            lag.set((end - answered).max(0));
        }
    }
}

impl ConsumerContext for IntakeContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let is_cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        self.topics.add_companions(list);
        let lanes = self.topics.lanes(list);
        let done = match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.assigned(&lanes);
                if is_cooperative { consumer.incremental_assign(list) } else { consumer.assign(list) }
            }
            _ => {
                match what {
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => self.revoked(consumer, &lanes),
                    error => warn!(error = %RDKafkaErrorCode::from(error), "the group could not be rebalanced"),
                }
                if is_cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() }
            }
        };
        if let Err(error) = done {
            warn!(%error, "partitions could not be taken over or given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_retry_topics_go_with_those_of_the_requests_topic() {
        let config = Kafka {
            bootstrap_servers: "kafka:9092".to_owned(),
            requests_topic: "requests".to_owned(),
            retry_delays: vec![Duration::from_secs(1)],
            ..Kafka::default()
        };
        let partitions = |topic: &str| Ok::<_, ()>(if topic == "requests-retry-1000" { 1 } else { 3 });
        let topics = Topics::of(&config, partitions).unwrap();
        let mut list = topics.list([0, 2].map(|partition| LaneId { topic: 0, partition }));
        topics.add_companions(&mut list);
        let lanes: Vec<_> = topics.lanes(&list).iter().map(|lane| (lane.topic, lane.partition)).collect();
        assert_eq!(lanes, [(0, 0), (0, 2), (1, 0), (1, 2), (2, 0)]);
    }
}
