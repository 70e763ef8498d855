//! The errors of a redrive.

use rdkafka::error::KafkaError;

use crate::broker::BrokerError;
use crate::intake::MetadataError;

/// Tells why dead letters were not sent back.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// The broker is embedded, so no dead letter outlives its process.
    #[error(
        "kafka.bootstrap_servers: embedded is a broker inside the process that runs: its dead letters end with it, and \
         its transactions are not real; dead letters can be sent back on a real Kafka"
    )]
    Embedded,
    /// The broker refuses or cannot be reached.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A topic does not exist.
    #[error("topic '{topic}' ({key}) does not exist; check the config, or start Signalbox, which creates it")]
    MissingTopic {
        /// The topic's name.
        topic: String,
        /// The config key that names the topic.
        key: &'static str,
    },
    /// The group's checkpoint cannot be read, so no letter is known to have been sent.
    #[error(
        "what group '{group}' has committed of partition {partition} of the dead letters cannot be relied on: {reason}; \
         delete its offsets to begin anew, and letters that were sent before will be sent again"
    )]
    Unreadable {
        /// The group that commits checkpoints.
        group: String,
        /// The partition.
        partition: i32,
        /// The reason for which the checkpoint cannot be relied on.
        reason: MetadataError,
    },
    /// The runs of a group had so many filters that their checkpoint does not fit the metadata that a broker keeps.
    #[error(
        "which letters of partition {partition} were sent back by the filters of so many runs cannot be noted in the \
         bytes that a broker keeps; run it with a filter that was used before, or without one, which sends back what \
         is left, or wait until the topic drops that"
    )]
    TooManyFilters {
        /// The partition.
        partition: i32,
    },
    /// The Kafka client cannot read the topics.
    #[error("the dead letters cannot be read: {0}")]
    Reading(KafkaError),
    /// The broker has stopped answering.
    #[error("the broker has sent nothing for 30 s; what was sent back is noted, so run it again when it is there")]
    Silent,
    /// The transaction of a batch failed.
    #[error("the last letters were not sent back: {0}; what was sent before is noted, so run it again")]
    Sending(KafkaError),
    /// Another run has fenced this one.
    #[error("another redrive of this group has begun, and goes on from here in place of this one")]
    Replaced,
}
