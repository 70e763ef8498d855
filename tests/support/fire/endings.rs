//! Reads how requests ended that are in no plan, by the place in the requests topic that their endings name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::reader::{client, partitions};

const POLL: Duration = Duration::from_millis(50);

/// Names a partition and an offset of the requests topic.
pub(crate) type Source = (i32, i64);

/// Describes the end of a request.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    /// The time at which the end was first seen.
    pub(crate) at: Instant,
    /// The records of the end, such as `413` for a fault with that status, and `letter` for a dead letter, each as
    /// often as it came.
    pub(crate) records: Vec<String>,
}

/// Reads on a thread of its own, committed records only, from the first on.
pub(crate) struct Endings {
    found: Arc<Mutex<HashMap<Source, Ending>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Endings {
    /// Reads these topics for what was in that requests topic.
    pub(crate) fn start(bootstrap: &str, requests: &str, topics: &[&str]) -> Self {
        let consumer = client(bootstrap, "endings");
        let mut positions = TopicPartitionList::new();
        for topic in topics {
            for partition in partitions(&consumer, topic) {
                positions.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
            }
        }
        consumer.assign(&positions).unwrap();
        let (found, stop) = (Arc::new(Mutex::new(HashMap::new())), Arc::new(AtomicBool::new(false)));
        let (noted, stopped, requests) = (Arc::clone(&found), Arc::clone(&stop), requests.to_owned());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Some(Ok(record)) = consumer.poll(POLL) {
                    note(&noted, &requests, &record);
                }
            }
        });
        Self { found, stop, thread: Some(thread) }
    }

    /// Returns the end of this request, if it has ended.
    pub(crate) fn of(&self, source: Source) -> Option<Ending> {
        self.found.lock().unwrap().get(&source).cloned()
    }
}

impl Drop for Endings {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn note(found: &Mutex<HashMap<Source, Ending>>, requests: &str, record: &BorrowedMessage<'_>) {
    let Some((source, what)) = replied(record, requests).or_else(|| buried(record, requests)) else { return };
    let mut found = found.lock().unwrap();
    let ending = found.entry(source).or_insert_with(|| Ending { at: Instant::now(), records: Vec::new() });
    ending.records.push(what);
}

/// Reads a reply or a fault, whose header `source` says `topic/partition/offset`.
fn replied(record: &BorrowedMessage<'_>, requests: &str) -> Option<(Source, String)> {
    let source = std::str::from_utf8(header(record, "source")?).ok()?;
    let (partition, offset) = source.strip_prefix(requests)?.strip_prefix('/')?.split_once('/')?;
    let status = String::from_utf8_lossy(header(record, "status")?).into_owned();
    Some(((partition.parse().ok()?, offset.parse().ok()?), status))
}

/// Reads a dead letter, whose Spring headers say where it came from.
fn buried(record: &BorrowedMessage<'_>, requests: &str) -> Option<(Source, String)> {
    let partition = header(record, "kafka_dlt-original-partition")?.try_into().ok()?;
    let offset = header(record, "kafka_dlt-original-offset")?.try_into().ok()?;
    let ours = header(record, "kafka_dlt-original-topic") == Some(requests.as_bytes());
    ours.then(|| ((i32::from_be_bytes(partition), i64::from_be_bytes(offset)), "letter".to_owned()))
}

/// Returns the last header of that name: a dead letter begins with the request's own.
fn header<'a>(record: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a [u8]> {
    let headers = record.headers()?;
    (0..headers.count()).rev().map(|at| headers.get(at)).find(|header| header.key == name)?.value
}
