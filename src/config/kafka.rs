//! The section `kafka`: the broker, its topics, and the way in which requests are taken from it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::units::{HumanDuration, HumanDurations, HumanSize, Properties};

/// The value of `bootstrap_servers` that starts a broker inside this process.
pub const EMBEDDED: &str = "embedded";

/// Bytes of the largest record that librdkafka takes by default: its `message.max.bytes`.
const USUAL_RECORD: usize = 1_000_000;

/// The broker, its topics, and the way in which requests are taken from it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// Addresses of brokers: `host:port`, several with commas between them, or `embedded`.
    pub bootstrap_servers: String,
    /// Topic from which requests are read.
    pub requests_topic: String,
    /// Topic for replies, unless a request names an allowed topic of its own.
    pub replies_topic: String,
    /// Dead letter topic: for requests that cannot be answered.
    pub dead_letter_topic: String,
    /// Topic for the answers of shadow routes. Nothing is created or written there unless a route has a shadow.
    pub shadow_topic: String,
    /// Topic in which instances share what they have decided, such as a canary's step. Compacted.
    pub state_topic: String,
    /// Regular expressions, each matched against a whole topic name; a request may name such a topic for its reply.
    /// `replies_topic` is always allowed.
    pub allowed_reply_topics: Vec<String>,
    /// Consumer group; all instances that share the work share it.
    pub group_id: String,
    /// Promise about replies when something crashes. Default: `exactly_once` on a real broker, `at_least_once` on the
    /// embedded one.
    pub delivery: Option<Delivery>,
    /// Time for which a transaction gathers replies, with `exactly_once`.
    #[serde(with = "HumanDuration")]
    pub transaction_interval: Duration,
    /// Name of the instance, by which its transactions are known. Default: the host's name and the first number that is
    /// free there.
    pub instance_id: Option<String>,
    /// Order in which replies leave.
    pub ordering: Ordering,
    /// Waits in a retry topic of a request that failed for a passing reason, one after each failure. An empty list: no
    /// retry topics.
    #[serde(with = "HumanDurations")]
    pub retry_delays: Vec<Duration>,
    /// True if topics that are missing are created at the start.
    pub create_topics: bool,
    /// Partitions of a topic that is created.
    pub partitions: i32,
    /// Replicas of a topic that is created; -1 takes the broker's own default.
    pub replication_factor: i32,
    /// Most requests taken from the broker and not yet answered (back-pressure).
    pub max_in_flight: usize,
    /// Most bytes of those: of the requests' keys, headers and values, and of the answers that wait for the broker.
    #[serde(with = "HumanSize")]
    pub max_in_flight_bytes: ByteSize,
    /// Largest size of a single request.
    pub limits: Limits,
    /// Time between two commits of finished offsets.
    #[serde(with = "HumanDuration")]
    pub commit_interval: Duration,
    /// Longest wait of a shutdown or rebalance for requests under way.
    #[serde(with = "HumanDuration")]
    pub drain_timeout: Duration,
    /// Properties that librdkafka gets as they are; they win over Signalbox's own settings.
    #[serde(with = "Properties")]
    pub properties: BTreeMap<String, String>,
}

/// The promise about replies when something crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Each request gets a reply; after a crash some get it twice.
    AtLeastOnce,
    /// Replies and offsets move in one transaction.
    ExactlyOnce,
}

/// Order in which replies leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ordering {
    /// Replies leave as they are finished.
    #[default]
    Unordered,
    /// Replies leave in the order of the requests with the same key.
    Key,
    /// Replies leave in the order of the requests of a partition.
    Partition,
}

impl Kafka {
    /// Tells whether the broker is the one inside this process.
    pub fn is_embedded(&self) -> bool {
        self.bootstrap_servers == EMBEDDED
    }

    /// Returns the promise about replies: the one in the file, else as much as the broker can keep. Transactions of the
    /// embedded broker are not real.
    pub fn delivery(&self) -> Delivery {
        let most = if self.is_embedded() { Delivery::AtLeastOnce } else { Delivery::ExactlyOnce };
        self.delivery.unwrap_or(most)
    }

    /// Returns the bytes of the largest record that Signalbox's producers take: their `message.max.bytes`.
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
