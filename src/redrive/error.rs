//! Why dead letters were not sent back.

use rdkafka::error::KafkaError;

use crate::broker::BrokerError;
use crate::intake::Unreadable;

/// Why dead letters were not sent back.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// There is no broker to send them back on.
    #[error(
        "kafka.bootstrap_servers: embedded is a broker inside the process that runs: its dead letters end with it, and \
         its transactions are not real; dead letters can be sent back on a real Kafka"
    )]
    Embedded,
    /// The broker cannot be used.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A topic is not there.
    #[error("topic '{topic}' ({key}) does not exist; check the config, or start Signalbox, which creates it")]
    MissingTopic {
        /// Its name.
        topic: String,
        /// Which key names it.
        key: &'static str,
    },
    /// Nobody knows which letters were sent.
    #[error(
        "what group '{group}' has committed of partition {partition} of the dead letters cannot be relied on: {reason}; \
         delete its offsets to begin anew, and letters that were sent before will be sent again"
    )]
    Unreadable {
        /// The group that notes what was sent.
        group: String,
        /// The partition.
        partition: i32,
        /// Why.
        reason: Unreadable,
    },
    /// The runs of a group had too many filters.
    #[error(
        "which letters of partition {partition} were sent back by the filters of so many runs cannot be noted in the \
         bytes that a broker keeps; run it with a filter that was used before, or without one, which sends back what \
         is left, or wait until the topic drops that"
    )]
    TooManyFilters {
        /// The partition.
        partition: i32,
    },
    /// The topics cannot be read.
    #[error("the dead letters cannot be read: {0}")]
    Reading(KafkaError),
    /// The broker has stopped to answer.
    #[error("the broker has sent nothing for 30 s; what was sent back is noted, so run it again when it is there")]
    Silent,
    /// A batch was not sent.
    #[error("the last letters were not sent back: {0}; what was sent before is noted, so run it again")]
    Sending(KafkaError),
    /// Another run.
    #[error("another redrive of this group has begun, and goes on from here in place of this one")]
    Replaced,
}
