//! The errors of starting the shim, said so that the reader knows what to do.

use std::io;
use std::net::IpAddr;

use crate::broker::BrokerError;

/// Tells why the shim cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// Another program listens on the port.
    #[error("server.port {port} on {host} is in use by another program; choose another, or 0 for a free one")]
    PortInUse {
        /// `server.host`.
        host: IpAddr,
        /// `server.port`.
        port: u16,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on server.host {host}, server.port {port}: {source}")]
    Listen {
        /// `server.host`.
        host: IpAddr,
        /// `server.port`.
        port: u16,
        /// The system's error.
        source: io::Error,
    },
    /// The system does not say which address the shim listens on.
    #[error("cannot tell the address that is listened on: {0}")]
    Address(io::Error),
    /// The replies topic does not exist.
    #[error("kafka.replies_topic '{topic}' does not exist; create it, or set kafka.create_topics to true")]
    MissingTopic {
        /// `kafka.replies_topic`.
        topic: String,
    },
    /// The replies topic has no such partition.
    #[error(
        "server.reply_partition {partition} does not exist: topic '{topic}' has {count} partitions, numbered from 0; \
         choose a smaller one, or leave it out to have one picked"
    )]
    ReplyPartition {
        /// `server.reply_partition`.
        partition: i32,
        /// `kafka.replies_topic`.
        topic: String,
        /// The number of partitions of the topic.
        count: i32,
    },
    /// The broker refuses or cannot be reached.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The thread that reads replies cannot be started.
    #[error("cannot start the thread that reads replies: {0}")]
    Thread(io::Error),
}
