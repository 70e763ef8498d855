//! Return to `bootstrap.servers`, for a client whose brokers are all gone.
//!
//! A broker that goes on after a standstill says for a moment that the cluster has no brokers. librdkafka drops then
//! all that it knows, and asks no broker again, until the process ends (seen with 2.12; its issue 5301). So each
//! client's statistics are looked at: when no broker is left in them, the client is given those of its config again.

use std::ffi::CString;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

use rdkafka::admin::AdminClient;
use rdkafka::bindings::rd_kafka_brokers_add;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafka;

/// Client whose native part can be reached.
pub trait Native {
    /// Returns a pointer to librdkafka's client, which lives as long as this one.
    fn native(&self) -> *mut RDKafka;
}

/// Bootstrap servers of a client, and the client, once it is made. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Bootstrap(Arc<OnceLock<ClientOrigin>>);

#[derive(Debug)]
struct ClientOrigin {
    /// The pointer is atomic only since threads may not share a bare one.
    native: AtomicPtr<RDKafka>,
    servers: CString,
}

impl Bootstrap {
    /// Remembers the client, and the value of its `bootstrap.servers`.
    pub(super) fn belongs_to(&self, client: &impl Native, servers: &str) {
        // A text with a zero byte is no list of servers, and no client is made of it.
        let Ok(servers) = CString::new(servers) else { return };
        let _ = self.0.set(ClientOrigin { native: AtomicPtr::new(client.native()), servers });
    }

    /// Gives the client its first brokers again. Only for the client's callbacks. False when the client is not made
    /// yet.
    fn begin_again(&self) -> bool {
        let Some(ClientOrigin { native, servers }) = self.0.get() else { return false };
        #[expect(unsafe_code, reason = "the bindings have no safe call for it")]
        // SAFETY: callbacks run while the client is polled by its holder, so librdkafka's part of it is alive; it takes
        // this call on any thread, and copies the string.
        unsafe {
            rd_kafka_brokers_add(native.load(Ordering::Relaxed), servers.as_ptr());
        }
        true
    }

    /// Looks at the sources of a client's brokers in its statistics: `learned` from others, `configured`, or none that
    /// could be asked, such as `logical`. Returns whether the client had to begin again.
    pub(super) fn look_at(&self, statistics: &Statistics) -> bool {
        let can_be_asked = |source: &str| matches!(source, "learned" | "configured");
        !statistics.brokers.values().any(|broker| can_be_asked(&broker.source)) && self.begin_again()
    }
}

impl<C: ConsumerContext> Native for BaseConsumer<C> {
    fn native(&self) -> *mut RDKafka {
        self.client().native_ptr()
    }
}

impl<C: ProducerContext> Native for BaseProducer<C> {
    fn native(&self) -> *mut RDKafka {
        self.client().native_ptr()
    }
}

impl<C: ProducerContext + 'static> Native for ThreadedProducer<C> {
    fn native(&self) -> *mut RDKafka {
        self.client().native_ptr()
    }
}

impl<C: ClientContext> Native for AdminClient<C> {
    fn native(&self) -> *mut RDKafka {
        self.inner().native_ptr()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::statistics::Broker;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn client_without_broker_finds_those_of_config() {
        let cluster = MockCluster::new(1).unwrap();
        // This client knows no broker, like one that was told that there are none.
        let client: BaseConsumer = ClientConfig::new().create().unwrap();
        assert!(client.fetch_metadata(None, Duration::from_millis(50)).is_err());
        let bootstrap = Bootstrap::default();
        let statistics = |sources: &[&str]| {
            let broker = |source: &&str| Broker { source: (*source).to_owned(), ..Broker::default() };
            let brokers = sources.iter().map(|source| ((*source).to_owned(), broker(source))).collect();
            Statistics { brokers, ..Statistics::default() }
        };
        assert!(!bootstrap.look_at(&statistics(&[])), "it is nobody's yet");
        bootstrap.belongs_to(&client, &cluster.bootstrap_servers());
        assert!(!bootstrap.look_at(&statistics(&["learned", "logical"])));
        assert!(client.fetch_metadata(None, Duration::from_millis(50)).is_err());
        assert!(bootstrap.look_at(&statistics(&["logical"])));
        assert_eq!(client.fetch_metadata(None, PATIENCE).unwrap().brokers().len(), 1);
    }
}
