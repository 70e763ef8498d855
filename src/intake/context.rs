//! What the polling thread remembers, and the callbacks that librdkafka makes on that same thread.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, info, warn};

use super::budget::Budget;
use super::lanes::Lanes;
use super::ticket::Completion;
use crate::broker::BrokerContext;
use crate::telemetry::{Metrics, Part};

/// What the polling thread remembers. Only that thread touches it: in its loop, and in the callbacks that librdkafka
/// makes while it polls. The mutex says so to the compiler; nobody ever waits for it.
pub(super) struct State {
    pub(super) lanes: Lanes,
    pub(super) budget: Budget,
    /// Partitions have come: librdkafka remembers of each whether it was paused when we last had it.
    pub(super) has_new_lanes: bool,
    completions: Receiver<Completion>,
}

/// The consumer's callbacks.
pub(super) struct IntakeContext {
    broker: BrokerContext,
    topic: Arc<str>,
    /// How long a revoked partition's requests are waited for before they are given back.
    drain: Duration,
    state: Mutex<State>,
    metrics: Metrics,
    readiness: Part,
}

impl State {
    pub(super) fn new(budget: Budget, completions: Receiver<Completion>) -> Self {
        Self { lanes: Lanes::default(), budget, has_new_lanes: false, completions }
    }

    /// Takes in the ends of requests that have arrived.
    pub(super) fn settle(&mut self) {
        while let Ok(completion) = self.completions.try_recv() {
            self.complete(&completion);
        }
    }

    /// Waits for one end, this long at most, and takes in all that have arrived. False when none came.
    pub(super) fn settle_within(&mut self, timeout: Duration) -> bool {
        match self.completions.recv_timeout(timeout) {
            Ok(completion) => {
                self.complete(&completion);
                self.settle();
                true
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => false,
        }
    }

    /// Waits until no request of these partitions is under way, this long at most. True when all have ended.
    pub(super) fn drain(&mut self, partitions: &[i32], timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        while self.lanes.in_flight(partitions) > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.settle_within(left) {
                return false;
            }
        }
        true
    }

    fn complete(&mut self, completion: &Completion) {
        self.budget.give_back(completion.bytes);
        if !self.lanes.complete(completion) {
            debug!(?completion, "a request ended whose partition is not ours any more, or without an answer");
        }
    }
}

impl IntakeContext {
    pub(super) fn new(
        broker: BrokerContext,
        topic: Arc<str>,
        drain: Duration,
        state: State,
        metrics: Metrics,
        readiness: Part,
    ) -> Self {
        Self { broker, topic, drain, state: Mutex::new(state), metrics, readiness }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn broker(&self) -> &BrokerContext {
        &self.broker
    }

    /// The commits that are due, as librdkafka wants them; of all partitions, or of some.
    pub(super) fn take_commits(&self, partitions: Option<&[i32]>) -> Option<TopicPartitionList> {
        let due = self.state().lanes.take_commits(partitions);
        let mut list = TopicPartitionList::with_capacity(due.len());
        for (partition, offset) in due {
            // Only a name with a null byte is refused, and such a topic was never subscribed to.
            let _ = list.add_partition_offset(&self.topic, partition, Offset::Offset(offset));
        }
        (list.count() > 0).then_some(list)
    }

    /// Commits what is due of some partitions and waits for the broker's answer. False when it did not take place, so
    /// that it is still due.
    pub(super) fn commit_now(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) -> bool {
        let Some(list) = self.take_commits(Some(partitions)) else { return true };
        let Err(error) = consumer.commit(&list, CommitMode::Sync) else { return true };
        debug!(%error, "offsets could not be committed");
        self.metrics.commits.with_label_values(&["error"]).inc();
        let mut state = self.state();
        partitions.iter().for_each(|partition| state.lanes.commit_failed(*partition));
        false
    }

    fn assigned(&self, partitions: &[i32]) {
        let mut state = self.state();
        partitions.iter().for_each(|partition| state.lanes.open(*partition));
        state.has_new_lanes = true;
        self.metrics.rebalances.with_label_values(&["assigned"]).inc();
        info!(topic = %self.topic, ?partitions, owned = state.lanes.partitions().len(), "partitions assigned");
        self.readiness.ready();
    }

    /// Publishes what is finished, gives back the rest.
    fn revoked(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) {
        let lost = consumer.assignment_lost();
        self.metrics.rebalances.with_label_values(&[if lost { "lost" } else { "revoked" }]).inc();
        if lost {
            // Another owner may have them already: its word holds, and a commit of ours would be wrong.
            warn!(topic = %self.topic, ?partitions, "partitions lost; requests under way will be answered by their new owner");
        } else {
            let drained = self.state().drain(partitions, self.drain);
            let committed = self.commit_now(consumer, partitions);
            info!(topic = %self.topic, ?partitions, drained, committed, "partitions revoked");
        }
        let mut state = self.state();
        for partition in partitions {
            state.lanes.close(*partition);
            let _ = self.metrics.consumer_lag.remove_label_values(&[&partition.to_string()]);
        }
    }

    fn partitions_in(&self, list: &TopicPartitionList) -> Vec<i32> {
        list.elements_for_topic(&self.topic).iter().map(|element| element.partition()).collect()
    }
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
        let Some(topic) = statistics.topics.get(&*self.topic) else { return };
        for (partition, lane) in self.state().lanes.iter() {
            let Some(end) = topic.partitions.get(&partition).map(|partition| partition.hi_offset) else { continue };
            let Some(answered) = lane.window.committable() else { continue };
            let lag = self.metrics.consumer_lag.with_label_values(&[&partition.to_string()]);
            lag.set((end - answered).max(0));
        }
    }
}

impl ConsumerContext for IntakeContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.assigned(&self.partitions_in(list)),
            Rebalance::Revoke(list) => self.revoked(consumer, &self.partitions_in(list)),
            Rebalance::Error(error) => warn!(%error, "the group could not be rebalanced"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        match result {
            Ok(()) => {
                self.broker.health().answered();
                self.metrics.commits.with_label_values(&["ok"]).inc();
            }
            // A commit of nothing is no failure.
            Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => {
                debug!(%error, "a commit failed and will be made again");
                self.metrics.commits.with_label_values(&["error"]).inc();
                let mut state = self.state();
                self.partitions_in(offsets).into_iter().for_each(|partition| state.lanes.commit_failed(partition));
            }
        }
    }
}
