//! Order of replies (`kafka.ordering`): replies leave in the order of their requests.
//!
//! Models are called in parallel all the same: a reply that is finished early waits for those of its key (or partition)
//! whose requests were read before its own. Each request takes its [`OrderPlace`] when it is read, and keeps it until
//! librdkafka, or the thread of the transactions, has its last record; both keep the order of what they are given.

mod partitions;
mod place;
mod queues;

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::address::ReplyAddress;
use crate::broker::{BrokerError, Cluster};
use crate::config::{Kafka, Ordering};
use crate::intake::Ticket;
use crate::message::Request;
use crate::telemetry::Metrics;
use partitions::Partitions;
pub(super) use partitions::partition_of;
pub use place::OrderPlace;
use place::Sequencer;
use queues::QueueId;

/// Order in which replies leave. Cheap to clone.
#[derive(Clone)]
pub(super) struct ReplyOrder {
    by: By,
    default_topic: Arc<str>,
    sequencer: Arc<Sequencer>,
    partitions: Arc<Partitions>,
}

/// Scope of the order.
#[derive(Debug, Clone, Copy)]
enum By {
    Key,
    Partition,
}

/// Partitions for one request's reply.
pub(super) struct OrderedPartitions {
    /// In the topic that the reply is addressed to.
    pub(super) partition: Option<i32>,
    /// In the default topic, in case the reply has to go there instead.
    pub(super) fallback: Option<i32>,
}

impl ReplyOrder {
    /// Starts the order. None when replies leave as they are finished. Blocks; not for the runtime's workers.
    pub(super) fn start(
        config: &Kafka,
        cluster: &Arc<Cluster>,
        metrics: &Metrics,
    ) -> Result<Option<Self>, BrokerError> {
        let by = match config.ordering {
            Ordering::Unordered => return Ok(None),
            Ordering::Key => By::Key,
            Ordering::Partition => By::Partition,
        };
        let sequencer = Arc::new(Sequencer::new(metrics.order_waiting.clone(), metrics.order_wait.clone()));
        let partitions = Arc::new(Partitions::of_default(cluster.clone(), &config.replies_topic)?);
        Ok(Some(Self { by, default_topic: Arc::from(config.replies_topic.as_str()), sequencer, partitions }))
    }

    /// Takes a place behind all that were taken before it. None for a request without a key where keys have the order.
    pub(super) fn place(&self, request: &Request, ticket: &Ticket) -> Option<OrderPlace> {
        let key = match self.by {
            By::Key => xxh3_64(request.key.as_deref()?),
            By::Partition => 0,
        };
        let (lane, epoch) = ticket.position().assignment();
        Some(self.sequencer.join(QueueId { lane, epoch, key }))
    }

    /// Chooses the partitions in which the request's order can be seen.
    pub(super) async fn partitions(
        &self,
        request: &Request,
        address: &ReplyAddress,
        is_futile: impl Fn() -> bool,
    ) -> OrderedPartitions {
        let partition = |count| self.partition(request, count);
        let fallback = self.partitions.known(&self.default_topic).and_then(partition);
        let partition = match address.partition {
            Some(named) => Some(named),
            None => self.partitions.count(&address.topic, is_futile).await.and_then(partition),
        };
        OrderedPartitions { partition, fallback }
    }

    fn partition(&self, request: &Request, count: i32) -> Option<i32> {
        match self.by {
            By::Key => Some(partition_of(request.key.as_deref()?, count)),
            By::Partition => Some(request.source.partition % count.max(1)),
        }
    }
}
