//! Errors of brokers, worded so that the reader knows what to do.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Error of the broker, or of what the config says about it.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// librdkafka does not take a property.
    #[error("kafka.properties: '{key}' is not accepted: {reason}")]
    Property {
        /// Name of the property. Its value is not shown: it may be a secret.
        key: String,
        /// librdkafka's words.
        reason: String,
    },
    /// A client cannot be made.
    #[error("cannot create the {role} client: {source}")]
    Client {
        /// Purpose of the client.
        role: &'static str,
        /// librdkafka's words.
        source: KafkaError,
    },
    /// No broker answers.
    #[error(
        "no Kafka broker has answered at {servers} for {} s: {source}; check kafka.bootstrap_servers and that the broker \
         runs", tried.as_secs()
    )]
    Unreachable {
        /// `kafka.bootstrap_servers`.
        servers: String,
        /// Time for which a broker was tried.
        tried: Duration,
        /// librdkafka's words.
        source: KafkaError,
    },
    /// A topic is missing and is not to be created, or cannot be.
    #[error("topic '{topic}' does not exist and {reason}; create it with {partitions} partitions, or {advice}")]
    MissingTopic {
        /// Name of the topic.
        topic: String,
        /// Reason why the topic was not created.
        reason: String,
        /// Number of partitions that the topic should have.
        partitions: i32,
        /// Another way out.
        advice: &'static str,
    },
    /// A name that Kafka takes for no topic.
    #[error("topic '{topic}' cannot be used: {source}")]
    Topic {
        /// Name of the topic.
        topic: String,
        /// librdkafka's words.
        source: KafkaError,
    },
    /// Transactions do not work with this broker, or not for this client.
    #[error(
        "kafka.delivery: exactly_once needs transactions, and the broker does not give them: {source}; let this client \
         write with a transactional id, or use delivery: at_least_once"
    )]
    Transactions {
        /// librdkafka's words.
        source: KafkaError,
    },
    /// The broker takes transactions and does not keep to them.
    #[error(
        "kafka.delivery: exactly_once needs transactions, and those of this broker are not real: {finding}; use Apache \
         Kafka 2.5 or newer, or delivery: at_least_once"
    )]
    FalseTransactions {
        /// Observation that shows it.
        finding: &'static str,
    },
    /// The instance cannot be given a name.
    #[error("{path}: an instance's name cannot be reserved here: {source}; name this instance with kafka.instance_id")]
    Identity {
        /// Path of the file.
        path: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// The end of the process cut the work short.
    #[error("interrupted")]
    Interrupted,
}

impl BrokerError {
    /// Reports a missing topic that is not to be created.
    pub(crate) fn not_to_be_created(topic: &str, partitions: i32) -> Self {
        let (reason, advice) = ("kafka.create_topics is false".to_owned(), "set kafka.create_topics to true");
        Self::MissingTopic { topic: topic.to_owned(), reason, partitions, advice }
    }

    /// Reports a missing topic that the broker does not create.
    pub(super) fn not_created(topic: &str, partitions: i32, code: RDKafkaErrorCode) -> Self {
        let reason = format!("the broker does not create it: {code}");
        let advice = "give this client the right to create topics";
        Self::MissingTopic { topic: topic.to_owned(), reason, partitions, advice }
    }

    /// Wraps librdkafka's refusal to create a client for a role.
    pub(super) fn client(role: &'static str, error: KafkaError) -> Self {
        match error {
            KafkaError::ClientConfig(_, reason, key, _) => Self::Property { key, reason },
            source => Self::Client { role, source },
        }
    }
}

/// Returns whether another producer of the same name has taken over, or the coordinator has given this one up.
pub(crate) fn is_fenced(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
    )
}

/// Returns whether a step of a transaction has only lacked time: librdkafka goes on with it when it is taken again.
pub(crate) fn is_for_want_of_time(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable() && !error.txn_requires_abort() && !error.is_fatal(),
        _ => false,
    }
}
