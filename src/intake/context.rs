//! State of the polling thread, and the callbacks that librdkafka makes on that same thread.

use parking_lot::{Mutex, MutexGuard};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use tracing::{debug, info, warn};

use super::budget::Budget;
use super::lane::Lane;
use super::lanes::Lanes;
use super::ticket::{Completion, LaneId};
use super::topics::Topics;
use crate::broker::{BrokerContext, TopicId};
use crate::telemetry::{Metrics, ReadinessPart};

/// Divisor of the in-flight limit for overflow requests, whose route had too much to do: the rest is for the others.
const OVERFLOW_PART: usize = 4;

/// Longest wait for the outcome of a transaction that has ends of a partition which is given back.
const DECISION: Duration = Duration::from_secs(10);

/// Interval at which that outcome is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// State of the requests under way. The polling thread locks it for moments, in its loop and in the callbacks that
/// librdkafka makes while it polls; where replies go in transactions, their thread locks it once in each.
pub(super) struct IntakeState {
    pub(super) lanes: Lanes,
    pub(super) budget: Budget,
    /// Share of the budget that overflow requests may take, which were parked since their route had too much to do.
    pub(super) overflow: Budget,
    /// True if partitions have come: librdkafka remembers of each whether it was paused when we last had it.
    pub(super) has_new_lanes: bool,
    /// Time since which all brokers have been silent, as far as is known.
    pub(super) silent_since: Option<Instant>,
    /// True if partitions have come whose commits are still to be checked.
    pub(super) has_unchecked_lanes: bool,
}

/// Callbacks of the consumer.
pub(super) struct IntakeContext {
    pub(super) broker: BrokerContext,
    pub(super) topics: Topics,
    /// Longest wait for a revoked partition's requests before they are given back.
    pub(super) drain: Duration,
    /// True if offsets are committed here, rather than with the replies in a transaction.
    pub(super) commits: bool,
    pub(super) state: Mutex<IntakeState>,
    /// Only the polling thread receives; the mutex says so to the compiler.
    pub(super) completions: Mutex<Receiver<Completion>>,
    pub(super) metrics: Metrics,
    pub(super) readiness: ReadinessPart,
}

impl IntakeState {
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            lanes: Lanes::default(),
            overflow: budget.part(OVERFLOW_PART),
            budget,
            has_new_lanes: false,
            silent_since: None,
            has_unchecked_lanes: false,
        }
    }

    /// Counts a request that is under way from now on.
    pub(super) fn take(&mut self, lane: LaneId, bytes: usize) {
        self.budget.take(bytes);
        if lane.is_overflow() {
            self.overflow.take(bytes);
        }
    }

    fn complete(&mut self, completion: &Completion) {
        self.budget.give_back(completion.bytes);
        if completion.request.lane.is_overflow() {
            self.overflow.give_back(completion.bytes);
        }
        if !self.lanes.complete(completion) {
            debug!(?completion, "a request ended whose partition is not ours any more, or without an answer");
        }
    }
}

impl IntakeContext {
    /// Returns the topic that a lane is of, as far as that is known.
    pub(super) fn topic_id(&self, lane: LaneId) -> Option<TopicId> {
        self.broker.topic_ids().of(self.topics.name(lane))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, IntakeState> {
        self.state.lock()
    }

    /// Takes in the ends of requests that have arrived.
    pub(super) fn settle(&self) {
        let completions = self.completions.lock();
        let Ok(first) = completions.try_recv() else { return };
        let mut state = self.state();
        state.complete(&first);
        while let Ok(completion) = completions.try_recv() {
            state.complete(&completion);
        }
    }

    /// Waits for one end, this long at most, and takes in all that have arrived. False when none came.
    pub(super) fn settle_within(&self, timeout: Duration) -> bool {
        let waited = self.completions.lock().recv_timeout(timeout);
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

    /// Gives partitions back: from now on no end of theirs gets into a transaction. Ends that are in one already are
    /// waited for by `wait`, since its commit and ours would else overtake each other. Returns whether the broker took
    /// our commit, or `None` when the transaction is not decided in time: then nothing is committed here, the
    /// transaction has the last word, and the next owner waits for it.
    pub(super) fn give_back(&self, consumer: &BaseConsumer<Self>, lanes: &[LaneId], wait: impl Fn()) -> Option<bool> {
        self.state().lanes.begin_closing(lanes);
        let until = Instant::now() + DECISION;
        self.settle();
        let decided = || {
            let state = self.state();
            lanes.iter().copied().filter(|lane| !state.lanes.is_staged(*lane)).collect::<Vec<_>>()
        };
        while decided().len() < lanes.len() && Instant::now() < until {
            wait();
            self.settle();
        }
        let decided = decided();
        let committed = self.commit_now(consumer, &decided);
        (decided.len() == lanes.len()).then_some(committed)
    }

    /// Commits that these partitions are given back, and waits for the broker's answer. False when the commit failed.
    fn commit_now(&self, consumer: &BaseConsumer<Self>, lanes: &[LaneId]) -> bool {
        let due = self.state().lanes.take_commits(Some(lanes), true);
        if due.is_empty() {
            return true;
        }
        let Err(error) = consumer.commit(&self.topics.offsets(&due), CommitMode::Sync) else { return true };
        debug!(%error, "offsets could not be committed");
        self.metrics.commits.with_label_values(&["error"]).inc();
        self.state().lanes.committed(due.into_iter().map(|(lane, _)| lane), false);
        false
    }

    /// Counts the requests that wait in the retry topics, in the partitions that are ours.
    fn count_parked(&self, statistics: &Statistics) {
        let state = self.state();
        for (index, name) in self.topics.names().iter().enumerate().skip(1) {
            let Some(topic) = statistics.topics.get(&**name) else { continue };
            let waiting = |(id, lane): (LaneId, &Lane)| {
                let partition = topic.partitions.get(&id.partition)?;
                let first = lane.window.first_unfinished().or(lane.first_held())?;
                // The marker that ends a transaction has an offset as well, and is no request.
                let is_any = lane.first_held().is_some() || lane.window.in_flight() > 0 || partition.fetchq_cnt > 0;
                is_any.then_some((partition.hi_offset - first).max(0))
            };
            let waiting = state.lanes.iter().filter(|(id, _)| id.topic == index).filter_map(waiting).sum();
            self.metrics.parked_requests.with_label_values(&[&**name]).set(waiting);
        }
    }

    /// Lists the partitions of the requests topic that are ours.
    fn of_requests(&self) -> Vec<i32> {
        let lanes = self.state().lanes.ids().into_iter();
        lanes.filter(|lane| lane.is_of_requests()).map(|lane| lane.partition).collect()
    }

    /// Returns the next retry topic after this one that lacks partitions to go with ours.
    pub(super) fn incomplete(&self, after: usize) -> Option<usize> {
        self.topics.incomplete(&self.of_requests(), after)
    }

    /// Takes the partitions of retry topics that have come to go with ours. Where the group does not take over
    /// partitions one by one, it has to form anew for that.
    pub(super) fn assign_companions(&self, consumer: &BaseConsumer<Self>) {
        let of_requests = self.of_requests();
        let mut state = self.state();
        let mut new = self.topics.companions(&of_requests);
        new.retain(|lane| state.lanes.get(*lane).is_none());
        if new.is_empty() || !matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
            return;
        }
        new.iter().for_each(|lane| state.lanes.assign(*lane));
        (state.has_new_lanes, state.has_unchecked_lanes) = (true, true);
        drop(state);
        if let Err(error) = consumer.incremental_assign(&self.topics.list(new.iter().copied())) {
            warn!(%error, "the new partitions of a retry topic are read once the group forms anew");
            let mut state = self.state();
            new.iter().for_each(|lane| state.lanes.remove(*lane));
        }
    }

    fn assigned(&self, lanes: &[LaneId]) {
        let mut state = self.state();
        lanes.iter().for_each(|lane| state.lanes.assign(*lane));
        (state.has_new_lanes, state.has_unchecked_lanes) = (true, true);
        self.metrics.rebalances.with_label_values(&["assigned"]).inc();
        let owned = state.lanes.ids().iter().filter(|lane| lane.is_of_requests()).count();
        info!(partitions = %names(lanes), owned, "partitions assigned");
        self.readiness.ready();
    }

    /// Waits for the requests of revoked partitions, commits those that are finished, and gives back the rest.
    fn revoked(&self, consumer: &BaseConsumer<Self>, lanes: &[LaneId]) {
        let lost = consumer.assignment_lost();
        self.metrics.rebalances.with_label_values(&[if lost { "lost" } else { "revoked" }]).inc();
        let partitions = names(lanes);
        if lost {
            // Another owner may have the partitions already: its commits hold, and one of ours would be wrong.
            warn!(%partitions, "partitions lost; requests under way will be answered by their new owner");
        } else {
            let drained = self.drain(lanes, self.drain);
            let committed = self.give_back(consumer, lanes, || {
                self.settle_within(LOOK);
            });
            info!(%partitions, drained, committed = committed == Some(true), "partitions revoked");
        }
        let mut state = self.state();
        for lane in lanes {
            state.lanes.remove(*lane);
            if lane.is_of_requests() {
                let _ = self.metrics.consumer_lag.remove_label_values(&[&lane.partition.to_string()]);
            }
        }
    }
}

/// Returns the time since the last word of any broker, over connections that seem to be up. Fetches and heartbeats are
/// answered every few seconds, so a long silence is that of a broker, or of a network, which does not even close its
/// connections.
fn silence(statistics: &Statistics) -> Option<Duration> {
    let words = statistics.brokers.values().filter_map(|broker| u64::try_from(broker.rxidle).ok());
    words.min().map(Duration::from_micros)
}

/// Lists the partitions of the requests topic, such as `0, 3, 7`. Those of the retry topics go with them.
fn names(lanes: &[LaneId]) -> String {
    let of_requests = lanes.iter().filter(|lane| lane.is_of_requests());
    of_requests.map(|lane| lane.partition.to_string()).collect::<Vec<_>>().join(", ")
}

impl ClientContext for IntakeContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.broker.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.broker.error(error, reason);
    }

    /// Keeps the lag up to date: what the broker has, less what is answered for good. The marker that ends a
    /// transaction has an offset as well, and is no request: where everything that was read is answered, so is what
    /// librdkafka has read past.
    fn stats(&self, statistics: Statistics) {
        self.broker.look_at_brokers(&statistics);
        self.count_parked(&statistics);
        self.state().silent_since = silence(&statistics).and_then(|silence| Instant::now().checked_sub(silence));
        let Some(topic) = statistics.topics.get(&**self.topics.requests()) else { return };
        for (id, lane) in self.state().lanes.iter().filter(|(id, _)| id.is_of_requests()) {
            let Some(partition) = topic.partitions.get(&id.partition) else { continue };
            let Some(mut answered) = lane.window.first_unfinished() else { continue };
            if lane.is_idle() && partition.fetchq_cnt == 0 {
                answered = answered.max(partition.next_offset);
            }
            let lag = self.metrics.consumer_lag.with_label_values(&[&id.partition.to_string()]);
            lag.set((partition.hi_offset - answered).max(0));
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
