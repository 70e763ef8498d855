//! Embedded broker inside this process: librdkafka's mock cluster, which speaks the real protocol on a loopback port.
//!
//! The broker serves for trying things out. Nothing is on disk; its transactions are not real; and of each partition it
//! keeps 5 MiB or 100,000 batches and then drops the oldest in silence. So on it requests are refused rather than left
//! waiting (see `intake`).

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::producer::{BaseProducer, Producer};

use super::context::BrokerContext;
use super::error::BrokerError;

/// Running embedded broker; it stops when this is dropped.
pub(super) struct Embedded {
    /// Client that the mock cluster belongs to, and that is used for nothing else.
    owner: BaseProducer<BrokerContext>,
    address: String,
}

impl Embedded {
    /// Starts the broker on a free loopback port.
    ///
    /// # Errors
    /// When no port can be had.
    pub(super) fn start(context: BrokerContext) -> Result<Self, BrokerError> {
        let mut config = ClientConfig::new();
        config.set("test.mock.num.brokers", "1").set("client.id", "signalbox-embedded");
        let owner = BaseProducer::from_config_and_context(&config, context)
            .map_err(|error| BrokerError::client("embedded broker", error))?;
        let address = owner.client().mock_cluster().map(|cluster| cluster.bootstrap_servers()).unwrap_or_default();
        Ok(Self { owner, address })
    }

    /// Returns the address as `host:port`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Creates a topic; one that exists is left as it is.
    pub(super) fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), BrokerError> {
        let Some(cluster) = self.owner.client().mock_cluster() else { return Ok(()) };
        cluster
            .create_topic(topic, partitions, 1)
            .map_err(|source| BrokerError::Topic { topic: topic.to_owned(), source })
    }
}
