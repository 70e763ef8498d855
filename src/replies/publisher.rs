//! Publishes what requests end in, and sees each one through until the broker has it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::acknowledged::Acknowledged;
use super::address::{Address, AllowedTopics};
use super::counts::Counts;
use super::direct::Direct;
use super::directory::Directory;
use super::job::{Job, Parking};
use super::limits::Limits;
use super::order::{Order, Place};
use super::outgoing::Graveyard;
use super::throttle::Throttle;
use super::transaction::Transactions;
use crate::broker::{BrokerError, Cluster};
use crate::callers::Callers;
use crate::config::{Delivery, Kafka};
use crate::intake::{Offsets, Ticket};
use crate::message::{Correlation, Fault, Outcome, Request};
use crate::telemetry::{Flow, Metrics, Readiness, RouteMetrics};

/// What a request ends in, on its way out.
pub struct Ending {
    /// The request.
    pub request: Arc<Request>,
    /// Its end.
    pub outcome: Outcome,
    /// Finished when the broker has the record.
    pub ticket: Ticket,
    /// The route's counters, when a route was chosen.
    pub metrics: Option<Arc<RouteMetrics>>,
    /// Its place among those that leave in order, until it has left.
    pub place: Option<Place>,
}

/// Publishes what requests end in. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    allowed: Arc<AllowedTopics>,
    /// None when replies leave as they are finished.
    order: Option<Order>,
    direct: Direct,
    way: Way,
    runtime: Handle,
    /// Whether any record gets through.
    flow: Flow,
}

/// What either way needs.
pub(super) struct Parts {
    pub(super) cluster: Arc<Cluster>,
    pub(super) allowed: Arc<AllowedTopics>,
    pub(super) graveyard: Graveyard,
    pub(super) counts: Counts,
    pub(super) limits: Limits,
    pub(super) directory: Directory,
    pub(super) throttle: Throttle,
    /// Whether any record gets through.
    pub(super) flow: Flow,
    /// Pulled when the producer cannot go on, so that the process ends rather than stand still.
    pub(super) failed: CancellationToken,
}

/// How records reach the broker.
#[derive(Clone)]
enum Way {
    /// Each by itself; a request is finished when the broker has acknowledged its record.
    Acknowledged(Acknowledged),
    /// Many in a transaction, with the offsets of their requests.
    Transactions(Transactions),
}

impl Way {
    /// Sends a job whose turn it is.
    fn send(&self, mut job: Box<Job>) {
        match self {
            Self::Acknowledged(acknowledged) => acknowledged.send(job),
            Self::Transactions(transactions) => {
                let place = job.ending.place.take();
                transactions.send(*job);
                drop(place);
            }
        }
    }
}

impl Publisher {
    /// Creates the producer, and with `delivery: exactly_once` sees that the broker's transactions are real. The part
    /// `replies` of `readiness` is ready from then on, for as long as records get through. `failed` is cancelled if it
    /// cannot go on. Blocks; not for the runtime's workers, but within the runtime.
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
        let part = readiness.part("replies");
        let flow = part.flow("replies to be published");
        let allowed = Arc::new(allowed);
        let order = Order::start(config, cluster, metrics)?;
        let limits = Limits::of(config, cluster)?;
        let direct = Direct::new(callers, limits.largest_record(config), metrics);
        let parts = Parts {
            cluster: cluster.clone(),
            allowed: allowed.clone(),
            graveyard: Graveyard { topic: config.dead_letter_topic.as_str().into(), group: config.group_id.clone() },
            counts: Counts::new(metrics),
            limits,
            directory: Directory::start(config, cluster)?,
            throttle: Throttle::new(metrics.publish_throttle.clone()),
            flow: flow.clone(),
            failed,
        };
        let way = match config.delivery() {
            Delivery::AtLeastOnce => Way::Acknowledged(Acknowledged::start(parts)?),
            Delivery::ExactlyOnce => Way::Transactions(Transactions::prepare(config, parts, metrics)?),
        };
        part.ready();
        Ok(Self { allowed, order, direct, way, runtime: Handle::current(), flow })
    }

    /// Takes the offsets of requests into transactions from now on. Without that nothing is committed.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn begin(&self, offsets: Offsets) -> Result<(), BrokerError> {
        match &self.way {
            Way::Acknowledged(_) => Ok(()),
            Way::Transactions(transactions) => transactions.begin(offsets),
        }
    }

    /// A request's place in the order of leaving, which is that in which places are taken. None when it has none.
    pub fn place(&self, request: &Request, ticket: &Ticket) -> Option<Place> {
        self.order.as_ref()?.place(request, ticket)
    }

    /// Where the reply to a request goes.
    ///
    /// # Errors
    /// When the request names a topic that is not allowed.
    pub fn address(&self, correlation: &Correlation) -> Result<Address, Fault> {
        self.allowed.address(correlation)
    }

    /// Publishes an ending to where its caller wants it.
    pub fn publish(&self, ending: Ending, correlation: Correlation, address: Address) {
        self.send(Job::new(ending, correlation, address, &self.allowed));
    }

    /// Puts a request aside in a retry topic, to be read again from there. What it would have ended in goes to the
    /// address if the topic does not take it.
    pub fn park(&self, ending: Ending, correlation: Correlation, parking: Parking, address: Address) {
        let Parking { topic, reason, failures } = &parking;
        debug!(source = %ending.request.source, topic = %topic.name, reason, failures, "a request is put aside");
        self.send(Job::new(ending, correlation, address, &self.allowed).parked(parking));
    }

    /// Publishes a dead letter, and then its fault: to where the caller wants it, or else to the default topic.
    pub fn dead_letter(&self, ending: Ending, correlation: Correlation, fault: Fault) {
        let address = self.address(&correlation).unwrap_or_else(|_| self.allowed.default_address());
        self.send(Job::new(ending, correlation, address, &self.allowed).dead(fault));
    }

    /// What has to wait for its turn does so in a task of its own.
    fn send(&self, job: Job) {
        let mut job = Box::new(job);
        self.direct.answer(&mut job);
        match &self.order {
            Some(order) if job.ending.place.is_some() => {
                let (order, way, flow) = (order.clone(), self.way.clone(), self.flow.clone());
                // Not only the runtime's own threads refuse requests.
                self.runtime.spawn(async move {
                    order.turn(&mut job).await;
                    job.pending = Some(flow.begin());
                    way.send(job);
                });
            }
            _ => {
                job.pending = Some(self.flow.begin());
                self.way.send(job);
            }
        }
    }

    /// Waits until everything that was handed over is acknowledged, this long at most. Blocks; not for the runtime's
    /// workers.
    pub fn flush(&self, timeout: Duration) {
        match &self.way {
            Way::Acknowledged(acknowledged) => acknowledged.flush(timeout),
            Way::Transactions(transactions) => transactions.finish(timeout),
        }
    }
}
