//! Reads the replies and the dead letters into a checker, committed ones only, from the first on.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};

use super::checker::{Checker, Position, Terminal};
use super::plan::Plan;
use super::report::Report;

const POLL: Duration = Duration::from_millis(50);
const ASK: Duration = Duration::from_secs(10);

/// Reads on a thread of its own.
pub(crate) struct Reader {
    bootstrap: String,
    topics: Topics,
    checker: Arc<Mutex<Checker>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<TopicPartitionList>,
}

#[derive(Clone)]
struct Topics {
    replies: String,
    dead_letters: String,
}

/// Ignores news of connections that come and go: the tests are about just that.
pub(super) struct Silent;
impl ClientContext for Silent {
    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, _facility: &str, _message: &str) {}
    fn error(&self, _error: KafkaError, _reason: &str) {}
}
impl ConsumerContext for Silent {}

impl Reader {
    pub(crate) fn start(plan: Plan, bootstrap: &str, replies: &str, dead_letters: &str) -> Self {
        let topics = Topics { replies: replies.to_owned(), dead_letters: dead_letters.to_owned() };
        let checker = Arc::new(Mutex::new(Checker::new(plan)));
        let stop = Arc::new(AtomicBool::new(false));
        let consumer = client(bootstrap, "checker");
        let mut positions = TopicPartitionList::new();
        for topic in [replies, dead_letters] {
            for partition in partitions(&consumer, topic) {
                positions.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
            }
        }
        consumer.assign(&positions).unwrap();
        let (read_topics, judge, stopped) = (topics.clone(), Arc::clone(&checker), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Some(Ok(record)) = consumer.poll(POLL) {
                    judge_record(&judge, &read_topics, &record, &mut positions);
                }
            }
            positions
        });
        Self { bootstrap: bootstrap.to_owned(), topics, checker, stop, thread }
    }

    /// Counts the different requests that have been answered, or need not be.
    pub(crate) fn answered(&self) -> u64 {
        self.checker.lock().unwrap().answered()
    }

    /// Asks for no reply to those of these requests that have none so far.
    pub(crate) fn excuse(&self, numbers: Range<u64>) {
        self.checker.lock().unwrap().excuse(numbers);
    }

    /// Returns the time that each of these requests took, and [`Duration::MAX`] for one that has no reply so far.
    pub(crate) fn latencies(&self, numbers: Range<u64>) -> Vec<Duration> {
        self.checker.lock().unwrap().latencies(numbers)
    }

    /// Reads to the end, when nobody writes any more, and gives the verdict.
    pub(crate) fn finish(self, sent: u64) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut positions = self.thread.join().unwrap();
        // The client is another one, for which every end of a partition is news.
        let consumer = client(&self.bootstrap, "checker-end");
        consumer.assign(&positions).unwrap();
        let (mut left, begun) = (positions.count(), Instant::now());
        while left > 0 {
            assert!(begun.elapsed() < Duration::from_secs(120), "the end of {left} partitions cannot be read");
            match consumer.poll(POLL) {
                Some(Ok(record)) => judge_record(&self.checker, &self.topics, &record, &mut positions),
                Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
                Some(Err(_)) | None => {}
            }
        }
        self.checker.lock().unwrap().report(sent)
    }
}

fn judge_record<M: Message>(checker: &Mutex<Checker>, topics: &Topics, record: &M, positions: &mut TopicPartitionList) {
    let at = Position::of(record);
    let terminal = Terminal::of(record);
    match record.topic() == topics.replies {
        true => checker.lock().unwrap().reply(&terminal),
        false => {
            debug_assert_eq!(record.topic(), topics.dead_letters);
            checker.lock().unwrap().dead_letter(terminal.id, at);
        }
    }
    positions.set_partition_offset(record.topic(), at.partition, Offset::Offset(at.offset + 1)).unwrap();
}

/// Waits until the group has committed the end of the requests topic, without anybody's help. Says how far the group is
/// when `limit` is over.
pub(crate) fn lag_vanishes(
    bootstrap: &str,
    group: &str,
    topic: &str,
    requests: u64,
    limit: Duration,
) -> Result<(), String> {
    let consumer = client(bootstrap, group);
    let begun = Instant::now();
    let partitions = partitions(&consumer, topic);
    loop {
        let said = match lag(&consumer, topic, &partitions) {
            Ok((0, end)) => {
                assert_eq!(end, requests, "the requests topic does not hold what was sent: the checker is wrong");
                return Ok(());
            }
            Ok((lag, end)) => format!("{lag} of {end} requests are not committed"),
            Err(error) => error.to_string(),
        };
        if begun.elapsed() > limit {
            return Err(format!("{limit:?} after the last answer, {said}"));
        }
        std::thread::sleep(POLL);
    }
}

/// Counts the requests that are not committed, and all there are.
fn lag(consumer: &BaseConsumer<Silent>, topic: &str, partitions: &[i32]) -> Result<(u64, u64), KafkaError> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(list, ASK)?;
    let (mut lag, mut all) = (0, 0);
    for element in committed.elements() {
        let (begin, end) = consumer.fetch_watermarks(topic, element.partition(), ASK)?;
        let done = match element.offset() {
            Offset::Offset(offset) => offset,
            _ => begin,
        };
        assert!(done <= end, "partition {}: {done} is committed, and {end} is the end", element.partition());
        lag += (end - done).unsigned_abs();
        all += end.unsigned_abs();
    }
    Ok((lag, all))
}

pub(super) fn partitions(consumer: &BaseConsumer<Silent>, topic: &str) -> Vec<i32> {
    let begun = Instant::now();
    loop {
        let found = consumer.fetch_metadata(Some(topic), ASK).ok().map(|metadata| {
            metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect::<Vec<_>>()
        });
        match found {
            Some(partitions) if !partitions.is_empty() => return partitions,
            _ => assert!(begun.elapsed() < 6 * ASK, "nobody knows the partitions of {topic}"),
        }
    }
}

pub(super) fn client(bootstrap: &str, group: &str) -> BaseConsumer<Silent> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "checker")
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .create_with_context(Silent)
        .unwrap()
}
