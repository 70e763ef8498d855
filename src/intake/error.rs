//! Errors that end the intake.

use std::sync::Arc;

use rdkafka::error::KafkaError;

/// Reason why the intake ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The consumer cannot go on.
    #[error("the consumer of '{topic}' cannot go on: {source}")]
    Fatal {
        /// The requests topic.
        topic: Arc<str>,
        /// librdkafka's words.
        source: KafkaError,
    },
    /// The polling thread could not be started, or it panicked.
    #[error("the polling thread has failed: {0}")]
    Thread(String),
}
