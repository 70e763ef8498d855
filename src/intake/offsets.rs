//! The offsets of requests under way, as transactions take them along.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::context::IntakeContext;
use super::position::Position;
use super::ticket::{LaneId, RequestPosition};

/// The offsets of the requests under way. Cheap to clone.
#[derive(Clone)]
pub struct Offsets {
    /// The polling thread closes the consumer, so it is not kept alive from here.
    consumer: Weak<BaseConsumer<IntakeContext>>,
}

/// What a transaction says of offsets: everything whose end lies in it is finished.
pub struct StagedOffsets {
    /// The positions.
    pub offsets: TopicPartitionList,
    /// By which membership of the group; the broker refuses another.
    pub group: ConsumerGroupMetadata,
}

/// The end of one of the requests is not ours to tell any more: its partition has gone.
#[derive(Debug)]
pub struct PartitionGone;

impl Offsets {
    pub(super) fn new(consumer: &Arc<BaseConsumer<IntakeContext>>) -> Self {
        Self { consumer: Arc::downgrade(consumer) }
    }

    /// Takes these requests as finished until they are [put back](Self::unstage), or their tickets finished.
    ///
    /// # Errors
    /// When the partition of one of them has gone, or is being given back; then none is staged.
    pub fn stage(&self, requests: &[RequestPosition]) -> Result<StagedOffsets, PartitionGone> {
        let consumer = self.consumer.upgrade().ok_or(PartitionGone)?;
        // In this order: librdkafka's own thread forgets its membership and marks the assignment as lost in one step,
        // and answers us in another. So whoever is told of no membership, which the broker would let pass, sees the loss.
        let group = consumer.group_metadata().ok_or(PartitionGone)?;
        if consumer.assignment_lost() {
            return Err(PartitionGone);
        }
        let mut state = consumer.context().state();
        for (index, request) in requests.iter().enumerate() {
            if !state.lanes.stage(*request) {
                for request in &requests[..index] {
                    state.lanes.unstage(*request);
                }
                return Err(PartitionGone);
            }
        }
        // What was read of a topic that is gone is answered as well, and nothing is to be said of its offsets.
        let is_committed = |request: &&RequestPosition| !state.lanes.is_orphan(**request);
        let lanes: BTreeSet<LaneId> = requests.iter().filter(is_committed).map(|request| request.lane).collect();
        let positions: Vec<_> = lanes.into_iter().filter_map(|id| state.lanes.take_staged(id)).collect();
        Ok(StagedOffsets { offsets: consumer.context().topics().offsets(&positions), group })
    }

    /// The transaction came to nothing: these requests are under way as before.
    pub fn unstage(&self, requests: &[RequestPosition]) {
        let Some(consumer) = self.consumer.upgrade() else { return };
        let mut state = consumer.context().state();
        requests.iter().for_each(|request| state.lanes.unstage(*request));
    }

    /// How many requests are under way.
    pub fn under_way(&self) -> usize {
        self.consumer.upgrade().map_or(0, |consumer| consumer.context().state().budget.requests())
    }

    /// Whether the partitions have gone to another owner without a word.
    pub fn are_lost(&self) -> bool {
        self.consumer.upgrade().is_none_or(|consumer| consumer.assignment_lost())
    }

    /// Which of these requests the broker has as finished. Waits for transactions that are not decided yet.
    ///
    /// # Errors
    /// When it does not answer in this time.
    pub fn recall(&self, requests: &[RequestPosition], timeout: Duration) -> Result<Vec<bool>, KafkaError> {
        let Some(consumer) = self.consumer.upgrade() else { return Ok(vec![false; requests.len()]) };
        let topics = consumer.context().topics();
        let lanes: BTreeSet<LaneId> = requests.iter().map(|request| request.lane).collect();
        let committed = consumer.committed_offsets(topics.list(lanes), timeout)?;
        let position = |lane: LaneId| {
            let element = committed.find_partition(topics.name(lane), lane.partition);
            let element = element.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownPartition))?;
            element.error()?;
            match element.offset() {
                // It is what we have committed, or somebody has meanwhile what says no more than its offset.
                Offset::Offset(offset) => {
                    Ok(Position::of(offset, &element).unwrap_or(Position { offset, ..Position::default() }))
                }
                _ => Ok(Position::default()),
            }
        };
        // Nothing is noted of what was read of a topic that is gone.
        let is_orphan = |request: &RequestPosition| consumer.context().state().lanes.is_orphan(*request);
        let has_finished = |request: &RequestPosition| {
            position(request.lane).map(|position| position.has_finished(request.offset) && !is_orphan(request))
        };
        requests.iter().map(has_finished).collect()
    }
}
