//! Topics that there must be before anything starts.

use std::collections::BTreeMap;
use std::convert::identity;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use tracing::{debug, info, warn};

use super::cluster::Cluster;
use super::context::BrokerContext;
use super::error::BrokerError;
use crate::config::Kafka;

const CREATE_TIMEOUT: Duration = Duration::from_secs(15);

/// Time for which a broker is looked for at the start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two attempts that have failed at once.
const PAUSE: Duration = Duration::from_millis(200);

/// Settings of retry topics: records are kept for six days. A broker forgets the commits of a topic that the group does
/// not subscribe to after a week without a commit, and by then none of the committed records must be left.
const RETRY_SETTINGS: [(&str, &str); 2] = [("retention.ms", "518400000"), ("segment.ms", "3600000")];

/// Bytes that librdkafka sends at once, unless it is told otherwise.
const USUAL_BATCH: u64 = 1_000_000;

/// Bytes that a batch has before its first record, and a few more.
const BATCH_HEAD: u64 = 100;

/// Partitions of the state topic: decisions are few, and are read in one order.
const STATE_PARTITIONS: i32 = 1;

/// Settings of the state topic: of each decision the last one counts.
const STATE_SETTINGS: [(&str, &str); 1] = [("cleanup.policy", "compact")];

impl Cluster {
    /// Creates those of these topics that are missing, with the config's partitions and replicas. Blocks; not for the
    /// runtime's workers.
    ///
    /// # Errors
    /// When no broker answers, or a topic is missing and may not or cannot be created.
    pub fn ensure_topics(&self, config: &Kafka, topics: &[impl AsRef<str>]) -> Result<(), BrokerError> {
        if let Some(embedded) = self.embedded() {
            return topics
                .iter()
                .map(AsRef::as_ref)
                .try_for_each(|topic: &str| embedded.create_topic(topic, config.partitions));
        }
        let there = self.topics_patiently()?;
        // A topic without a partition is one that the broker knows nothing of.
        let partitions = |topic: &str| there.get(topic).copied().filter(|count| *count > 0);
        for topic in topics.iter().map(AsRef::as_ref).filter(|topic: &&str| partitions(topic).is_none()) {
            let (count, settings) = form(config, topic, partitions(&config.requests_topic));
            self.create(config, topic, count, settings)?;
        }
        Ok(())
    }

    /// Creates the topic in which instances tell each other their decisions, if it is missing. Blocks; not for the
    /// runtime's workers.
    ///
    /// # Errors
    /// When no broker answers, or the topic is missing and may not or cannot be created.
    pub fn ensure_state_topic(&self, config: &Kafka) -> Result<(), BrokerError> {
        let topic = &config.state_topic;
        if let Some(embedded) = self.embedded() {
            return embedded.create_topic(topic, STATE_PARTITIONS);
        }
        if self.partitions(topic)?.is_some() {
            return Ok(());
        }
        let (partitions, settings) = form(config, topic, None);
        self.create(config, topic, partitions, settings)
    }

    /// Returns the most bytes that may go to these topics at once, as `batch.size`: a topic refuses a batch that is
    /// larger than its limit as a whole, and every record with it. None when all take as much as librdkafka sends, or
    /// the broker does not say. Blocks; not for the runtime's workers.
    ///
    /// # Errors
    /// When no admin client can be made.
    pub fn largest_batch(&self, topics: &[&str]) -> Result<Option<u64>, BrokerError> {
        if self.embedded().is_some() {
            return Ok(None);
        }
        let admin: AdminClient<BrokerContext> = self.client("admin", &[], identity)?;
        let least = least_limit(&admin, topics, CREATE_TIMEOUT);
        Ok(least.map(|limit| limit.saturating_sub(BATCH_HEAD).max(1)).filter(|batch| *batch < USUAL_BATCH))
    }

    /// Lists the topics, and tries again while no broker answers, until the time is over; under load a broker may be
    /// slow to answer.
    fn topics_patiently(&self) -> Result<BTreeMap<String, i32>, BrokerError> {
        let begin = Instant::now();
        loop {
            match self.topics() {
                Err(BrokerError::Unreachable { servers, source, .. }) if begin.elapsed() >= PATIENCE => {
                    return Err(BrokerError::Unreachable { servers, tried: begin.elapsed(), source });
                }
                Err(error @ BrokerError::Unreachable { .. }) => {
                    warn!(%error, "trying again, for {} s in all", PATIENCE.as_secs());
                    thread::sleep(PAUSE);
                }
                result => return result,
            }
        }
    }

    fn create(
        &self,
        config: &Kafka,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<(), BrokerError> {
        if !config.create_topics {
            return Err(BrokerError::not_to_be_created(topic, partitions));
        }
        let admin: AdminClient<BrokerContext> = self.client("admin", &[], identity)?;
        let new_topic = new_topic(config, topic, partitions, settings);
        let options = AdminOptions::new().operation_timeout(Some(CREATE_TIMEOUT)).request_timeout(Some(CREATE_TIMEOUT));
        let created = blocking(admin.create_topics([&new_topic], &options))?;
        let results = created.map_err(|source| BrokerError::Topic { topic: topic.to_owned(), source })?;
        for result in results {
            match result {
                Ok(_) => info!(topic, partitions, "created a topic"),
                // Another instance was faster.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(BrokerError::not_created(topic, partitions, code)),
            }
        }
        Ok(())
    }
}

/// Returns the form in which a topic is created: its partitions and its settings. `of_requests` are the partitions of the
/// requests topic, if it exists.
pub(crate) fn form(
    config: &Kafka,
    topic: &str,
    of_requests: Option<i32>,
) -> (i32, &'static [(&'static str, &'static str)]) {
    if config.retry_topics().iter().any(|retry| *retry.name == *topic) {
        // Each partition of a retry topic goes with one of the requests topic.
        (of_requests.unwrap_or(config.partitions), &RETRY_SETTINGS)
    } else if topic == config.state_topic {
        (STATE_PARTITIONS, &STATE_SETTINGS)
    } else {
        (config.partitions, &[])
    }
}

/// Describes a topic to be created.
pub(super) fn new_topic<'a>(
    config: &Kafka,
    topic: &'a str,
    partitions: i32,
    settings: &[(&'a str, &'a str)],
) -> NewTopic<'a> {
    let replication = TopicReplication::Fixed(config.replication_factor);
    settings.iter().fold(NewTopic::new(topic, partitions, replication), |topic, &(name, value)| topic.set(name, value))
}

/// Asks how many bytes a batch may have that any of these topics takes; None when the broker does not say.
pub(super) fn least_limit(admin: &AdminClient<BrokerContext>, topics: &[&str], timeout: Duration) -> Option<u64> {
    let options = AdminOptions::new().request_timeout(Some(timeout));
    let specifiers: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let described = blocking(admin.describe_configs(&specifiers, &options)).ok()?;
    let described = described
        .inspect_err(|error| debug!(?topics, %error, "the broker does not say how much its topics take"))
        .ok()?;
    let limit = |topic: &ConfigResource| topic.get("max.message.bytes")?.value.as_ref()?.parse().ok();
    described.iter().flatten().filter_map(limit).min()
}

/// Waits for the admin client's future on this thread, which is not one of the runtime's.
pub(super) fn blocking<F: Future>(future: F) -> Result<F::Output, BrokerError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|_| BrokerError::Interrupted)?;
    Ok(runtime.block_on(future))
}
