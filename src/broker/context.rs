//! Callbacks of clients: librdkafka's reports, turned into a few log lines.
//!
//! A broker that is gone makes every client complain on each attempt to reach it, many times a second. All clients
//! share one [`BrokerHealth`], which says once that the broker is gone and once that it is back.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::statistics::Statistics;
use rdkafka::util::IntoOpaque;
use tracing::{debug, info, trace, warn};

use super::bootstrap::Bootstrap;
use super::topic_id::{FACILITY, TopicIds};

/// Health of the broker: whether it can be reached, as all clients together see it.
#[derive(Debug, Default)]
pub struct BrokerHealth {
    unreachable: AtomicBool,
    suppressed: AtomicU64,
    since: Mutex<Option<Instant>>,
}

/// Callbacks of a client: health, logs, and what its role makes of delivery reports.
#[derive(Debug)]
pub struct BrokerContext<D = ()> {
    role: &'static str,
    health: Arc<BrokerHealth>,
    topic_ids: TopicIds,
    bootstrap: Bootstrap,
    /// True if the client is silent for long times.
    is_at_rest: bool,
    /// True if the client is meant to meet with errors.
    is_quiet: bool,
    deliveries: D,
}

/// Receiver of a producer's delivery reports and statistics. That of a client which has no use for them is `()`.
pub trait Deliveries: Send + Sync + 'static {
    /// Companion of each record on its way to the broker.
    type Record: IntoOpaque;

    /// Takes in the fate of a record.
    fn delivered(&self, result: Result<(), &KafkaError>, record: Self::Record);

    /// Takes in the client's statistics.
    fn statistics(&self, _: &Statistics) {}
}

impl Deliveries for () {
    type Record = ();

    fn delivered(&self, _: Result<(), &KafkaError>, (): ()) {}
}

impl BrokerHealth {
    /// Notes that the broker has answered. Costs one relaxed load unless the broker was unreachable.
    pub fn answered(&self) {
        if self.unreachable.load(Ordering::Relaxed) && self.unreachable.swap(false, Ordering::AcqRel) {
            let since = self.since.lock().take();
            info!(
                seconds = since.map_or(0.0, |since| since.elapsed().as_secs_f64()),
                suppressed_lines = self.suppressed.swap(0, Ordering::Relaxed),
                "the broker answers again"
            );
        }
    }

    /// Returns whether the last report was that the broker cannot be reached.
    pub fn is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    fn lost(&self, role: &str, reason: &str) {
        if self.unreachable.swap(true, Ordering::AcqRel) {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        *self.since.lock() = Some(Instant::now());
        warn!(client = role, reason, "the broker cannot be reached; requests wait until it is back");
    }
}

impl BrokerContext {
    /// Creates the callbacks of the client with this role.
    pub(super) fn new(role: &'static str, health: Arc<BrokerHealth>) -> Self {
        let (topic_ids, bootstrap) = (TopicIds::default(), Bootstrap::default());
        Self { role, health, topic_ids, bootstrap, is_at_rest: false, is_quiet: false, deliveries: () }
    }

    /// Adds a receiver of delivery reports.
    pub fn with<D>(self, deliveries: D) -> BrokerContext<D> {
        let Self { role, health, topic_ids, bootstrap, is_at_rest, is_quiet, deliveries: () } = self;
        BrokerContext { role, health, topic_ids, bootstrap, is_at_rest, is_quiet, deliveries }
    }

    /// Marks a client that is at rest most of the time. Its reports of brokers that are away are heard late, when they
    /// may long be wrong; the other clients make them as well.
    #[must_use]
    pub fn at_rest(self) -> Self {
        Self { is_at_rest: true, ..self }
    }

    /// Marks a client that is meant to meet with errors, so that its complaints are no warnings.
    #[must_use]
    pub(super) fn quiet(self) -> Self {
        Self { is_quiet: true, ..self }
    }
}

impl<D> BrokerContext<D> {
    /// Returns the receiver of delivery reports.
    pub fn deliveries(&self) -> &D {
        &self.deliveries
    }

    /// Returns the ids of the topics that the client knows; see [`TOPIC_IDS`](super::TOPIC_IDS).
    pub fn topic_ids(&self) -> &TopicIds {
        &self.topic_ids
    }

    /// Returns the health that all clients share.
    pub fn health(&self) -> &BrokerHealth {
        &self.health
    }

    pub(super) fn bootstrap(&self) -> &Bootstrap {
        &self.bootstrap
    }

    /// Looks at the client's brokers in its statistics; a client without brokers begins again.
    pub fn look_at_brokers(&self, statistics: &Statistics) {
        if self.bootstrap.look_at(statistics) {
            warn!(
                client = self.role,
                "the cluster said that it has no brokers, so they are asked for again at those of the config"
            );
        }
    }
}

impl<D: Deliveries> ClientContext for BrokerContext<D> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical if !self.is_quiet => {
                warn!(client = self.role, facility, message, "librdkafka");
            }
            // Not of lost connections, which come to `error` as well and are counted there; nor of properties, one set of
            // which serves producers and consumers, so that each is told of some that are the other's.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning
                if !self.is_quiet && !is_about_connections(facility) && facility != "CONFWARN" =>
            {
                warn!(client = self.role, facility, message, "librdkafka");
            }
            RDKafkaLogLevel::Debug if facility == FACILITY => {
                self.topic_ids.note(message);
                trace!(client = self.role, message, "librdkafka");
            }
            _ => debug!(client = self.role, facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        match code {
            Some(RDKafkaErrorCode::AllBrokersDown) if self.is_at_rest => {}
            Some(RDKafkaErrorCode::AllBrokersDown) => self.health.lost(self.role, reason),
            // The consumer that wants to know gets this error in its place among the records.
            Some(RDKafkaErrorCode::PartitionEOF) => {}
            Some(code) if is_connection_error(code) => {
                debug!(client = self.role, %code, reason, "a broker connection was lost");
            }
            _ if self.is_quiet => debug!(client = self.role, %error, reason, "librdkafka reports an error"),
            _ => warn!(client = self.role, %error, reason, "librdkafka reports an error"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.look_at_brokers(&statistics);
        self.deliveries.statistics(&statistics);
    }
}

impl ConsumerContext for BrokerContext {}

impl<D: Deliveries> ProducerContext for BrokerContext<D> {
    type DeliveryOpaque = D::Record;

    fn delivery(&self, result: &DeliveryResult<'_>, record: D::Record) {
        if result.is_ok() {
            self.health.answered();
        }
        self.deliveries.delivered(result.as_ref().map(|_| ()).map_err(|(error, _)| error), record);
    }
}

/// Returns whether a facility of librdkafka's is for lines about connections that come and go.
fn is_about_connections(facility: &str) -> bool {
    matches!(facility, "FAIL" | "ERROR" | "SESSTMOUT" | "REQTMOUT" | "TERMINATE" | "MAXPOLL" | "GETPID" | "COORD")
}

/// Returns whether a code says no more than that a connection is not there now.
pub(crate) fn is_connection_error(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::NetworkException
            | RDKafkaErrorCode::NodeUpdate
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::BrokerNotAvailable
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::NotLeaderForPartition
    )
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

    use super::*;
    use crate::broker::Cluster;
    use crate::config::Kafka;

    struct StatisticsReceiver(Sender<Statistics>);

    impl Deliveries for StatisticsReceiver {
        type Record = ();

        fn delivered(&self, result: Result<(), &KafkaError>, (): ()) {
            result.unwrap();
        }

        fn statistics(&self, statistics: &Statistics) {
            self.0.send(statistics.clone()).unwrap();
        }
    }

    #[test]
    fn producer_receives_its_statistics() {
        let cluster = Cluster::new(&Kafka::default()).unwrap();
        let (sender, statistics) = channel();
        let settings = [("statistics.interval.ms", "50"), ("enable.idempotence", "true")];
        let context = |broker: BrokerContext| broker.with(StatisticsReceiver(sender));
        let producer: ThreadedProducer<BrokerContext<StatisticsReceiver>> =
            cluster.client("test", &settings, context).unwrap();
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("topic").payload(b"value");
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(20)).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while !statistics.recv_timeout(Duration::from_secs(20)).unwrap().topics.contains_key("topic") {
            assert!(Instant::now() < until, "no statistics of the topic came");
        }
    }
}
