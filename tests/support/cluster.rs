//! Runs three brokers, each record on all of them.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::kafka::{create_topic, onlooker};
use super::{Broker, free_port, fresh_directory};

const BROKERS: usize = 3;
const READY_WITHIN: Duration = Duration::from_secs(150);

/// Owns three brokers of which one may be away: each record is on all three and is acknowledged by two.
pub(crate) struct Cluster {
    brokers: Vec<Broker>,
    ports: [u16; BROKERS],
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let (ports, controllers) = ([(); BROKERS].map(|()| free_port()), [(); BROKERS].map(|()| free_port()));
        let voters = (1..).zip(controllers).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect::<Vec<_>>();
        let voters = voters.join(",");
        let format = |at: usize| {
            let (port, controller) = (ports[at], controllers[at]);
            let settings = format!(
                "node.id={}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2",
                at + 1
            );
            Broker::format(fresh_directory(&format!("kafka-{}", at + 1)), Vec::new(), "-Xmx384m", &settings)
        };
        let brokers = std::thread::scope(|scope| {
            let format = &format;
            let formatting: Vec<_> = (0..BROKERS).map(|at| scope.spawn(move || format(at))).collect();
            formatting.into_iter().map(|broker| broker.join().unwrap()).collect()
        });
        let mut cluster = Self { brokers, ports };
        cluster.brokers.iter_mut().for_each(Broker::start);
        cluster.wait_until_whole();
        cluster
    }

    /// Returns the addresses of all brokers, so that clients find the cluster whichever of the brokers is away.
    pub(crate) fn bootstrap(&self) -> String {
        self.ports.map(|port| format!("127.0.0.1:{port}")).join(",")
    }

    /// Creates a topic on all three brokers, and returns its name, which no other test has.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32) -> String {
        create_topic(&self.bootstrap(), name, partitions, 3, &[("min.insync.replicas", "2")])
    }

    /// Creates a topic whose partitions are on one broker each.
    pub(crate) fn create_topic_without_copies(&self, name: &str, partitions: i32) -> String {
        create_topic(&self.bootstrap(), name, partitions, 1, &[("min.insync.replicas", "1")])
    }

    /// Returns the broker, counted from 0, that leads each partition of a topic.
    pub(crate) fn leaders(&self, topic: &str) -> Vec<usize> {
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().unwrap();
        super::wait_until("the leaders of a topic", READY_WITHIN, || {
            let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(2)).ok()?;
            let leaders = metadata.topics()[0].partitions().iter().map(|partition| partition.leader() - 1);
            leaders.map(|leader| usize::try_from(leader).ok()).collect::<Option<Vec<_>>>()
        })
    }

    /// Stops one broker, counted from 0, as a power cut would.
    pub(crate) fn kill(&mut self, broker: usize) {
        self.brokers[broker].kill();
    }

    /// Stops one broker as an operator would.
    pub(crate) fn stop(&mut self, broker: usize) {
        self.brokers[broker].stop();
    }

    /// Starts one broker again, and waits until all three have every record that was on all of them.
    pub(crate) fn start_again(&mut self, broker: usize) {
        self.brokers[broker].start();
        self.wait_until_whole();
    }

    /// Waits until each of the brokers that are started is in the set of replicas of every partition.
    pub(crate) fn wait_until_whole(&mut self) {
        let started = self.brokers.iter().filter(|broker| broker.is_started()).count();
        let begun = Instant::now();
        loop {
            let whole =
                onlooker(&self.bootstrap()).fetch_metadata(None, Duration::from_secs(2)).is_ok_and(|metadata| {
                    let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
                    metadata.brokers().len() == started
                        && partitions.all(|partition| partition.isr().len() == started.min(partition.replicas().len()))
                });
            if whole {
                return;
            }
            for broker in &mut self.brokers {
                assert!(
                    broker.ended().is_none(),
                    "a broker has ended: {}\n{}",
                    broker.directory().display(),
                    broker.log()
                );
            }
            assert!(begun.elapsed() < READY_WITHIN, "the brokers do not find together:\n{}", self.brokers[0].log());
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}
