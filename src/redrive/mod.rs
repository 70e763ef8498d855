//! Sends dead letters back to the topic that they came from, each exactly once.
//!
//! One transaction holds a batch of letters and the checkpoint that says they were sent. The checkpoint is a commit of
//! the group `<group_id>-redrive` to the dead-letter topic: an offset before which all letters were sent, and in its
//! metadata which filters have sent how many of the later letters ([`checkpoint`]). So the letters that a filter leaves
//! out stay where they are, for another run, however many they are; and the next run goes on where a killed run has
//! stopped.

mod checkpoint;
mod dead_letter;
mod error;
mod partition;
mod selector;
mod sender;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::identity;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::broker::{BrokerContext, Cluster, is_connection_error};
use crate::config::Config;
use crate::intake::copy_record;
use checkpoint::MAX_METADATA_BYTES;
use dead_letter::DeadLetter;
pub use error::RedriveError;
use partition::{BROKER_TIMEOUT, DeadLetterPartition, positions};
pub use selector::Filter;
use selector::{Selection, Selector};
use sender::TransactionalSender;

/// Longest wait of one poll for a letter; a silent broker is noticed that much later than its timeout.
const POLL: Duration = Duration::from_millis(100);
/// Letters of one transaction. Readers of the requests topic wait until a transaction has ended, so more letters in one
/// are a longer wait for them.
const BATCH: usize = 500;
/// Bytes of letters in one transaction; a batch ends with the letter that reaches this limit.
const BATCH_BYTES: usize = 8 << 20;
/// Bytes of the checkpoint's metadata that runs with a filter leave free for a run without one, after which there is
/// nothing left to note.
const RESERVED_METADATA_BYTES: usize = 400;

/// Sends dead letters back, as far as its filter and its limit allow.
#[derive(Debug, Clone, Default)]
pub struct Redrive {
    /// The filter that selects letters.
    pub filter: Filter,
    /// The greatest number of letters to send.
    pub limit: Option<u64>,
    /// Counts letters instead of sending them.
    pub dry_run: bool,
}

/// Tells how far a run has come, in offsets.
#[derive(Debug, Clone, Copy)]
pub struct RedriveProgress {
    /// Offsets that were looked at.
    pub done: u64,
    /// Offsets that there were when the run began.
    pub of: u64,
    /// Letters that were sent, or would be by a run that is not dry.
    pub sent: u64,
}

/// Counts the letters of a run by what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedriveSummary {
    /// Letters that were sent, or would be by a run that is not dry, by code and endpoint.
    pub sent: BTreeMap<(String, String), u64>,
    /// Letters that the filter has left out.
    pub filtered: u64,
    /// Letters that have come from other topics.
    pub foreign: u64,
    /// Letters that have lost their value, since they were too large with it.
    pub hollow: u64,
}

impl RedriveSummary {
    /// Sums up the letters that were sent.
    pub fn total(&self) -> u64 {
        self.sent.values().sum()
    }

    /// Tells whether the run has found no letter that had not been sent before.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Runs once over the dead-letter topic, and owns the clients for that.
struct Run<'a> {
    redrive: &'a Redrive,
    selector: Selector,
    /// Partitions of the requests topic.
    request_partitions: i32,
    dead_letters: Arc<str>,
    consumer: BaseConsumer<BrokerContext>,
    sender: Option<TransactionalSender>,
    partitions: BTreeMap<i32, DeadLetterPartition>,
    batch: Vec<DeadLetter>,
    bytes: usize,
    summary: RedriveSummary,
}

impl Redrive {
    /// Sends back the letters that are in the dead-letter topic at the start. Blocks; not for a runtime's workers.
    ///
    /// # Errors
    /// When the broker or its topics are not there, or do not take part. The checkpoint has what was sent until then,
    /// so the next run goes on from there.
    pub fn run(&self, config: &Config, progress: impl Fn(RedriveProgress)) -> Result<RedriveSummary, RedriveError> {
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
        // The producer comes before any question: opening it ends the transaction that an earlier run may have left
        // open, and fences a run that is still at work.
        let sender = (!self.dry_run).then(|| TransactionalSender::open(&cluster, &group)).transpose()?;
        let settings = [
            ("group.id", &*group),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
        ];
        let consumer = cluster.client("redrive", &settings, identity)?;
        let topic = &*kafka.dead_letter_topic;
        let selector = Selector {
            filter: self.filter.clone(),
            requests: kafka.requests_topic.clone(),
            only_endpoint: match &config.model_endpoints[..] {
                [only] => Some(only.name.clone()),
                _ => None,
            },
        };
        let run = Run {
            redrive: self,
            selector,
            request_partitions: requests,
            dead_letters: topic.into(),
            partitions: positions(&consumer, topic, dead_letters, &group)?,
            consumer,
            sender,
            batch: Vec::new(),
            bytes: 0,
            summary: RedriveSummary::default(),
        };
        run.finish_all(progress)
    }
}

impl Run<'_> {
    fn finish_all(mut self, progress: impl Fn(RedriveProgress)) -> Result<RedriveSummary, RedriveError> {
        let is_unfiltered = self.selector.filter == Filter::default();
        let room = if is_unfiltered { MAX_METADATA_BYTES } else { MAX_METADATA_BYTES - RESERVED_METADATA_BYTES };
        // Refuse before the first letter is sent: a checkpoint that does not fit could not be committed later.
        for (number, partition) in self.partitions.iter_mut().filter(|(_, partition)| !partition.is_done()) {
            if partition.begin(&self.selector) > room {
                return Err(RedriveError::TooManyFilters { partition: *number });
            }
        }
        let mut assignment = TopicPartitionList::new();
        // Assign, not subscribe: the end of each partition is fixed, and no rebalance may move it.
        for (number, partition) in self.partitions.iter().filter(|(_, partition)| !partition.is_done()) {
            let added = assignment.add_partition_offset(&self.dead_letters, *number, Offset::Offset(partition.next));
            added.map_err(RedriveError::Reading)?;
        }
        self.consumer.assign(&assignment).map_err(RedriveError::Reading)?;
        let of: u64 = self.partitions.values().map(DeadLetterPartition::remaining).sum();
        // Read every partition up to the end that it had at the start, in transactions of at most one batch.
        let mut heard = Instant::now();
        while self.partitions.values().any(|partition| !partition.is_done()) && self.is_below_limit() {
            match self.consumer.poll(POLL) {
                None if heard.elapsed() > BROKER_TIMEOUT => return Err(RedriveError::Silent),
                None => continue,
                // Control records of transactions may take up the last offsets, so the end is not always a letter's.
                Some(Err(KafkaError::PartitionEOF(number))) => self.finish(number),
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_connection_error) => continue,
                Some(Err(error)) => return Err(RedriveError::Reading(error)),
                Some(Ok(message)) => {
                    let (number, offset) = (message.partition(), message.offset());
                    let (letter, readable) = copy_record(&message, &self.dead_letters);
                    drop(message);
                    self.look_at(number, offset, DeadLetter::new(letter, readable));
                }
            }
            heard = Instant::now();
            if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES {
                self.send()?;
            }
            let left: u64 = self.partitions.values().map(DeadLetterPartition::remaining).sum();
            progress(RedriveProgress { done: of - left, of, sent: self.summary.total() });
        }
        self.send()?;
        Ok(self.summary)
    }

    fn is_below_limit(&self) -> bool {
        self.redrive.limit.is_none_or(|limit| self.summary.total() < limit)
    }

    fn finish(&mut self, number: i32) {
        if let Some(partition) = self.partitions.get_mut(&number) {
            partition.next = partition.end;
        }
    }

    fn look_at(&mut self, number: i32, offset: i64, letter: DeadLetter) {
        let partition = self.partitions.get_mut(&number).filter(|partition| !partition.is_done());
        let Some(partition) = partition else { return };
        // A letter that came after the start is another run's.
        if offset >= partition.end {
            return self.finish(number);
        }
        partition.next = offset + 1;
        if partition.was_sent(&letter) {
            return;
        }
        // A letter that is not sent is counted by its reason, and noted in the checkpoint of its partition.
        let unsent = match self.selector.select(&letter) {
            Selection::Selected { code, endpoint } => {
                *self.summary.sent.entry((code, endpoint)).or_default() += 1;
                self.bytes += letter.size();
                self.batch.push(letter);
                return;
            }
            Selection::Foreign => &mut self.summary.foreign,
            Selection::Hollow => &mut self.summary.hollow,
            Selection::Filtered => &mut self.summary.filtered,
        };
        *unsent += 1;
        partition.skip(&letter);
    }

    /// Sends the batch and commits the checkpoint in one transaction.
    fn send(&mut self) -> Result<(), RedriveError> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let Some(sender) = self.sender.as_ref().filter(|_| !batch.is_empty()) else { return Ok(()) };
        // Only partitions with letters in this batch have anything new to commit.
        let numbers: BTreeSet<i32> = batch.iter().map(DeadLetter::partition).collect();
        let mut offsets = TopicPartitionList::new();
        for number in numbers {
            let Some(partition) = self.partitions.get(&number) else { continue };
            let checkpoint = partition.checkpoint();
            let mut element = offsets.add_partition(&self.dead_letters, number);
            element.set_metadata(checkpoint.metadata());
            element.set_offset(Offset::Offset(checkpoint.offset)).map_err(RedriveError::Reading)?;
        }
        // Metadata of a consumer that has not joined stands for any member of its group.
        let group = self.consumer.group_metadata().ok_or(RedriveError::Reading(KafkaError::Canceled))?;
        let records = batch.iter().map(|letter| letter.restore(&self.selector.requests, self.request_partitions));
        sender.send(records, &offsets, &group)
    }
}
