//! The broker's word on each record, as it comes to the producer's own thread.

use std::sync::Arc;
use std::time::Instant;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio::sync::mpsc::UnboundedSender;

use super::address::Address;
use super::publisher::Ending;
use crate::broker::BrokerContext;
use crate::message::{Correlation, Fault};
use crate::telemetry::Metrics;

/// One record on its way, with the request that ends by it.
pub(super) struct Job {
    pub(super) ending: Ending,
    pub(super) correlation: Correlation,
    pub(super) destination: Destination,
    pub(super) sent: Instant,
}

/// What the record is.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    /// The reply or fault, to where the caller wants it.
    Caller(Address),
    /// The fault, to the default topic, after the dead letter.
    Default,
    /// The dead letter, and the fault that follows it.
    DeadLetter { fault: Fault, whole: bool, any_partition: bool },
}

/// A job that needs another record. Few ever do, so the channel is unbounded in name only: it never holds more than is
/// in flight.
pub(super) enum Unsettled {
    /// The broker did not take the record.
    Failed(Box<Job>, KafkaError),
    /// The dead letter is acknowledged; its caller is still to be told.
    DeadLettered(Box<Job>, Fault),
}

/// The producer's callbacks.
pub(super) struct DeliveryContext {
    pub(super) broker: BrokerContext,
    pub(super) unsettled: UnboundedSender<Unsettled>,
    pub(super) metrics: DeliveryMetrics,
}

/// Handles with their labels bound.
pub(super) struct DeliveryMetrics {
    pub(super) replies: prometheus::IntCounter,
    pub(super) faults: prometheus::IntCounter,
    pub(super) dead_letters: prometheus::IntCounter,
    pub(super) duration: prometheus::Histogram,
    pub(super) all: Metrics,
}

impl DeliveryMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            replies: metrics.published.with_label_values(&["reply"]),
            faults: metrics.published.with_label_values(&["fault"]),
            dead_letters: metrics.published.with_label_values(&["dead_letter"]),
            duration: metrics.publish_duration.clone(),
            all: metrics.clone(),
        }
    }

    /// A request has ended for good.
    fn ended(&self, ending: &Ending) {
        let outcome = &ending.outcome;
        let received = ending.ticket.received();
        match (&outcome.result, &ending.metrics) {
            (Ok(_), Some(route)) => {
                self.replies.inc();
                route.answered.inc();
                route.request_duration.observe(received.elapsed().as_secs_f64());
            }
            (Ok(_), None) => self.replies.inc(),
            (Err(fault), route) => {
                self.faults.inc();
                let name = |name: &Option<Arc<str>>| name.as_deref().unwrap_or("").to_owned();
                let (endpoint, alias) = (name(&outcome.served_by.endpoint), name(&outcome.served_by.route));
                self.all.requests.with_label_values(&[&*endpoint, &*alias, &*fault.code.status().to_string()]).inc();
                if let Some(route) = route {
                    route.request_duration.observe(received.elapsed().as_secs_f64());
                }
            }
        }
    }
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.broker.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.broker.error(error, reason);
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Box<Job>;

    fn delivery(&self, result: &DeliveryResult<'_>, job: Box<Job>) {
        if let Err((error, _)) = result {
            // The receiver is gone only after everything in flight has ended or was given up.
            let _ = self.unsettled.send(Unsettled::Failed(job, error.clone()));
            return;
        }
        self.broker.health().answered();
        self.metrics.duration.observe(job.sent.elapsed().as_secs_f64());
        match &job.destination {
            Destination::DeadLetter { fault, .. } => {
                self.metrics.dead_letters.inc();
                self.metrics.all.dead_letters.with_label_values(&[fault.code.name()]).inc();
                let fault = fault.clone();
                let _ = self.unsettled.send(Unsettled::DeadLettered(job, fault));
            }
            Destination::Caller(_) | Destination::Default => {
                self.metrics.ended(&job.ending);
                job.ending.ticket.finish();
            }
        }
    }
}
