//! One partition of the dead-letter topic: which of its letters were sent back.

use std::collections::BTreeMap;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::PATIENCE;
use super::error::RedriveError;
use crate::broker::BrokerContext;
use crate::intake::{Position, Window};

/// One partition of the dead-letter topic.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) window: Window,
    /// The next offset to look at.
    pub(super) next: i64,
    /// Where the partition ended when the run began.
    pub(super) end: i64,
}

impl Lane {
    pub(super) fn is_done(&self) -> bool {
        self.next >= self.end
    }

    /// How many offsets are to be looked at.
    pub(super) fn left(&self) -> u64 {
        u64::try_from(self.end - self.next).unwrap_or_default()
    }

    /// What to commit.
    pub(super) fn position(&self) -> Option<Position> {
        // Those that are left are nobody's end.
        Some(Position { lives: 0, ..self.window.position()? })
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
        let position = match element.as_ref().map(|element| (element, element.offset())) {
            // Beyond the end lies what was committed of another topic of the same name.
            Some((element, Offset::Offset(offset))) if offset <= end => {
                element.error().map_err(RedriveError::Reading)?;
                let unreadable = |reason| RedriveError::Unreadable { group: group.to_owned(), partition, reason };
                Position::of(offset, element).map_err(unreadable)?
            }
            _ => Position { offset: begin, ..Position::default() },
        };
        lanes.insert(partition, Lane { window: Window::resume(&position), next: position.offset.max(begin), end });
    }
    Ok(lanes)
}
