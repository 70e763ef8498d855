//! Partitions of the dead-letter topic, each with the position of a run in it.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::checkpoint::Checkpoint;
use super::dead_letter::DeadLetter;
use super::error::RedriveError;
use super::selector::Selector;
use crate::broker::BrokerContext;

/// Longest silence of the broker; after it a run ends with an error.
pub(super) const BROKER_TIMEOUT: Duration = Duration::from_secs(30);

/// Tracks one partition of the dead-letter topic through a run.
#[derive(Debug)]
pub(super) struct DeadLetterPartition {
    committed: Checkpoint,
    /// The next offset to look at.
    pub(super) next: i64,
    /// The end of the partition when the run began.
    pub(super) end: i64,
    /// The first letter that was not sent.
    first_unsent: Option<i64>,
}

impl DeadLetterPartition {
    pub(super) fn is_done(&self) -> bool {
        self.next >= self.end
    }

    /// Counts the offsets that are still to be looked at.
    pub(super) fn remaining(&self) -> u64 {
        u64::try_from(self.end - self.next).unwrap_or_default()
    }

    /// Begins a run with this selector. Returns the bytes of metadata that its checkpoint takes.
    pub(super) fn begin(&mut self, selector: &Selector) -> usize {
        self.committed.begin(selector);
        self.committed.metadata().len()
    }

    /// Tells whether an earlier run has sent this letter.
    pub(super) fn was_sent(&self, letter: &DeadLetter) -> bool {
        self.committed.was_sent(letter)
    }

    /// Notes that this run does not send this letter.
    pub(super) fn skip(&mut self, letter: &DeadLetter) {
        self.committed.skip(letter);
        self.first_unsent.get_or_insert(letter.offset());
    }

    /// Builds the checkpoint to commit once all letters selected until now are sent.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        self.committed.at(self.next, self.first_unsent)
    }
}

/// Finds the position of each partition from the checkpoints that the group has committed.
pub(super) fn positions(
    consumer: &BaseConsumer<BrokerContext>,
    topic: &str,
    partitions: i32,
    group: &str,
) -> Result<BTreeMap<i32, DeadLetterPartition>, RedriveError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions - 1);
    let offsets = consumer.committed_offsets(list, BROKER_TIMEOUT).map_err(RedriveError::Reading)?;
    let mut positions = BTreeMap::new();
    for partition in 0..partitions {
        let (begin, end) =
            consumer.fetch_watermarks(topic, partition, BROKER_TIMEOUT).map_err(RedriveError::Reading)?;
        let element = offsets.find_partition(topic, partition);
        let checkpoint = match element.as_ref().map(|element| (element, element.offset())) {
            // An offset beyond the end was committed for an earlier topic of the same name.
            Some((element, Offset::Offset(offset))) if offset <= end => {
                element.error().map_err(RedriveError::Reading)?;
                let unreadable = |reason| RedriveError::Unreadable { group: group.to_owned(), partition, reason };
                Checkpoint::of(offset, element).map_err(unreadable)?
            }
            _ => Checkpoint::new(begin),
        };
        // Letters that the topic has dropped cannot be looked at any more.
        let next = checkpoint.offset.max(begin);
        positions.insert(partition, DeadLetterPartition { committed: checkpoint, next, end, first_unsent: None });
    }
    Ok(positions)
}
