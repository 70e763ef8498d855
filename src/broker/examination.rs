//! Examination of a broker, for `signalbox doctor`: what it says of itself, of topics and of rights. Nothing is created,
//! no group is joined, and no record is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{Producer, ThreadedProducer};
use rdkafka::statistics::Statistics;

use super::cluster::Cluster;
use super::context::BrokerContext;
use super::error::BrokerError;
use super::topics::{blocking, new_topic};
use crate::config::Kafka;

/// Longest wait for each answer of a broker.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Pause in which librdkafka reports why a connection failed, once a call has.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// State of a cluster, as it says.
#[derive(Debug, Default)]
pub(crate) struct ClusterReport {
    /// Number of brokers.
    pub(crate) brokers: usize,
    /// Time from the first connection to the answer.
    pub(crate) took: Duration,
    /// Topics that this client may see, by name.
    pub(crate) topics: BTreeMap<String, TopicReport>,
}

/// Settings of a topic, by name.
type TopicSettings = BTreeMap<String, String>;

/// State of a topic that exists.
#[derive(Debug, Clone, Default)]
pub(crate) struct TopicReport {
    /// Number of partitions.
    pub(crate) partitions: i32,
    /// Partitions that no broker leads.
    pub(crate) leaderless: Vec<i32>,
    /// Fewest replicas of a partition.
    pub(crate) replicas: usize,
    /// Settings by name; none when this client may not read them.
    pub(crate) settings: TopicSettings,
}

/// Silence of all brokers, and the reasons that librdkafka gave meanwhile.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    /// The error of the call, in words.
    pub(crate) error: String,
    /// Reasons why connections failed, such as a refused password; each once.
    pub(crate) reasons: Vec<String>,
}

impl Cluster {
    /// Asks for the brokers and topics, and for the settings of those of `topics` that exist. Blocks; not for the
    /// runtime's workers.
    ///
    /// # Errors
    /// When no broker answers.
    pub(crate) fn examine(&self, topics: &[Arc<str>]) -> Result<ClusterReport, NoAnswer> {
        let (reasons, begun) = (Reasons::default(), Instant::now());
        let heard = reasons.clone();
        let settings = [("allow.auto.create.topics", "false")];
        let client = self.client("doctor", &settings, |_| Examiner(heard));
        let consumer: BaseConsumer<Examiner> =
            client.map_err(|error| NoAnswer { error: error.to_string(), reasons: Vec::new() })?;
        let metadata = consumer.fetch_metadata(None, TIMEOUT).map_err(|source| {
            // The reasons come as events, which only a poll hands out.
            let until = Instant::now() + LAST_WORDS;
            while Instant::now() < until {
                let _ = consumer.poll(LAST_WORDS / 4);
            }
            let servers = self.bootstrap_servers().to_owned();
            NoAnswer {
                error: BrokerError::Unreachable { servers, tried: begun.elapsed(), source }.to_string(),
                reasons: reasons.0.lock().clone(),
            }
        })?;
        let mut report =
            ClusterReport { brokers: metadata.brokers().len(), took: begun.elapsed(), ..Default::default() };
        // A topic without a partition is one that the broker knows nothing of.
        let there = metadata.topics().iter().filter(|topic| !topic.partitions().is_empty());
        report.topics = there.map(|topic| (topic.name().to_owned(), TopicReport::of(topic))).collect();
        let named: Vec<&str> =
            topics.iter().map(|topic| &**topic).filter(|it| report.topics.contains_key(*it)).collect();
        for (name, settings) in self.settings(&named).unwrap_or_default() {
            if let Some(topic) = report.topics.get_mut(&name) {
                topic.settings = settings;
            }
        }
        Ok(report)
    }

    fn settings(&self, topics: &[&str]) -> Result<Vec<(String, TopicSettings)>, BrokerError> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let admin: AdminClient<BrokerContext> = self.client("doctor", &[], BrokerContext::quiet)?;
        let specifiers: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let described = blocking(admin.describe_configs(&specifiers, &options))?.unwrap_or_default();
        // Answers come in the order of the questions.
        let answers = topics.iter().zip(described).filter_map(|(name, found)| Some((*name, found.ok()?)));
        let entries = |found: ConfigResource| -> TopicSettings {
            found.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
        };
        Ok(answers.map(|(name, found)| (name.to_owned(), entries(found))).collect())
    }

    /// Asks whether the broker would create a topic for this client, without doing it. Blocks; not for the runtime's
    /// workers.
    ///
    /// # Errors
    /// When it would not, or no broker answers.
    pub(crate) fn would_create(
        &self,
        config: &Kafka,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<(), BrokerError> {
        let admin: AdminClient<BrokerContext> = self.client("doctor", &[], BrokerContext::quiet)?;
        let options =
            AdminOptions::new().validate_only(true).operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
        let wanted = new_topic(config, topic, partitions, settings);
        let created = blocking(admin.create_topics([&wanted], &options))?;
        let results = created.map_err(|source| BrokerError::Topic { topic: topic.to_owned(), source })?;
        match results.into_iter().find_map(Result::err) {
            None | Some((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(()),
            Some((_, code)) => Err(BrokerError::not_created(topic, partitions, code)),
        }
    }

    /// Asks for the group's offsets, which takes the right to read as that group. Nothing is joined. Blocks; not for the
    /// runtime's workers.
    ///
    /// # Errors
    /// When the broker refuses, or does not answer.
    pub(crate) fn may_use_group(&self, group: &str, topic: &str) -> Result<(), KafkaError> {
        let settings = [("group.id", group), ("allow.auto.create.topics", "false")];
        let client = self.client("doctor", &settings, BrokerContext::quiet);
        let consumer: BaseConsumer<BrokerContext> = client.map_err(|_| KafkaError::Canceled)?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition(topic, 0);
        consumer.committed_offsets(partitions, TIMEOUT).map(drop)
    }

    /// Introduces a producer of transactions under a name that nothing else has, which takes the right to that name, and
    /// a broker that knows transactions. Blocks; not for the runtime's workers.
    ///
    /// # Errors
    /// When the broker refuses, or does not answer.
    pub(crate) fn may_use_transactions(&self, name: &str) -> Result<(), BrokerError> {
        let settings = [("transactional.id", name), ("enable.idempotence", "true"), ("acks", "all")];
        let producer: ThreadedProducer<BrokerContext> = self.client("doctor", &settings, BrokerContext::quiet)?;
        producer.init_transactions(TIMEOUT).map_err(|source| BrokerError::Transactions { source })
    }
}

impl TopicReport {
    fn of(topic: &MetadataTopic) -> Self {
        let partitions = topic.partitions();
        let leaderless = partitions.iter().filter(|partition| partition.leader() < 0);
        Self {
            partitions: i32::try_from(partitions.len()).unwrap_or(i32::MAX),
            leaderless: leaderless.map(|partition| partition.id()).collect(),
            replicas: partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or_default(),
            settings: BTreeMap::new(),
        }
    }

    /// Returns a setting that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.settings.get(name)?.parse().ok()
    }
}

/// Reasons that librdkafka gives for lost connections. Cheap to clone.
#[derive(Debug, Clone, Default)]
struct Reasons(Arc<Mutex<Vec<String>>>);

impl Reasons {
    /// Adds a reason, without the connection's name before it and the state of it behind.
    fn add(&self, reason: &str) {
        let reason = reason.split_once("/bootstrap: ").map_or(reason, |(_, reason)| reason);
        let reason = reason.split(" (after ").next().unwrap_or(reason);
        let mut reasons = self.0.lock();
        if !reasons.iter().any(|known| known == reason) {
            reasons.push(reason.to_owned());
        }
    }
}

/// Callbacks of the client that asks first: they keep the reasons and log nothing.
struct Examiner(Reasons);

impl ClientContext for Examiner {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.0.add(reason);
        }
    }
}

impl ConsumerContext for Examiner {}

/// Returns the librdkafka error of an error, if it says that a right is missing.
pub(crate) fn missing_right(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    error.rdkafka_error_code().filter(|code| {
        matches!(
            code,
            RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_kept_once_without_what_surrounds_them() {
        let reasons = Reasons::default();
        for times in ["", ", 1 identical error(s) suppressed"] {
            reasons.add(&format!("a:9/bootstrap: Connect to a:9 failed: refused (after 0ms in state CONNECT{times})"));
        }
        reasons.add("SASL authentication error: Invalid credentials");
        let expected = ["Connect to a:9 failed: refused", "SASL authentication error: Invalid credentials"];
        assert_eq!(*reasons.0.lock(), expected);
    }
}
