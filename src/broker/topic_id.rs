//! Topic ids, which tell apart the topics that have borne one name.
//!
//! An offset names a record only together with its topic, and a topic that is deleted and made again counts from 0 once
//! more. Kafka gives each an id of its own. librdkafka knows the id, fetches by it, and shows it only in one line of
//! its log for debugging (`debug: metadata`), which comes to us before any record of the other topic does. Brokers
//! before Kafka 2.8 have no ids; there a topic counts as the one that it was.

use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};

use xxhash_rust::xxh3::xxh3_64;

/// Setting of a client that is to know the ids of its topics: it makes librdkafka log them.
pub const TOPIC_IDS: (&str, &str) = ("debug", "metadata");

/// Facility of librdkafka's log lines that come with [`TOPIC_IDS`].
pub(super) const FACILITY: &str = "METADATA";

/// Id of a topic, hashed to eight bytes so that it fits into a commit's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicId(NonZeroU64);

/// Ids of the topics that a client knows.
#[derive(Debug, Default)]
pub struct TopicIds {
    state: Mutex<KnownTopics>,
    /// True if some topic is another one than before; looked at for every record.
    is_any_anew: AtomicBool,
}

#[derive(Debug, Default)]
struct KnownTopics {
    known: BTreeMap<String, TopicId>,
    anew: Vec<String>,
}

impl TopicId {
    /// Decodes the id from its number.
    pub fn of_number(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// Encodes the id as a number; never 0.
    pub fn number(self) -> u64 {
        self.0.get()
    }

    fn of_text(text: &str) -> Option<Self> {
        Self::of_number(xxh3_64(text.as_bytes()))
    }
}

impl TopicIds {
    /// Returns the id of a topic, once that is known.
    pub fn of(&self, topic: &str) -> Option<TopicId> {
        self.state().known.get(topic).copied()
    }

    /// Returns whether [`take_anew`](Self::take_anew) has any topic to return.
    pub fn is_any_anew(&self) -> bool {
        self.is_any_anew.load(Ordering::Acquire)
    }

    /// Takes the topics that were deleted and made again since the last call.
    pub fn take_anew(&self) -> Vec<String> {
        self.is_any_anew.store(false, Ordering::Release);
        std::mem::take(&mut self.state().anew)
    }

    /// Takes in a line of librdkafka's log.
    pub(super) fn note(&self, line: &str) {
        let Some((topic, id)) = read(line) else { return };
        let mut state = self.state();
        let before = state.known.insert(topic.to_owned(), id);
        if before.is_some_and(|before| before != id) && !state.anew.iter().any(|anew| anew == topic) {
            state.anew.push(topic.to_owned());
            self.is_any_anew.store(true, Ordering::Release);
        }
    }

    fn state(&self) -> MutexGuard<'_, KnownTopics> {
        self.state.lock()
    }
}

/// Reads the topic and its id in `[thrd:main]: Topic <name> changed id from <id> to <id>`.
fn read(line: &str) -> Option<(&str, TopicId)> {
    let (_, rest) = line.split_once("Topic ")?;
    let (topic, ids) = rest.split_once(" changed id from ")?;
    let (_, id) = ids.split_once(" to ")?;
    Some((topic, TopicId::of_text(id)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_is_another_when_its_id_changes() {
        let ids = TopicIds::default();
        ids.note("[thrd:main]: Topic requests changed id from AAAAAAAAAAAAAAAAAAAAAA to Zm9vYmFyYmF6Zm9vYmFyYg");
        ids.note("[thrd:main]: Topic requests [0] Leader 1 Epoch 0");
        let first = ids.of("requests");
        assert!(first.is_some() && ids.of("replies").is_none());
        assert!(!ids.is_any_anew(), "it is known for the first time");
        ids.note("Topic requests changed id from Zm9vYmFyYmF6Zm9vYmFyYg to b3RoZXJ0b3BpY290aGVydA");
        assert!(ids.is_any_anew() && ids.of("requests") != first);
        assert_eq!(ids.take_anew(), ["requests"]);
        assert!(!ids.is_any_anew() && ids.take_anew().is_empty());
    }
}
