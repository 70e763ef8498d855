//! Dead letters are sent back to the topic that they came from, each exactly once.
//!
//! A batch of them and the note that they were sent go in one transaction. The note is a commit of the group
//! `<group_id>-redrive` to the dead-letter topic: an offset before which all were sent, and in its metadata by which
//! filters how many of the later ones were ([`notes`]). So those that a filter leaves stay where they are, for another
//! run, however many they are; and a run that is killed is gone on with by the next.

mod choice;
mod error;
mod lane;
mod letter;
mod notes;
mod sender;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::identity;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::broker::{BrokerContext, Cluster, is_connection_trouble};
use crate::config::Config;
use crate::intake::request_from;
use choice::Choice;
pub use choice::Filter;
pub use error::RedriveError;
use lane::{Lane, positions};
use letter::{Letter, Verdict};
use notes::LONGEST;
use sender::Sender;

/// How long the broker is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one poll waits for a letter.
const POLL: Duration = Duration::from_millis(100);
/// Letters of one transaction, which readers of the requests topic wait for.
const BATCH: usize = 500;
/// The same in bytes.
const BATCH_BYTES: usize = 8 << 20;
/// How many bytes of notes are kept free for a run without a filter, after which there is nothing to be noted any more.
const KEPT_FREE: usize = 400;

/// What is to be sent back.
#[derive(Debug, Clone, Default)]
pub struct Redrive {
    /// Which letters.
    pub filter: Filter,
    /// How many at most.
    pub limit: Option<u64>,
    /// Whether only to count.
    pub dry_run: bool,
}

/// How far a run is, in offsets.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Looked at.
    pub done: u64,
    /// Of these.
    pub of: u64,
    /// Sent, or to be sent.
    pub sent: u64,
}

/// What a run has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Letters sent, or with a dry run to be sent, by code and endpoint.
    pub sent: BTreeMap<(String, String), u64>,
    /// Letters that the filter has left.
    pub filtered: u64,
    /// Letters that have come from other topics.
    pub foreign: u64,
    /// Letters that have lost their value, since they were too large with it.
    pub hollow: u64,
}

impl Summary {
    /// All letters sent.
    pub fn total(&self) -> u64 {
        self.sent.values().sum()
    }

    /// Whether there was any letter that had not been sent before.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A run.
struct Run<'a> {
    redrive: &'a Redrive,
    choice: Choice,
    partitions: i32,
    dead_letters: Arc<str>,
    consumer: BaseConsumer<BrokerContext>,
    sender: Option<Sender>,
    lanes: BTreeMap<i32, Lane>,
    batch: Vec<Letter>,
    bytes: usize,
    summary: Summary,
}

impl Redrive {
    /// Sends back what was in the dead-letter topic when it began. Blocks; not for a runtime's workers.
    ///
    /// # Errors
    /// When the broker or its topics are not there, or do not take part. Whatever was sent until then is noted, so the
    /// next run goes on from there.
    pub fn run(&self, config: &Config, progress: impl Fn(Progress)) -> Result<Summary, RedriveError> {
        let kafka = &config.kafka;
        if kafka.is_embedded() {
            return Err(RedriveError::Embedded);
        }
        let cluster = Cluster::new(kafka)?;
        let partitions = |key, topic: &str| {
            let count = cluster.partitions(topic)?;
            count.ok_or_else(|| RedriveError::MissingTopic { topic: topic.to_owned(), key })
        };
        let dead_letters = partitions("kafka.dead_letter_topic", &kafka.dead_letter_topic)?;
        let requests = partitions("kafka.requests_topic", &kafka.requests_topic)?;
        let group = format!("{}-redrive", kafka.group_id);
        // Before anything is asked: it ends what an earlier run may have left open, or may still be at.
        let sender = (!self.dry_run).then(|| Sender::open(&cluster, &group)).transpose()?;
        let settings = [
            ("group.id", &*group),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
        ];
        let consumer = cluster.client("redrive", &settings, identity)?;
        let topic = &*kafka.dead_letter_topic;
        let choice = Choice {
            filter: self.filter.clone(),
            requests: kafka.requests_topic.clone(),
            only_endpoint: match &config.model_endpoints[..] {
                [only] => Some(only.name.clone()),
                _ => None,
            },
        };
        let run = Run {
            redrive: self,
            choice,
            partitions: requests,
            dead_letters: topic.into(),
            lanes: positions(&consumer, topic, dead_letters, &group)?,
            consumer,
            sender,
            batch: Vec::new(),
            bytes: 0,
            summary: Summary::default(),
        };
        run.go(progress)
    }
}

impl Run<'_> {
    fn go(mut self, progress: impl Fn(Progress)) -> Result<Summary, RedriveError> {
        let room = if self.choice.filter == Filter::default() { LONGEST } else { LONGEST - KEPT_FREE };
        for (partition, lane) in self.lanes.iter_mut().filter(|(_, lane)| !lane.is_done()) {
            if lane.begin(&self.choice) > room {
                return Err(RedriveError::TooManyFilters { partition: *partition });
            }
        }
        let mut assignment = TopicPartitionList::new();
        for (partition, lane) in self.lanes.iter().filter(|(_, lane)| !lane.is_done()) {
            let added = assignment.add_partition_offset(&self.dead_letters, *partition, Offset::Offset(lane.next));
            added.map_err(RedriveError::Reading)?;
        }
        self.consumer.assign(&assignment).map_err(RedriveError::Reading)?;
        let of: u64 = self.lanes.values().map(Lane::left).sum();
        let mut heard = Instant::now();
        while self.lanes.values().any(|lane| !lane.is_done()) && self.may_take_more() {
            match self.consumer.poll(POLL) {
                None if heard.elapsed() > PATIENCE => return Err(RedriveError::Silent),
                None => continue,
                Some(Err(KafkaError::PartitionEOF(partition))) => self.finish(partition),
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_connection_trouble) => continue,
                Some(Err(error)) => return Err(RedriveError::Reading(error)),
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let (letter, readable) = request_from(&message, &self.dead_letters);
                    drop(message);
                    self.look_at(partition, offset, Letter::new(letter, readable));
                }
            }
            heard = Instant::now();
            if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES {
                self.send()?;
            }
            let left: u64 = self.lanes.values().map(Lane::left).sum();
            progress(Progress { done: of - left, of, sent: self.summary.total() });
        }
        self.send()?;
        Ok(self.summary)
    }

    fn may_take_more(&self) -> bool {
        self.redrive.limit.is_none_or(|limit| self.summary.total() < limit)
    }

    fn finish(&mut self, partition: i32) {
        if let Some(lane) = self.lanes.get_mut(&partition) {
            lane.next = lane.end;
        }
    }

    fn look_at(&mut self, partition: i32, offset: i64, letter: Letter) {
        let Some(lane) = self.lanes.get_mut(&partition).filter(|lane| !lane.is_done()) else { return };
        if offset >= lane.end {
            return self.finish(partition);
        }
        lane.next = offset + 1;
        if lane.has(&letter) {
            return;
        }
        let left = match letter.verdict(&self.choice) {
            Verdict::Chosen { code, endpoint } => {
                *self.summary.sent.entry((code, endpoint)).or_default() += 1;
                self.bytes += letter.size();
                self.batch.push(letter);
                return;
            }
            Verdict::Foreign => &mut self.summary.foreign,
            Verdict::Hollow => &mut self.summary.hollow,
            Verdict::Filtered => &mut self.summary.filtered,
        };
        *left += 1;
        lane.leave(&letter);
    }

    /// Sends the batch, and notes that it was sent, or neither.
    fn send(&mut self) -> Result<(), RedriveError> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let Some(sender) = self.sender.as_ref().filter(|_| !batch.is_empty()) else { return Ok(()) };
        let partitions: BTreeSet<i32> = batch.iter().map(Letter::partition).collect();
        let mut offsets = TopicPartitionList::new();
        for partition in partitions {
            let Some(notes) = self.lanes.get(&partition).map(Lane::notes) else { continue };
            let mut element = offsets.add_partition(&self.dead_letters, partition);
            element.set_metadata(notes.metadata());
            element.set_offset(Offset::Offset(notes.offset)).map_err(RedriveError::Reading)?;
        }
        // One that has not joined stands for any of its group.
        let group = self.consumer.group_metadata().ok_or(RedriveError::Reading(KafkaError::Canceled))?;
        let records = batch.iter().map(|letter| letter.restored(&self.choice.requests, self.partitions));
        sender.send(records, &offsets, &group)
    }
}
