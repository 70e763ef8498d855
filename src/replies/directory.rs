//! Directory of the topics that records go to, as the brokers have them. Topics are looked up beside the hot path, so
//! that what can be known of a record's destination is known before the record is produced. Never creates a topic.

use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use rdkafka::error::RDKafkaErrorCode;
use tracing::debug;

use super::limits::RecordLimit;
use super::partitioner::partition_of;
use crate::broker::{BrokerError, Cluster, TopicLookup, TopicState};
use crate::config::Kafka;

/// Interval at which our own topics are looked up.
const REFRESH: Duration = Duration::from_secs(5);
/// Interval of the same while one of their partitions has no leader.
const REFRESH_SOON: Duration = Duration::from_millis(500);
/// Age from which a topic is looked up again when a record is to go there.
const FRESH: Duration = Duration::from_secs(5);
/// Age from which a missing topic is looked up again: it may just be being made.
const FRESH_MISSING: Duration = Duration::from_millis(250);
/// Time that a topic has to be missing until it counts as that.
const MISSING_FOR: Duration = Duration::from_secs(1);
/// Time for which a topic's size limit is believed.
const FRESH_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two questions to brokers that do not answer.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Most topics that are remembered. Their names come from any client that sends requests, so they must not fill the
/// memory.
const MAX_TOPICS: usize = 1_000;

/// Partition of a topic; without a number whichever the producer takes.
pub(super) type Destination = (Arc<str>, Option<i32>);

/// Knowledge of topics. Cheap to clone.
#[derive(Clone)]
pub(super) struct TopicDirectory {
    shared: Arc<DirectoryState>,
    questions: Sender<Arc<str>>,
}

struct DirectoryState {
    /// Topics that the config names.
    own: HashSet<Arc<str>>,
    /// True if each partition of our own topics has a leader, as far as is known.
    is_whole: AtomicBool,
    topics: ArcSwap<HashMap<Arc<str>, TopicEntry>>,
    /// Number of changes so far.
    version: AtomicU64,
    /// Topics that are being looked up.
    asked: Mutex<HashSet<Arc<str>>>,
    /// True if keys choose partitions as ours do.
    by_key: bool,
    limit: RecordLimit,
}

/// Topic, as it was when it was last looked up.
#[derive(Debug, Clone, PartialEq)]
struct TopicEntry {
    state: Existence,
    looked_up: Instant,
    /// Number of its partitions when it was first found: were those counted that are added meanwhile, keys would move
    /// between two of their replies.
    first_count: Option<i32>,
    /// Bytes that its records may have, as the topic says, and when it said so.
    limit: Option<(Option<u64>, Instant)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Existence {
    Missing(RDKafkaErrorCode, Instant),
    /// Leader of each partition, or the time since which there is none.
    There(Vec<Result<i32, Instant>>),
}

/// Status of the partition that a record is to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteStatus {
    /// The partition can be written to, as far as is known.
    Writable,
    /// The topic is not known yet, and will be soon.
    Unknown,
    /// There is no such topic, or not for us.
    NoTopic(RDKafkaErrorCode),
    /// The topic has no such partition.
    NoPartition,
    /// The partition has no leader since then.
    NoLeader(Instant),
}

impl TopicDirectory {
    /// Looks our own topics up, and starts the thread that goes on with that. Blocks; not for the runtime's workers.
    pub(super) fn start(config: &Kafka, cluster: &Arc<Cluster>) -> Result<Self, BrokerError> {
        let retry_topics = config.retry_topics();
        let own = [config.replies_topic.as_str(), &config.dead_letter_topic].map(Arc::from);
        let own = own.into_iter().chain(retry_topics.iter().map(|topic| topic.name.clone())).collect();
        let partitioner = config.properties.get("partitioner").map(String::as_str);
        let shared = Arc::new(DirectoryState {
            own,
            is_whole: AtomicBool::new(false),
            topics: ArcSwap::default(),
            version: AtomicU64::new(0),
            asked: Mutex::default(),
            by_key: matches!(partitioner, None | Some("murmur2" | "murmur2_random")),
            limit: RecordLimit::of(config),
        });
        let mut lookup_thread = LookupThread { lookup: cluster.topic_lookup()?, shared: Arc::downgrade(&shared) };
        lookup_thread.refresh(&shared);
        let (questions, receiver) = channel();
        let run = move || lookup_thread.run(&receiver);
        thread::Builder::new().name("topics".to_owned()).spawn(run).map_err(|_| BrokerError::Interrupted)?;
        Ok(Self { shared, questions })
    }

    /// Returns whether the config names this topic.
    pub(super) fn is_own(&self, topic: &str) -> bool {
        self.shared.own.contains(topic)
    }

    /// Returns a number that changes with all that is known.
    pub(super) fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// Returns the status of a partition, or of the one that the key chooses. Waits for nothing.
    pub(super) fn write_status(&self, topic: &Arc<str>, partition: Option<i32>, key: Option<&[u8]>) -> WriteStatus {
        let is_own = self.is_own(topic);
        if is_own && partition.is_none() && self.shared.is_whole.load(Ordering::Relaxed) {
            return WriteStatus::Writable;
        }
        let topics = self.known(topic);
        match topics.get(topic) {
            // The topic was there at the start.
            None if is_own => WriteStatus::Writable,
            None => WriteStatus::Unknown,
            Some(known) => known.write_status(partition, key.filter(|_| self.shared.by_key)),
        }
    }

    /// Returns how many partitions of a topic keys choose from; no number when there is no such topic. None while that
    /// is not known, and will be soon.
    pub(super) fn partition_count(&self, topic: &Arc<str>) -> Option<Option<i32>> {
        let topics = self.known(topic);
        let known = topics.get(topic)?;
        let is_missing = || matches!(known.write_status(None, None), WriteStatus::NoTopic(_));
        (known.first_count.is_some() || is_missing()).then_some(known.first_count)
    }

    /// Returns what is known of all topics, and has this one looked up unless that is fresh.
    fn known(&self, topic: &Arc<str>) -> Guard<Arc<HashMap<Arc<str>, TopicEntry>>> {
        let topics = self.shared.topics.load();
        let is_fresh = |known: &TopicEntry| known.looked_up.elapsed() <= known.fresh_for();
        if !self.is_own(topic) && !topics.get(topic).is_some_and(is_fresh) {
            self.look_up(topic);
        }
        topics
    }

    /// Returns the partition that a record goes to, as far as it can be told.
    pub(super) fn partition(&self, topic: &str, partition: Option<i32>, key: Option<&[u8]>) -> Option<i32> {
        partition.or_else(|| match &self.shared.topics.load().get(topic)?.state {
            Existence::There(partitions) if self.shared.by_key => {
                Some(partition_of(key?, i32::try_from(partitions.len()).ok()?))
            }
            _ => None,
        })
    }

    /// Returns how many bytes a record for this topic may have.
    pub(super) fn largest_record(&self, topic: &str) -> usize {
        let of_topic = self.shared.topics.load().get(topic).and_then(|topic| topic.limit?.0);
        self.shared.limit.of_topic(of_topic)
    }

    /// Has a topic looked up anew: something has happened there.
    pub(super) fn look_up(&self, topic: &Arc<str>) {
        let mut asked = self.shared.asked.lock();
        if asked.insert(topic.clone()) {
            // The thread ends only with the directory.
            let _ = self.questions.send(topic.clone());
        }
    }
}

impl TopicEntry {
    fn fresh_for(&self) -> Duration {
        match self.state {
            Existence::Missing(..) => FRESH_MISSING,
            Existence::There(_) => FRESH,
        }
    }

    fn write_status(&self, partition: Option<i32>, key: Option<&[u8]>) -> WriteStatus {
        let partitions = match &self.state {
            Existence::There(partitions) => partitions,
            Existence::Missing(code, since) if since.elapsed() >= MISSING_FOR => return WriteStatus::NoTopic(*code),
            Existence::Missing(..) => return WriteStatus::Unknown,
        };
        let by_key = || Some(partition_of(key?, i32::try_from(partitions.len()).ok()?));
        match partition.or_else(by_key) {
            Some(index) => match usize::try_from(index).ok().and_then(|index| partitions.get(index)) {
                Some(leader) => leader.map_or_else(WriteStatus::NoLeader, |_| WriteStatus::Writable),
                None => WriteStatus::NoPartition,
            },
            // librdkafka takes a partition that has a leader.
            None => {
                let since = partitions.iter().filter_map(|leader| leader.err()).max();
                let is_away = partitions.iter().all(Result::is_err);
                since.filter(|_| is_away).map_or(WriteStatus::Writable, WriteStatus::NoLeader)
            }
        }
    }

    /// Replaces what was known by what was found out, but for the times since when it has been so.
    fn renewed(before: Option<&Self>, state: TopicState, now: Instant) -> Self {
        let state = match state {
            TopicState::Missing(code) => match before.map(|topic| &topic.state) {
                Some(Existence::Missing(_, since)) => Existence::Missing(code, *since),
                _ => Existence::Missing(code, now),
            },
            TopicState::There(leaders) => {
                let earlier = |index: usize| match before.map(|topic| &topic.state) {
                    Some(Existence::There(partitions)) => partitions.get(index)?.err(),
                    _ => None,
                };
                let leader =
                    |(index, leader): (usize, Option<i32>)| leader.ok_or_else(|| earlier(index).unwrap_or(now));
                Existence::There(leaders.into_iter().enumerate().map(leader).collect())
            }
        };
        let count = || match &state {
            Existence::There(partitions) => i32::try_from(partitions.len()).ok(),
            Existence::Missing(..) => None,
        };
        let first_count = before.and_then(|topic| topic.first_count).or_else(count);
        Self { state, looked_up: now, first_count, limit: before.and_then(|topic| topic.limit) }
    }

    fn is_there(&self) -> bool {
        matches!(self.state, Existence::There(_))
    }

    /// Returns whether each partition has a leader.
    fn is_whole(&self) -> bool {
        matches!(&self.state, Existence::There(partitions) if partitions.iter().all(Result::is_ok))
    }
}

/// Thread that asks the brokers.
struct LookupThread {
    lookup: TopicLookup,
    shared: Weak<DirectoryState>,
}

impl LookupThread {
    fn run(mut self, questions: &Receiver<Arc<str>>) {
        let mut refreshed = Instant::now();
        loop {
            let Some(shared) = self.shared.upgrade() else { return };
            let every = if shared.is_whole.load(Ordering::Relaxed) { REFRESH } else { REFRESH_SOON };
            drop(shared);
            let question = questions.recv_timeout(every.saturating_sub(refreshed.elapsed()));
            let Some(shared) = self.shared.upgrade() else { return };
            match question {
                Ok(topic) => {
                    let answered = self.ask(&shared, &topic);
                    shared.asked.lock().remove(&topic);
                    if !answered {
                        thread::sleep(AGAIN_AFTER);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.refresh(&shared);
                    refreshed = Instant::now();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn refresh(&mut self, shared: &DirectoryState) {
        let answered = shared.own.iter().all(|topic| self.ask(shared, topic));
        if !answered {
            debug!("the brokers do not answer questions about our topics");
        }
    }

    /// Looks a topic up. Returns whether a broker has answered.
    fn ask(&mut self, shared: &DirectoryState, topic: &Arc<str>) -> bool {
        let state = match self.lookup.state(topic) {
            Ok(Some(state)) => state,
            // The topic is being made.
            Ok(None) => return true,
            Err(error) => {
                debug!(%topic, %error, "the state of a topic is not known");
                return false;
            }
        };
        let (topics, now) = (shared.topics.load(), Instant::now());
        let before = topics.get(topic);
        let mut renewed = TopicEntry::renewed(before, state, now);
        // A size limit hardly ever changes, and asking for it costs another request.
        let is_old = renewed.limit.is_none_or(|(_, said)| said.elapsed() > FRESH_LIMIT);
        if is_old && renewed.is_there() {
            renewed.limit = Some((self.lookup.largest_record(topic), now));
        }
        let changed = before.is_none_or(|before| before.state != renewed.state || before.limit != renewed.limit);
        // The map is replaced as a whole, so that readers take no lock.
        let mut all = HashMap::clone(&topics);
        if all.len() >= MAX_TOPICS {
            all.retain(|name, topic| shared.own.contains(name) || topic.looked_up.elapsed() < FRESH * 10);
        }
        all.insert(topic.clone(), renewed);
        let whole = |name: &Arc<str>| all.get(name).is_some_and(TopicEntry::is_whole);
        shared.is_whole.store(shared.own.iter().all(whole), Ordering::Relaxed);
        shared.topics.store(Arc::new(all));
        // A missing topic counts as missing only after a while, which changes its status without any news.
        if changed || before.is_some_and(|before| !before.is_there()) {
            shared.version.fetch_add(1, Ordering::AcqRel);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(leaders: &[Option<i32>]) -> TopicState {
        TopicState::There(leaders.to_vec())
    }

    #[test]
    fn partition_is_without_leader_since_first_seen_so() {
        let now = Instant::now();
        let later = now + Duration::from_secs(3);
        let first = TopicEntry::renewed(None, there(&[Some(1), None]), now);
        let topic = TopicEntry::renewed(Some(&first), there(&[Some(1), None, None]), later);
        assert_eq!(topic.write_status(Some(0), None), WriteStatus::Writable);
        assert_eq!(topic.write_status(Some(1), None), WriteStatus::NoLeader(now));
        assert_eq!(topic.write_status(Some(2), None), WriteStatus::NoLeader(later));
        assert_eq!(topic.write_status(Some(3), None), WriteStatus::NoPartition);
        assert_eq!(topic.write_status(Some(-1), None), WriteStatus::NoPartition);
        assert_eq!(topic.write_status(None, None), WriteStatus::Writable, "any that has a leader will do");
        let key = (0..100_u8).find(|key| partition_of(&[*key], 3) == 2).unwrap();
        assert_eq!(topic.write_status(None, Some(&[key])), WriteStatus::NoLeader(later));
        assert!(!topic.is_whole());
        let back = TopicEntry::renewed(Some(&topic), there(&[Some(2), Some(2), Some(2)]), later);
        assert!(back.is_whole());
        assert_eq!(back.first_count, Some(2), "as it was when it was first found");
        assert_eq!(back.write_status(None, Some(&[key])), WriteStatus::Writable);
    }

    #[test]
    fn topic_counts_as_missing_after_a_while() {
        let now = Instant::now();
        let Some(then) = now.checked_sub(MISSING_FOR) else { return };
        let code = RDKafkaErrorCode::UnknownTopicOrPartition;
        let fresh = TopicEntry::renewed(None, TopicState::Missing(code), now);
        assert_eq!(fresh.write_status(None, None), WriteStatus::Unknown);
        let first = TopicEntry::renewed(None, TopicState::Missing(code), then);
        let again = TopicEntry::renewed(Some(&first), TopicState::Missing(code), now);
        assert_eq!(again.write_status(None, None), WriteStatus::NoTopic(code));
        assert_eq!(
            TopicEntry::renewed(Some(&again), there(&[Some(1)]), now).write_status(None, None),
            WriteStatus::Writable
        );
    }
}
