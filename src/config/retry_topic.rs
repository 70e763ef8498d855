//! The retry topics that follow from `kafka.retry_delays`.

use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::name::MAX_TOPIC;
use super::{Kafka, Ordering};

/// Digits of the longest delay in milliseconds.
const MAX_DIGITS: usize = 8;

/// A retry topic, in which requests are parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryTopic {
    /// `<requests_topic>-retry-<group_id>-<milliseconds>`
    pub name: Arc<str>,
    /// Wait of each request in the topic.
    pub delay: Duration,
}

impl Kafka {
    /// Tells whether requests are parked: parked requests lose their order, and the embedded broker drops what waits.
    pub fn parks(&self) -> bool {
        !self.retry_delays.is_empty() && self.ordering == Ordering::Unordered && !self.is_embedded()
    }

    /// Lists the retry topics: the first for requests whose route has too much to do, and then one for each delay.
    pub fn retry_topics(&self) -> Vec<RetryTopic> {
        let delays = [Duration::ZERO].into_iter().chain(self.retry_delays.iter().copied()).filter(|_| self.parks());
        delays.map(|delay| self.retry_topic(delay)).collect()
    }

    /// Returns the retry topic of a delay, whether it is in use or not. The topic is the group's own: another group
    /// reads the same requests, and parks them for itself.
    pub fn retry_topic(&self, delay: Duration) -> RetryTopic {
        let name = format!("{}{}", self.retry_prefix(), delay.as_millis());
        RetryTopic { name: name.into(), delay }
    }

    /// Returns the retry topic that has this name, if it is one of the group's, with any delay.
    pub fn retry_topic_of(&self, name: &str) -> Option<RetryTopic> {
        self.parse_retry_topic(name, &self.retry_prefix())
    }

    /// Returns the retry topic that has this name, if it is one as earlier versions named them: for all groups
    /// together.
    pub fn shared_retry_topic_of(&self, name: &str) -> Option<RetryTopic> {
        self.parse_retry_topic(name, &format!("{}-retry-", self.requests_topic))
    }

    fn parse_retry_topic(&self, name: &str, prefix: &str) -> Option<RetryTopic> {
        let digits = name.strip_prefix(prefix)?;
        let milliseconds: u64 = digits.parse().ok()?;
        // The digits must be those that a topic's name is made with.
        (milliseconds.to_string() == digits)
            .then(|| RetryTopic { name: name.into(), delay: Duration::from_millis(milliseconds) })
    }

    /// Returns the start of the names of the group's retry topics. A group may have any name, and a topic may not: a
    /// name that does not fit is replaced by its hash.
    fn retry_prefix(&self) -> String {
        let (topic, group) = (&self.requests_topic, &self.group_id);
        let fits = |group: &str| topic.len() + "-retry--".len() + group.len() + MAX_DIGITS <= MAX_TOPIC;
        let is_topic_character = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        if group.chars().all(is_topic_character) && fits(group) {
            return format!("{topic}-retry-{group}-");
        }
        let hash = format!("{:016x}", xxh3_64(group.as_bytes()));
        let readable = group.replace(|character| !is_topic_character(character), "-");
        match format!("{readable}-{hash}") {
            group if fits(&group) => format!("{topic}-retry-{group}-"),
            _ => format!("{topic}-retry-{hash}-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kafka(requests_topic: &str, group_id: &str) -> Kafka {
        Kafka {
            bootstrap_servers: "kafka:9092".to_owned(),
            requests_topic: requests_topic.to_owned(),
            group_id: group_id.to_owned(),
            ..Kafka::default()
        }
    }

    fn names(kafka: &Kafka) -> Vec<String> {
        kafka.retry_topics().iter().map(|topic| topic.name.to_string()).collect()
    }

    #[test]
    fn retry_topics_differ_when_groups_differ() {
        let one = kafka("requests", "signalbox");
        let expected = ["0", "1000", "10000", "60000"].map(|delay| format!("requests-retry-signalbox-{delay}"));
        assert_eq!(names(&one), expected);
        assert_eq!(one.retry_topic_of("requests-retry-signalbox-7000").unwrap().delay, Duration::from_secs(7));
        for other in ["requests-retry-other-7000", "requests-retry-7000", "requests-retry-signalbox-07", "x"] {
            assert_eq!(one.retry_topic_of(other), None, "{other}");
        }
        assert_eq!(one.shared_retry_topic_of("requests-retry-7000").unwrap().delay, Duration::from_secs(7));
        assert_eq!(one.shared_retry_topic_of("requests-retry-signalbox-7000"), None);
    }

    #[test]
    fn retry_topics_are_valid_and_unique_when_group_has_any_name() {
        let long = "g".repeat(300);
        let groups = ["a b", "a/b", "a-b", "gruppe-ä", "gruppe-ö", &long, &long[1..], "7", "a.b", "a_b"];
        for topic in ["requests".to_owned(), "r".repeat(210)] {
            let mut all: Vec<String> = groups.iter().flat_map(|group| names(&kafka(&topic, group))).collect();
            for name in &all {
                let is_taken = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
                assert!(name.len() <= MAX_TOPIC && name.chars().all(is_taken), "{name}");
            }
            all.sort();
            all.dedup();
            assert_eq!(all.len(), 4 * groups.len());
        }
    }
}
