//! Cluster of brokers, and the set-up of each of our clients.

use std::collections::BTreeMap;
use std::convert::identity;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::{Metadata, MetadataPartition, MetadataTopic};

use super::bootstrap::Native;
use super::context::{BrokerContext, BrokerHealth};
use super::embedded::Embedded;
use super::error::BrokerError;
use super::topic_id::TOPIC_IDS;
use crate::config::Kafka;

/// Longest wait for a broker to say which topics it has.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// Brokers, real or embedded. Keep it as long as any client lives: an embedded broker stops with it.
pub struct Cluster {
    bootstrap_servers: String,
    properties: BTreeMap<String, String>,
    health: Arc<BrokerHealth>,
    embedded: Option<Embedded>,
}

impl Cluster {
    /// Starts the embedded broker if the config asks for it; a real one is not contacted yet.
    ///
    /// # Errors
    /// When the embedded broker cannot start.
    pub fn new(config: &Kafka) -> Result<Self, BrokerError> {
        let health = Arc::new(BrokerHealth::default());
        let embedded = match config.is_embedded() {
            true => Some(Embedded::start(BrokerContext::new("embedded broker", health.clone()))?),
            false => None,
        };
        let bootstrap_servers = match &embedded {
            Some(embedded) => embedded.address().to_owned(),
            None => config.bootstrap_servers.clone(),
        };
        Ok(Self { bootstrap_servers, properties: config.properties.clone(), health, embedded })
    }

    /// Returns the servers that clients connect to, as `host:port[,host:port…]`.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Returns whether the broker is the one inside this process.
    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    pub(super) fn embedded(&self) -> Option<&Embedded> {
        self.embedded.as_ref()
    }

    /// Returns the health that all clients of this cluster share.
    pub fn health(&self) -> &Arc<BrokerHealth> {
        &self.health
    }

    /// Creates a client from the settings that every client needs, then `settings` of its role, then the user's
    /// `kafka.properties`, of which the later win. `context` makes its callbacks of those that each client has. With
    /// [`TOPIC_IDS`] among the settings, the callbacks know which topics the client reads.
    ///
    /// # Errors
    /// When librdkafka refuses a property or cannot start its threads.
    pub fn client<C, T>(
        &self,
        role: &'static str,
        settings: &[(&str, &str)],
        context: impl FnOnce(BrokerContext) -> C,
    ) -> Result<T, BrokerError>
    where
        C: rdkafka::ClientContext,
        T: FromClientConfigAndContext<C> + Native,
    {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("client.id", format!("signalbox-{role}"))
            .set("socket.keepalive.enable", "true")
            // The interval is in milliseconds. Each context decides what to do with the statistics.
            .set("statistics.interval.ms", "5000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000");
        let properties = self.properties.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        for (key, value) in settings.iter().copied().chain(properties) {
            config.set(key, value);
        }
        if settings.contains(&TOPIC_IDS) {
            let (debug, metadata) = TOPIC_IDS;
            let wanted = self.properties.get(debug).map_or(metadata.to_owned(), |more| format!("{more},{metadata}"));
            config.set(debug, wanted).set_log_level(RDKafkaLogLevel::Debug);
        }
        let broker = BrokerContext::new(role, self.health.clone());
        let bootstrap = broker.bootstrap().clone();
        let client = T::from_config_and_context(&config, context(broker));
        let client = client.map_err(|error| BrokerError::client(role, error))?;
        bootstrap.belongs_to(&client, config.get("bootstrap.servers").unwrap_or_default());
        Ok(client)
    }

    /// Returns how many partitions a topic has; `None` when it does not exist. Blocks; not for the runtime's workers.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn partitions(&self, topic: &str) -> Result<Option<i32>, BrokerError> {
        let count = self.leaders(topic)?.len();
        Ok(i32::try_from(count).ok().filter(|count| *count > 0))
    }

    /// Lists all topics that this client may see, with how many partitions each has. Blocks; not for the runtime's
    /// workers.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn topics(&self) -> Result<BTreeMap<String, i32>, BrokerError> {
        let count = |topic: &MetadataTopic| i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
        let metadata = self.metadata(None)?;
        Ok(metadata.topics().iter().map(|topic| (topic.name().to_owned(), count(topic))).collect())
    }

    /// Lists the brokers that lead each of a topic's partitions; none when it does not exist. Blocks; not for the
    /// runtime's workers.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn leaders(&self, topic: &str) -> Result<Vec<i32>, BrokerError> {
        let metadata = self.metadata(Some(topic))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        Ok(found.into_iter().flat_map(MetadataTopic::partitions).map(MetadataPartition::leader).collect())
    }

    fn metadata(&self, topic: Option<&str>) -> Result<Metadata, BrokerError> {
        let consumer: BaseConsumer<BrokerContext> = self.client("metadata", &[], identity)?;
        let metadata = consumer.fetch_metadata(topic, METADATA_TIMEOUT).map_err(|source| BrokerError::Unreachable {
            servers: self.bootstrap_servers.clone(),
            tried: METADATA_TIMEOUT,
            source,
        })?;
        self.health.answered();
        Ok(metadata)
    }
}
