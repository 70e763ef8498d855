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

/// Callbacks of a client that needs nothing more than health and logs.
#[derive(Debug, Clone)]
pub struct BrokerContext {
    role: &'static str,
    health: Arc<BrokerHealth>,
    topic_ids: Arc<TopicIds>,
    bootstrap: Bootstrap,
    /// True if the client is silent for long times.
    is_at_rest: bool,
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
    pub fn new(role: &'static str, health: Arc<BrokerHealth>) -> Self {
        Self { role, health, topic_ids: Arc::default(), bootstrap: Bootstrap::default(), is_at_rest: false }
    }

    /// Marks a client that is at rest most of the time. Its reports of brokers that are away are heard late, when they
    /// may long be wrong; the other clients make them as well.
    #[must_use]
    pub fn at_rest(self) -> Self {
        Self { is_at_rest: true, ..self }
    }

    /// Returns the ids of the topics that the client knows; see [`Cluster::client_with_topic_ids`](super::Cluster).
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

    /// Looks at the sources of the client's brokers in its statistics; a client without brokers begins again.
    pub fn look_at_brokers<'a>(&self, sources: impl Iterator<Item = &'a str>) {
        self.has_begun_again(self.bootstrap.look_at(sources));
    }

    fn has_begun_again(&self, has: bool) {
        if has {
            warn!(
                client = self.role,
                "the cluster said that it has no brokers, so they are asked for again at those of the config"
            );
        }
    }
}

impl ClientContext for BrokerContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                warn!(client = self.role, facility, message, "librdkafka");
            }
            // Lost connections come here as well as to `error`, where they are counted. One set of properties serves
            // producers and consumers, so each is warned of some that are the other's.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning
                if is_about_connections(facility) || facility == "CONFWARN" =>
            {
                debug!(client = self.role, facility, message, "librdkafka");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                warn!(client = self.role, facility, message, "librdkafka");
            }
            RDKafkaLogLevel::Debug if facility == FACILITY => {
                self.topic_ids.note(message);
                trace!(client = self.role, message, "librdkafka");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                debug!(client = self.role, facility, message, "librdkafka");
            }
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
            _ => warn!(client = self.role, %error, reason, "librdkafka reports an error"),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.has_begun_again(self.bootstrap.look_at_json(statistics));
    }
}

impl ConsumerContext for BrokerContext {}

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
