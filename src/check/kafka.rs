//! Checks of `kafka`: the broker and its topics.

use std::time::Duration;

use super::validator::{KeyPath, Validator};
use crate::config::{Delivery, EMBEDDED, Kafka, Limits, MAX_TOPIC, Ordering, Severity, is_name, is_topic};
use crate::message::Fault;
use crate::replies::topic_pattern;

/// Most retry delays. Each is a topic, and more delays would hardly differ.
const MAX_RETRY_DELAYS: usize = 10;
/// Longest retry delay. Topics do not keep their records for ever, and a request must not be gone before its delay
/// ends.
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Validator<'_> {
    /// Checks everything below `kafka`.
    pub(super) fn kafka(&mut self, kafka: &Kafka) {
        let at = KeyPath::default().key("kafka");
        let servers = &kafka.bootstrap_servers;
        if servers != EMBEDDED && !servers.split(',').all(|server| is_address(server.trim())) {
            let at = at.key("bootstrap_servers");
            let message = format!("{} is not a list of host:port", self.shown(&at, servers));
            self.error(&at, message, "such as kafka-1:9092,kafka-2:9092, or: embedded");
        }
        self.topics(kafka, &at);
        self.allowed_reply_topics(kafka, &at.key("allowed_reply_topics"));
        self.require(!kafka.group_id.is_empty(), &at.key("group_id"), "must not be empty");
        self.require(kafka.partitions >= 1, &at.key("partitions"), "must be at least 1");
        let replicas_fit = kafka.replication_factor >= 1 || kafka.replication_factor == -1;
        self.require(replicas_fit, &at.key("replication_factor"), "must be at least 1, or -1 for the broker's default");
        self.require(kafka.max_in_flight >= 1, &at.key("max_in_flight"), "must be at least 1");
        self.require(kafka.max_in_flight_bytes.as_u64() >= 1, &at.key("max_in_flight_bytes"), "must be at least 1");
        self.limits(kafka, &at.key("limits"));
        self.positive(kafka.commit_interval, &at.key("commit_interval"));
        self.delivery(kafka, &at);
        self.retry_delays(kafka, &at.key("retry_delays"));
        self.properties(kafka, &at.key("properties"));
    }

    /// Checks the limits of a request: every request that is let in must be answerable.
    fn limits(&mut self, kafka: &Kafka, at: &KeyPath) {
        let Limits { value, key, headers, header_bytes, header_name, correlation_id } = &kafka.limits;
        // Below these sizes the requests of the HTTP shim would not pass.
        let sizes = [
            ("value", value.as_u64(), 1),
            ("key", key.as_u64(), 1),
            ("headers", *headers as u64, 16),
            ("header_bytes", header_bytes.as_u64(), 1024),
            ("header_name", header_name.as_u64(), 32),
            ("correlation_id", correlation_id.as_u64(), 36),
        ];
        for (key, size, least) in sizes {
            self.require(size >= least, &at.key(key), &format!("must be at least {least}"));
        }
        let (fault, record) = (kafka.limits.largest_fault(Fault::LONGEST_MESSAGE as u64), kafka.largest_record());
        if fault > record as u64 {
            let message = format!(
                "a fault repeats the correlation id and the carried headers, and may then have {fault} bytes, but a \
                 record has {record} at most (message.max.bytes)"
            );
            self.add(at, Severity::Warning, message, "lower correlation_id or header_bytes");
        }
    }

    fn delivery(&mut self, kafka: &Kafka, at: &KeyPath) {
        let is_named = kafka.instance_id.as_deref().is_none_or(|name| is_name(name) && name.len() <= 128);
        let characters = "must be up to 128 letters, digits, '.', '_' and '-'";
        self.require(is_named, &at.key("instance_id"), characters);
        let (shortest, longest) = (Duration::from_millis(1), Duration::from_secs(5));
        let fits = (shortest..=longest).contains(&kafka.transaction_interval);
        self.require(
            fits,
            &at.key("transaction_interval"),
            "must be from 1ms to 5s: readers of replies wait that long",
        );
        if kafka.delivery() == Delivery::ExactlyOnce && kafka.is_embedded() {
            let message = "exactly_once is not to be had on the embedded broker: its transactions are not real, an \
                           aborted record stays visible and offsets in a transaction are not kept";
            self.error(
                &at.key("delivery"),
                message.to_owned(),
                "name a real Kafka in kafka.bootstrap_servers, or use at_least_once",
            );
        }
    }

    /// Checks the retry delays. Each is a topic's, and the next is longer: a request that has failed once more waits
    /// longer.
    fn retry_delays(&mut self, kafka: &Kafka, at: &KeyPath) {
        let delays = &kafka.retry_delays;
        self.require(delays.len() <= MAX_RETRY_DELAYS, at, "must be at most 10: each is a topic");
        for (index, delay) in delays.iter().enumerate() {
            let at = at.index(index);
            let fits = (Duration::from_millis(1)..=LONGEST_RETRY_DELAY).contains(delay);
            self.require(fits, &at, "must be from 1ms to 1day");
            let grows = index == 0 || delays[index - 1].as_millis() < delay.as_millis();
            self.require(grows, &at, "must be longer than the one before");
        }
        let is_written = self.found(at).node.is_some();
        if is_written && !delays.is_empty() && kafka.ordering != Ordering::Unordered {
            let message =
                "a request that is parked loses its place, so nothing is parked with ordering: key or partition";
            self.add(at, Severity::Warning, message, "leave it out, or use ordering: unordered");
        }
    }

    /// Checks the names of topics. A topic that serves two ends would feed Signalbox with what it writes itself.
    fn topics(&mut self, kafka: &Kafka, at: &KeyPath) {
        let topics = [
            ("requests_topic", kafka.requests_topic.as_str()),
            ("replies_topic", kafka.replies_topic.as_str()),
            ("dead_letter_topic", kafka.dead_letter_topic.as_str()),
            ("shadow_topic", kafka.shadow_topic.as_str()),
            ("state_topic", kafka.state_topic.as_str()),
        ];
        for (index, (key, topic)) in topics.iter().enumerate() {
            let topic_at = at.key(key);
            if !is_topic(topic) {
                let message = format!("{} is not a topic name", self.shown(&topic_at, topic));
                self.error(&topic_at, message, "up to 249 letters, digits, '.', '_' and '-'");
            }
            if let Some((other, _)) = topics[..index].iter().find(|(_, earlier)| earlier == topic) {
                let message = format!("{} is {other} already", self.shown(&topic_at, topic));
                self.error(&topic_at, message, "each of the topics needs a name of its own");
            }
            if kafka.retry_topics().iter().any(|retry| *retry.name == **topic) {
                let message = format!("{} is the name of a retry topic", self.shown(&topic_at, topic));
                self.error(&topic_at, message, "each of the topics needs a name of its own");
            }
        }
        let longest = kafka.retry_topics().iter().map(|topic| topic.name.len()).max();
        if is_topic(&kafka.requests_topic) && longest.is_some_and(|longest| longest > MAX_TOPIC) {
            let help = "a shorter one, or kafka.retry_delays: []";
            let message =
                "too long: its retry topics are named after it, as <requests_topic>-retry-<group_id>-<milliseconds>";
            self.error(&at.key("requests_topic"), message, help);
        }
    }

    fn allowed_reply_topics(&mut self, kafka: &Kafka, at: &KeyPath) {
        for (index, pattern) in kafka.allowed_reply_topics.iter().enumerate() {
            let at = at.index(index);
            match topic_pattern(pattern) {
                Ok(regex) if regex.is_match(&kafka.requests_topic) => {
                    let message = "this also allows requests_topic, where a reply would be read as a request";
                    self.add(&at, Severity::Warning, message, "narrow the pattern");
                }
                Ok(regex) if kafka.retry_topics().iter().any(|topic| regex.is_match(&topic.name)) => {
                    let message = "this also allows the retry topics, where a reply would be read as a request";
                    self.add(&at, Severity::Warning, message, "narrow the pattern");
                }
                Ok(_) => {}
                Err(error) => {
                    let words = error.to_string();
                    let words = words.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    let words = self.words(&at, words);
                    let message = format!("{} is not a regular expression: {words}", self.shown(&at, pattern));
                    self.error(&at, message, "");
                }
            }
        }
    }
}

/// Tells whether a text is `host`, `host:port`, `[::1]:port` or one of these after `protocol://`.
fn is_address(text: &str) -> bool {
    let address = text.split_once("://").map_or(text, |(_, address)| address);
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (address, "9092"),
    };
    let host_fits = !host.is_empty() && !host.contains(|character: char| character.is_whitespace() || character == '/');
    host_fits && port.parse::<u16>().is_ok_and(|port| port > 0)
}
