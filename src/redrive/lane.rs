//! One partition of the dead-letter topic: which of its letters were sent back.

use std::collections::BTreeMap;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::PATIENCE;
use super::choice::Choice;
use super::error::RedriveError;
use super::letter::Letter;
use super::notes::Notes;
use crate::broker::BrokerContext;

/// One partition of the dead-letter topic.
#[derive(Debug)]
pub(super) struct Lane {
    notes: Notes,
    /// The next offset to look at.
    pub(super) next: i64,
    /// Where the partition ended when the run began.
    pub(super) end: i64,
    /// The first letter that was not sent.
    first_left: Option<i64>,
}

impl Lane {
    pub(super) fn is_done(&self) -> bool {
        self.next >= self.end
    }

    /// How many offsets are to be looked at.
    pub(super) fn left(&self) -> u64 {
        u64::try_from(self.end - self.next).unwrap_or_default()
    }

    /// A run begins, with this choice. Gives how many bytes it takes to note.
    pub(super) fn begin(&mut self, choice: &Choice) -> usize {
        self.notes.begin(choice);
        self.notes.metadata().len()
    }

    /// Whether a letter was sent by an earlier run.
    pub(super) fn has(&self, letter: &Letter) -> bool {
        self.notes.has(letter)
    }

    /// This letter is not sent.
    pub(super) fn leave(&mut self, letter: &Letter) {
        self.notes.leave(letter);
        self.first_left.get_or_insert(letter.offset());
    }

    /// What to commit when all that was chosen until now is sent.
    pub(super) fn notes(&self) -> Notes {
        self.notes.at(self.next, self.first_left)
    }
}

/// Where each partition stands, by what the group has committed.
pub(super) fn positions(
    consumer: &BaseConsumer<BrokerContext>,
    topic: &str,
    partitions: i32,
    group: &str,
) -> Result<BTreeMap<i32, Lane>, RedriveError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions - 1);
    let committed = consumer.committed_offsets(list, PATIENCE).map_err(RedriveError::Reading)?;
    let mut lanes = BTreeMap::new();
    for partition in 0..partitions {
        let (begin, end) = consumer.fetch_watermarks(topic, partition, PATIENCE).map_err(RedriveError::Reading)?;
        let element = committed.find_partition(topic, partition);
        let notes = match element.as_ref().map(|element| (element, element.offset())) {
            // Beyond the end lies what was committed of another topic of the same name.
            Some((element, Offset::Offset(offset))) if offset <= end => {
                element.error().map_err(RedriveError::Reading)?;
                let unreadable = |reason| RedriveError::Unreadable { group: group.to_owned(), partition, reason };
                Notes::of(offset, element).map_err(unreadable)?
            }
            _ => Notes::new(begin),
        };
        let next = notes.offset.max(begin);
        lanes.insert(partition, Lane { notes, next, end, first_left: None });
    }
    Ok(lanes)
}
