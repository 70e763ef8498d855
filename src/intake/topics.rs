//! Topics that requests are read from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::position::Position;
use super::ticket::LaneId;
use crate::config::{Kafka, RetryTopic};

/// Topics that requests are read from; the requests topic is the first. The retry topics come after it: the group's
/// own, and those of earlier versions, which all groups shared. Retry topics are read as long as they exist, also when
/// nothing is parked in them any more.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    names: Arc<[Arc<str>]>,
    read: Arc<[ReadTopic]>,
}

/// Topic that is read.
#[derive(Debug)]
struct ReadTopic {
    /// Time that a request waits in the topic.
    delay: Duration,
    /// Failures of a request that is parked there.
    failures: u32,
    /// True if requests are still parked in the topic.
    is_written: bool,
    /// True if other groups may read the topic as well.
    is_shared: bool,
    /// Number of its partitions. More may come.
    partitions: AtomicI32,
}

impl Topics {
    /// Lists the topics of a config. Those in `found` exist on the broker, with so many partitions.
    pub(super) fn of(config: &Kafka, found: &BTreeMap<String, i32>) -> Self {
        let requests = RetryTopic { name: config.requests_topic.as_str().into(), delay: Duration::ZERO };
        // The second and the third are for requests whose route had too much to do: see `LaneId::is_overflow`.
        let overflow = format!("{}-retry-0", config.requests_topic);
        let mut topics = vec![
            (requests, false),
            (config.retry_topic(Duration::ZERO), false),
            (RetryTopic { name: overflow.into(), delay: Duration::ZERO }, true),
        ];
        let written = config.retry_topics();
        let own = written.iter().cloned();
        let found_own = found.keys().filter_map(|name| config.retry_topic_of(name));
        let shared = found.keys().filter_map(|name| config.shared_retry_topic_of(name));
        for topic in own.chain(found_own).map(|topic| (topic, false)).chain(shared.map(|topic| (topic, true))) {
            if topics.iter().all(|(known, _)| known.name != topic.0.name) {
                topics.push(topic);
            }
        }
        let failures = |delay: Duration| config.retry_delays.iter().filter(|it| **it <= delay).count();
        let read = topics.iter().map(|(topic, is_shared)| ReadTopic {
            delay: topic.delay,
            failures: u32::try_from(failures(topic.delay)).unwrap_or(u32::MAX),
            is_written: written.iter().any(|it| it.name == topic.name),
            is_shared: *is_shared,
            partitions: AtomicI32::new(found.get(&*topic.name).copied().unwrap_or_default()),
        });
        let read = read.collect();
        Self { names: topics.into_iter().map(|(topic, _)| topic.name).collect(), read }
    }

    /// Adds to some partitions of the requests topic those of the same number of the retry topics. The group knows
    /// nothing of retry topics: it would share all partitions out alike, and one instance might have nothing but such
    /// as are hardly ever used.
    pub(super) fn add_companions(&self, list: &mut TopicPartitionList) {
        let of_requests: Vec<i32> =
            self.lanes(list).iter().filter(|lane| lane.is_of_requests()).map(|lane| lane.partition).collect();
        for lane in self.companions(&of_requests) {
            list.add_partition(self.name(lane), lane.partition);
        }
    }

    /// Lists the partitions of the retry topics that go with these of the requests topic.
    pub(super) fn companions(&self, of_requests: &[i32]) -> Vec<LaneId> {
        let topics = self.read.iter().enumerate().skip(1);
        let companions = topics.flat_map(|(topic, read)| {
            let count = read.partitions.load(Ordering::Relaxed);
            let there = of_requests.iter().filter(move |partition| **partition < count);
            there.map(move |partition| LaneId { topic, partition: *partition })
        });
        companions.collect()
    }

    /// Notes that a topic has so many partitions now. True when these are more than before.
    pub(super) fn grows(&self, topic: usize, partitions: i32) -> bool {
        self.read[topic].partitions.fetch_max(partitions, Ordering::Relaxed) < partitions
    }

    /// Returns the next topic after this one in which requests of some of these partitions would be parked, and cannot
    /// be: the topic has no such partition.
    pub(super) fn incomplete(&self, of_requests: &[i32], after: usize) -> Option<usize> {
        let most = of_requests.iter().max()?;
        let is_short = |topic: &usize| {
            let read = &self.read[*topic];
            read.is_written && read.partitions.load(Ordering::Relaxed) <= *most
        };
        (after + 1..self.read.len()).chain(1..=after.min(self.read.len() - 1)).find(is_short)
    }

    /// Lists the names of the requests topic and the retry topics.
    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Returns how long a request waits in a lane's topic.
    pub(super) fn delay(&self, lane: LaneId) -> Duration {
        self.read[lane.topic].delay
    }

    /// Returns how often a request has failed that is parked in a lane's topic.
    pub(super) fn failures(&self, lane: LaneId) -> u32 {
        self.read[lane.topic].failures
    }

    /// Returns whether other groups may read the same topic, and have parked requests there.
    pub(super) fn is_shared(&self, lane: LaneId) -> bool {
        self.read[lane.topic].is_shared
    }

    /// Names the requests topic.
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

    /// Lists the lanes that a list names.
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

    /// Returns the position of a lane among the commits that the broker has told, if there is one. Another client's
    /// commit says no more than its offset.
    ///
    /// # Errors
    /// When the lane's commit is not among them.
    pub(super) fn committed(&self, list: &TopicPartitionList, id: LaneId) -> Result<Option<Position>, KafkaError> {
        let element = list.find_partition(self.name(id), id.partition);
        let element = element.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownPartition))?;
        element.error()?;
        let Offset::Offset(offset) = element.offset() else { return Ok(None) };
        Ok(Some(Position::of(offset, &element).unwrap_or(Position { offset, ..Position::default() })))
    }

    /// Converts positions to librdkafka's list.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Ordering as Order;

    fn config(ordering: Order) -> Kafka {
        Kafka {
            bootstrap_servers: "kafka:9092".to_owned(),
            requests_topic: "requests".to_owned(),
            retry_delays: vec![Duration::from_secs(1)],
            ordering,
            ..Kafka::default()
        }
    }

    fn found(topics: &[(&str, i32)]) -> BTreeMap<String, i32> {
        topics.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    /// Lists the companions of some partitions, as `<topic>/<partition>`.
    fn companions(topics: &Topics, of_requests: &[i32]) -> Vec<String> {
        let mut list = topics.list(of_requests.iter().map(|partition| LaneId { topic: 0, partition: *partition }));
        topics.add_companions(&mut list);
        let lanes = topics.lanes(&list).into_iter().filter(|lane| lane.topic > 0);
        lanes.map(|lane| format!("{}/{}", topics.name(lane), lane.partition)).collect()
    }

    #[test]
    fn retry_partitions_go_with_those_of_requests_topic() {
        let (overflow, second) = ("requests-retry-signalbox-0", "requests-retry-signalbox-1000");
        let topics = Topics::of(&config(Order::Unordered), &found(&[("requests", 3), (overflow, 3), (second, 1)]));
        let expected = [format!("{overflow}/0"), format!("{overflow}/2"), format!("{second}/0")];
        assert_eq!(companions(&topics, &[0, 2]), expected);
        let place = topics.lane(second, 0).unwrap().topic;
        assert_eq!((topics.incomplete(&[0], 0), topics.incomplete(&[0, 2], 0)), (None, Some(place)));
        assert_eq!(topics.incomplete(&[3], 0), topics.lane(overflow, 0).map(|lane| lane.topic));
        assert_eq!(topics.incomplete(&[3], 1), Some(place), "each has its turn");
        assert!(topics.grows(place, 3) && !topics.grows(place, 3) && !topics.grows(place, 1));
        assert_eq!(companions(&topics, &[2]), [format!("{overflow}/2"), format!("{second}/2")]);
    }

    #[test]
    fn topics_include_all_that_may_hold_parked_requests() {
        let there = [
            ("requests", 1),
            ("requests-retry-0", 1),
            ("requests-retry-1000", 1),
            ("requests-retry-9000", 1),
            ("requests-retry-another-1000", 1),
            ("requests-retry-signalbox-0", 1),
            ("requests-retry-signalbox-500", 1),
            ("others-retry-1000", 1),
        ];
        for ordering in [Order::Unordered, Order::Key, Order::Partition] {
            let topics = Topics::of(&config(ordering), &found(&there));
            let mut read = companions(&topics, &[0]);
            read.sort();
            let expected = ["0", "1000", "9000", "signalbox-0", "signalbox-500"];
            assert_eq!(read, expected.map(|name| format!("requests-retry-{name}/0")));
            let lane = |name: &str| topics.lane(&format!("requests-retry-{name}"), 0).unwrap();
            for (name, delay, failures, is_overflow, is_shared) in [
                ("signalbox-0", 0, 0, true, false),
                ("0", 0, 0, true, true),
                ("signalbox-500", 500, 0, false, false),
                ("1000", 1000, 1, false, true),
                ("9000", 9000, 1, false, true),
            ] {
                let lane = lane(name);
                assert_eq!((topics.delay(lane).as_millis(), topics.failures(lane)), (delay, failures), "{name}");
                assert_eq!((lane.is_overflow(), topics.is_shared(lane)), (is_overflow, is_shared), "{name}");
            }
        }
    }
}
