//! Publisher of finished requests; sees each one through until the broker has it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::address::{AllowedTopics, ReplyAddress};
use super::at_least_once::AtLeastOnce;
use super::counts::Counts;
use super::directory::TopicDirectory;
use super::exactly_once::ExactlyOnce;
use super::limits::TopicLimits;
use super::local_reply::LocalReply;
use super::order::{OrderPlace, ReplyOrder};
use super::outgoing::DeadLetterTopic;
use super::parked::Parking;
use super::parts::Parts;
use super::publication::{FinishedRequest, Publication};
use super::throttle::Throttle;
use crate::broker::{BrokerError, Cluster};
use crate::callers::Callers;
use crate::config::{Delivery, Kafka};
use crate::intake::{Offsets, Ticket};
use crate::message::{Correlation, Fault, Request};
use crate::telemetry::{Metrics, Readiness};

/// Publishes finished requests. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    parts: Arc<Parts>,
    /// None when replies leave as they are finished.
    order: Option<ReplyOrder>,
    local: LocalReply,
    mode: DeliveryMode,
    runtime: Handle,
}

/// Producer for the configured `kafka.delivery`.
#[derive(Clone)]
enum DeliveryMode {
    /// Each record goes by itself; a request is finished when the broker has acknowledged its record.
    AtLeastOnce(AtLeastOnce),
    /// Many records go in one transaction, with the offsets of their requests.
    ExactlyOnce(ExactlyOnce),
}

impl DeliveryMode {
    /// Sends a publication whose turn has come.
    fn send(&self, mut publication: Box<Publication>) {
        match self {
            Self::AtLeastOnce(acknowledged) => acknowledged.send(publication),
            Self::ExactlyOnce(transactions) => {
                let place = publication.ending.place.take();
                transactions.send(*publication);
                drop(place);
            }
        }
    }
}

impl Publisher {
    /// Creates the producer, and with `delivery: exactly_once` checks that the broker's transactions are real. The part
    /// `replies` of `readiness` is ready from then on, for as long as records get through. `failed` is cancelled if the
    /// producer cannot go on. Blocks; not for the runtime's workers, but within the runtime.
    ///
    /// # Errors
    /// When librdkafka refuses a property, or the broker transactions.
    pub fn start(
        config: &Kafka,
        cluster: &Arc<Cluster>,
        allowed: AllowedTopics,
        callers: Callers,
        metrics: &Metrics,
        readiness: &Readiness,
        failed: CancellationToken,
    ) -> Result<Self, BrokerError> {
        let readiness = readiness.part("replies");
        let limits = TopicLimits::of(config, cluster)?;
        let local = LocalReply::new(callers, limits.largest_record(config), metrics);
        let directory = TopicDirectory::start(config, cluster)?;
        let order = ReplyOrder::new(config, &directory, metrics);
        let parts = Arc::new(Parts {
            cluster: cluster.clone(),
            allowed,
            dead_letters: DeadLetterTopic {
                topic: config.dead_letter_topic.as_str().into(),
                group: config.group_id.clone(),
            },
            counts: Counts::new(metrics),
            limits,
            directory,
            throttle: Throttle::new(metrics.publish_throttle.clone()),
            flow: readiness.flow("replies to be published"),
            failed,
        });
        let mode = match config.delivery() {
            Delivery::AtLeastOnce => DeliveryMode::AtLeastOnce(AtLeastOnce::start(parts.clone())?),
            Delivery::ExactlyOnce => DeliveryMode::ExactlyOnce(ExactlyOnce::prepare(config, parts.clone(), metrics)?),
        };
        readiness.ready();
        Ok(Self { parts, order, local, mode, runtime: Handle::current() })
    }

    /// Begins to commit the offsets of requests in transactions. Nothing is committed before.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn begin(&self, offsets: Offsets) -> Result<(), BrokerError> {
        match &self.mode {
            DeliveryMode::AtLeastOnce(_) => Ok(()),
            DeliveryMode::ExactlyOnce(transactions) => transactions.begin(offsets),
        }
    }

    /// Takes a request's place in the order in which replies leave, which is the order of these calls. None when the
    /// request has no order.
    pub fn place(&self, request: &Request, ticket: &Ticket) -> Option<OrderPlace> {
        self.order.as_ref()?.place(request, ticket)
    }

    /// Returns the address of the reply to a request.
    ///
    /// # Errors
    /// When the request names a topic that is not allowed.
    pub fn address(&self, correlation: &Correlation) -> Result<ReplyAddress, Fault> {
        self.parts.allowed.address(correlation)
    }

    /// Publishes the reply or fault to its address.
    pub fn publish(&self, ending: FinishedRequest, correlation: Correlation, address: ReplyAddress) {
        self.send(Publication::new(ending, correlation, address, &self.parts.allowed));
    }

    /// Parks a request in a retry topic, to be read again from there. The reply or fault goes to the address if the
    /// retry topic does not take the request.
    pub fn park(&self, ending: FinishedRequest, correlation: Correlation, parking: Parking, address: ReplyAddress) {
        let Parking { topic, reason, failures } = &parking;
        debug!(source = %ending.request.source, topic = %topic.name, reason, failures, "a request is parked");
        self.send(Publication::new(ending, correlation, address, &self.parts.allowed).parked(parking));
    }

    /// Publishes a dead letter, and then its fault: to the address that the caller wants, or else to the default topic.
    pub fn dead_letter(&self, ending: FinishedRequest, correlation: Correlation, fault: Fault) {
        let allowed = &self.parts.allowed;
        let address = allowed.address(&correlation).unwrap_or_else(|_| allowed.default_address());
        self.send(Publication::new(ending, correlation, address, allowed).dead(fault));
    }

    /// Sends a publication. One that has to wait for its turn does so in a task of its own.
    fn send(&self, publication: Publication) {
        let mut publication = Box::new(publication);
        self.local.answer(&mut publication);
        match &self.order {
            Some(order) if publication.ending.place.is_some() => {
                let (order, mode, parts) = (order.clone(), self.mode.clone(), self.parts.clone());
                // Requests are refused on other threads as well, so the runtime is named here.
                self.runtime.spawn(async move {
                    publication.wait_for_turn(&order).await;
                    publication.pending = Some(parts.flow.begin());
                    mode.send(publication);
                });
            }
            _ => {
                publication.pending = Some(self.parts.flow.begin());
                self.mode.send(publication);
            }
        }
    }

    /// Waits until everything that was handed over is acknowledged, this long at most. Blocks; not for the runtime's
    /// workers.
    pub fn flush(&self, timeout: Duration) {
        match &self.mode {
            DeliveryMode::AtLeastOnce(acknowledged) => acknowledged.flush(timeout),
            DeliveryMode::ExactlyOnce(transactions) => transactions.finish(timeout),
        }
    }
}
