//! Order of replies (`kafka.ordering`): replies leave in the order of their requests.
//!
//! Models are called in parallel all the same: a reply that is finished early waits for those of its key (or partition)
//! whose requests were read before its own. Each request takes its [`OrderPlace`] when it is read, and keeps it until
//! librdkafka, or the thread of the transactions, has its last record; both keep the order of what they are given.

mod place;
mod queues;

use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::address::ReplyAddress;
use super::directory::TopicDirectory;
use super::partitioner::partition_of;
use crate::config::{Kafka, Ordering};
use crate::intake::Ticket;
use crate::message::Request;
use crate::telemetry::Metrics;
pub use place::OrderPlace;
use place::Sequencer;
use queues::QueueId;

/// Pause before the directory is asked again for a topic that is being looked up.
const KNOWN_AFTER: Duration = Duration::from_millis(20);

/// Order in which replies leave. Cheap to clone.
#[derive(Clone)]
pub(super) struct ReplyOrder {
    /// True if keys have the order, and not partitions.
    by_key: bool,
    default_topic: Arc<str>,
    sequencer: Arc<Sequencer>,
    directory: TopicDirectory,
}

impl ReplyOrder {
    /// Creates the order. None when replies leave as they are finished.
    pub(super) fn new(config: &Kafka, directory: &TopicDirectory, metrics: &Metrics) -> Option<Self> {
        (config.ordering != Ordering::Unordered).then(|| Self {
            by_key: config.ordering == Ordering::Key,
            default_topic: Arc::from(config.replies_topic.as_str()),
            sequencer: Arc::new(Sequencer::new(metrics.order_waiting.clone(), metrics.order_wait.clone())),
            directory: directory.clone(),
        })
    }

    /// Takes a place behind all that were taken before it. None for a request without a key where keys have the order.
    pub(super) fn place(&self, request: &Request, ticket: &Ticket) -> Option<OrderPlace> {
        let key = if self.by_key { xxh3_64(request.key.as_deref()?) } else { 0 };
        let (lane, epoch) = ticket.position().assignment();
        Some(self.sequencer.join(QueueId { lane, epoch, key }))
    }

    /// Chooses the partition of the reply's topic in which the request's order can be seen. Waits until it is known
    /// how many there are: without a broker the reply could not go anywhere. None when there is no such topic, or
    /// `is_futile` before a broker has answered.
    pub(super) async fn partition(
        &self,
        request: &Request,
        address: &ReplyAddress,
        is_futile: impl Fn() -> bool,
    ) -> Option<i32> {
        if address.partition.is_some() {
            return address.partition;
        }
        while !is_futile() {
            if let Some(count) = self.directory.partition_count(&address.topic) {
                return self.partition_among(request, count?);
            }
            tokio::time::sleep(KNOWN_AFTER).await;
        }
        None
    }

    /// Chooses the partition of the default topic, in case the reply has to go there instead.
    pub(super) fn default_partition(&self, request: &Request) -> Option<i32> {
        self.partition_among(request, self.directory.partition_count(&self.default_topic)??)
    }

    fn partition_among(&self, request: &Request, count: i32) -> Option<i32> {
        match self.by_key {
            true => Some(partition_of(request.key.as_deref()?, count)),
            false => Some(request.source.partition % count.max(1)),
        }
    }
}
