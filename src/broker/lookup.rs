//! Lookup of topics, asked again and again by one client.

use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;

use super::cluster::Cluster;
use super::context::BrokerContext;
use super::error::BrokerError;
use super::topics::least_limit;

/// Longest wait for a broker's answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks brokers about topics, and never has one made: a consumer asks, and an admin client for settings.
pub(crate) struct TopicLookup {
    consumer: BaseConsumer<BrokerContext>,
    /// None for the embedded broker, which knows no settings.
    admin: Option<AdminClient<BrokerContext>>,
}

/// State of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TopicState {
    /// The topic is not there, or not for this client.
    Missing(RDKafkaErrorCode),
    /// The broker that leads each partition, if there is one.
    There(Vec<Option<i32>>),
}

impl Cluster {
    /// Creates a client for questions about topics.
    ///
    /// # Errors
    /// When librdkafka refuses a property.
    pub(crate) fn topic_lookup(&self) -> Result<TopicLookup, BrokerError> {
        let settings = [("allow.auto.create.topics", "false")];
        let consumer = self.client("topics", &settings, BrokerContext::at_rest)?;
        let admin = match self.is_embedded() {
            true => None,
            false => Some(self.client("topics", &[], BrokerContext::at_rest)?),
        };
        Ok(TopicLookup { consumer, admin })
    }
}

impl TopicLookup {
    /// Returns the state of a topic; None while it is being made. Blocks; not for the runtime's workers.
    ///
    /// # Errors
    /// When no broker answers.
    pub(crate) fn state(&self, topic: &str) -> Result<Option<TopicState>, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(topic), TIMEOUT);
        // Nothing else polls this client, so its events are taken in here.
        self.consumer.poll(Duration::ZERO);
        let metadata = metadata?;
        self.consumer.context().health().answered();
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        if let Some(code) = found.error().map(RDKafkaErrorCode::from) {
            let passes = matches!(code, RDKafkaErrorCode::LeaderNotAvailable | RDKafkaErrorCode::UnknownTopicId);
            return Ok((!passes).then_some(TopicState::Missing(code)));
        }
        let leaders = leaders(found);
        Ok((!leaders.is_empty()).then_some(TopicState::There(leaders)))
    }

    /// Returns how many bytes a batch of records for a topic may have; None when the broker does not say. Blocks; not
    /// for the runtime's workers.
    pub(crate) fn largest_record(&self, topic: &str) -> Option<u64> {
        least_limit(self.admin.as_ref()?, &[topic], TIMEOUT)
    }
}

/// Lists the leaders in the order of the partitions.
fn leaders(topic: &MetadataTopic) -> Vec<Option<i32>> {
    let mut partitions: Vec<_> = topic.partitions().iter().map(|it| (it.id(), it.leader())).collect();
    partitions.sort_unstable();
    partitions.into_iter().map(|(_, leader)| (leader >= 0).then_some(leader)).collect()
}
