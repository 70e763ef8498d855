//! Offsets of requests under way, for commits that are part of a transaction.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;

use super::context::IntakeContext;
use super::ticket::{LaneId, RequestPosition};

/// Offsets of the requests under way. Cheap to clone.
#[derive(Clone)]
pub struct Offsets {
    /// The polling thread closes the consumer, so it is not kept alive from here.
    consumer: Weak<BaseConsumer<IntakeContext>>,
}

/// Offsets that a transaction commits: every request whose end it contains is finished.
pub struct StagedOffsets {
    /// Positions of the partitions.
    pub offsets: TopicPartitionList,
    /// Membership of the group at that time; the broker refuses another.
    pub group: ConsumerGroupMetadata,
}

impl Offsets {
    pub(super) fn new(consumer: &Arc<BaseConsumer<IntakeContext>>) -> Self {
        Self { consumer: Arc::downgrade(consumer) }
    }

    /// Takes these requests as finished until they are [put back](Self::unstage), or their tickets finished. None when
    /// the partition of one of them has gone, or is being given back: then their ends are not ours to commit any more,
    /// and none is staged.
    pub fn stage(&self, requests: &[RequestPosition]) -> Option<StagedOffsets> {
        let consumer = self.consumer.upgrade()?;
        // The order matters: librdkafka's own thread forgets its membership and marks the assignment as lost in one
        // step, and answers us in another. So a caller that gets no membership, which the broker would let pass, sees
        // the loss.
        let group = consumer.group_metadata()?;
        if consumer.assignment_lost() {
            return None;
        }
        let mut state = consumer.context().state();
        for (index, request) in requests.iter().enumerate() {
            if !state.lanes.stage(*request) {
                for request in &requests[..index] {
                    state.lanes.unstage(*request);
                }
                return None;
            }
        }
        // Requests of a topic that is gone are answered as well, and nothing is committed of their offsets.
        let is_committed = |request: &&RequestPosition| !state.lanes.is_orphan(**request);
        let lanes: BTreeSet<LaneId> = requests.iter().filter(is_committed).map(|request| request.lane).collect();
        let positions: Vec<_> = lanes.into_iter().filter_map(|id| state.lanes.take_staged(id)).collect();
        Some(StagedOffsets { offsets: consumer.context().topics.offsets(&positions), group })
    }

    /// Puts these requests back under way: their transaction was aborted.
    pub fn unstage(&self, requests: &[RequestPosition]) {
        let Some(consumer) = self.consumer.upgrade() else { return };
        let mut state = consumer.context().state();
        requests.iter().for_each(|request| state.lanes.unstage(*request));
    }

    /// Counts the requests under way.
    pub fn under_way(&self) -> usize {
        self.consumer.upgrade().map_or(0, |consumer| consumer.context().state().budget.requests())
    }

    /// Returns whether the partitions have gone to another owner without a revocation.
    pub fn are_lost(&self) -> bool {
        self.consumer.upgrade().is_none_or(|consumer| consumer.assignment_lost())
    }

    /// Asks the broker which of these requests are finished. Waits for transactions that are not decided yet.
    ///
    /// # Errors
    /// When the broker does not answer in this time.
    pub fn recall(&self, requests: &[RequestPosition], timeout: Duration) -> Result<Vec<bool>, KafkaError> {
        let Some(consumer) = self.consumer.upgrade() else { return Ok(vec![false; requests.len()]) };
        let topics = &consumer.context().topics;
        let lanes: BTreeSet<LaneId> = requests.iter().map(|request| request.lane).collect();
        let committed = consumer.committed_offsets(topics.list(lanes), timeout)?;
        // Nothing is committed of requests of a topic that is gone.
        let is_orphan = |request: &RequestPosition| consumer.context().state().lanes.is_orphan(*request);
        let has_finished = |request: &RequestPosition| {
            let position = topics.committed(&committed, request.lane)?.unwrap_or_default();
            Ok(position.has_finished(request.offset) && !is_orphan(request))
        };
        requests.iter().map(has_finished).collect()
    }
}
