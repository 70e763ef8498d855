//! `kafka`: the broker, its topics, and how requests are taken from it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

use super::limits::Limits;

/// The value of `bootstrap_servers` that starts a broker inside this process.
pub const EMBEDDED: &str = "embedded";

/// librdkafka's own `message.max.bytes`.
const USUAL_RECORD: usize = 1_000_000;

/// The broker, its topics, and how requests are taken from it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// `host:port`, several with commas between them, or `embedded`.
    pub bootstrap_servers: String,
    /// Where requests are read.
    pub requests_topic: String,
    /// Where replies go unless a request names an allowed topic of its own.
    pub replies_topic: String,
    /// Where requests go that cannot be answered.
    pub dead_letter_topic: String,
    /// Where the answers of shadow routes go. Nothing is created or written there unless a route has a shadow.
    pub shadow_topic: String,
    /// Where instances tell each other what they have decided, such as a canary's step. Compacted.
    pub state_topic: String,
    /// Regular expressions, each matched against a whole topic name; a request may name such a topic for its reply.
    /// `replies_topic` is always allowed.
    pub allowed_reply_topics: Vec<String>,
    /// The consumer group; all instances that share the work share it.
    pub group_id: String,
    /// What is promised about replies when something crashes; see [`Kafka::delivery`].
    pub delivery: Option<Delivery>,
    /// How long a transaction gathers replies, with [`Delivery::ExactlyOnce`].
    #[serde(with = "humantime_serde")]
    pub transaction_interval: Duration,
    /// What the instance's transactions are known by. Default: the host's name and the first number that is free there.
    pub instance_id: Option<String>,
    /// In which order replies leave.
    pub ordering: Ordering,
    /// How long a request that failed for a passing reason waits in a retry topic, after each failure. None: not at all.
    #[serde(deserialize_with = "durations")]
    pub retry_delays: Vec<Duration>,
    /// Whether topics that are missing are created at the start.
    pub create_topics: bool,
    /// Partitions of a topic that is created.
    pub partitions: i32,
    /// Replicas of a topic that is created; -1 takes the broker's own default.
    pub replication_factor: i32,
    /// Requests taken from the broker and not yet answered, at most.
    pub max_in_flight: usize,
    /// The same in bytes: of the requests' keys, headers and values, and of the answers that wait for the broker.
    pub max_in_flight_bytes: ByteSize,
    /// How large one of them may be.
    pub limits: Limits,
    /// How often finished offsets are committed.
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    /// How long shutdown and rebalance wait for requests under way.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// Handed to librdkafka as they are; they win over our own settings.
    #[serde(deserialize_with = "properties")]
    pub properties: BTreeMap<String, String>,
}

/// What is promised about replies when something crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Each request gets a reply; after a crash some get it twice.
    AtLeastOnce,
    /// Replies and offsets move in one transaction.
    ExactlyOnce,
}

/// In which order replies leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ordering {
    /// As they are finished.
    #[default]
    Unordered,
    /// In the order of the requests with the same key.
    Key,
    /// In the order of the requests of a partition.
    Partition,
}

impl Kafka {
    /// Whether the broker is the one inside this process.
    pub fn is_embedded(&self) -> bool {
        self.bootstrap_servers == EMBEDDED
    }

    /// What is promised about replies: what the file says, else as much as the broker can keep. Transactions of the
    /// embedded one are not real.
    pub fn delivery(&self) -> Delivery {
        let most = if self.is_embedded() { Delivery::AtLeastOnce } else { Delivery::ExactlyOnce };
        self.delivery.unwrap_or(most)
    }

    /// Bytes of the largest record that our producers take: their `message.max.bytes`.
    pub fn largest_record(&self) -> usize {
        let said = self.properties.get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
        said.unwrap_or(USUAL_RECORD)
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            bootstrap_servers: EMBEDDED.to_owned(),
            requests_topic: "inference-requests".to_owned(),
            replies_topic: "inference-replies".to_owned(),
            dead_letter_topic: "inference-dead-letters".to_owned(),
            shadow_topic: "inference-shadow".to_owned(),
            state_topic: "signalbox-state".to_owned(),
            allowed_reply_topics: Vec::new(),
            group_id: "signalbox".to_owned(),
            delivery: None,
            transaction_interval: Duration::from_millis(20),
            instance_id: None,
            ordering: Ordering::default(),
            retry_delays: [1, 10, 60].map(Duration::from_secs).to_vec(),
            create_topics: true,
            partitions: 8,
            replication_factor: -1,
            max_in_flight: 4096,
            max_in_flight_bytes: ByteSize::mib(256),
            limits: Limits::default(),
            commit_interval: Duration::from_millis(200),
            drain_timeout: Duration::from_secs(30),
            properties: BTreeMap::new(),
        }
    }
}

fn durations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
    let durations = Vec::<humantime_serde::Serde<Duration>>::deserialize(deserializer)?;
    Ok(durations.into_iter().map(humantime_serde::Serde::into_inner).collect())
}

/// librdkafka's values are texts; in a file numbers and booleans need no quotes.
fn properties<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Property(String);
    struct PropertyVisitor;

    impl Visitor<'_> for PropertyVisitor {
        type Value = Property;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("text, a number, true or false")
        }

        fn visit_str<E: de::Error>(self, value: &str) -> Result<Property, E> {
            Ok(Property(value.to_owned()))
        }

        fn visit_bool<E: de::Error>(self, value: bool) -> Result<Property, E> {
            Ok(Property(value.to_string()))
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<Property, E> {
            Ok(Property(value.to_string()))
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<Property, E> {
            Ok(Property(value.to_string()))
        }

        fn visit_f64<E: de::Error>(self, value: f64) -> Result<Property, E> {
            Ok(Property(value.to_string()))
        }
    }

    impl<'de> Deserialize<'de> for Property {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(PropertyVisitor)
        }
    }

    let properties = BTreeMap::<String, Property>::deserialize(deserializer)?;
    Ok(properties.into_iter().map(|(name, Property(value))| (name, value)).collect())
}
