//! Runs Apache Kafka itself: one broker in KRaft mode, on the jars that `tests/run` installs.

use std::process::ExitStatus;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::{Broker, Disk, Proxy, free_port, fresh_directory, unique, wait_until};

const READY_WITHIN: Duration = Duration::from_secs(90);

/// Owns a broker, and the plain clients that tests look at it with.
pub(crate) struct Kafka {
    port: u16,
    broker: Broker,
    producer: BaseProducer,
}

impl Kafka {
    /// Returns the broker that all tests share which do not stop it. The first test starts it.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts a broker of one's own.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a broker of one's own, with more lines of `server.properties`.
    pub(crate) fn start_with(properties: &str) -> Self {
        Self::launch(properties, None, None)
    }

    /// Starts a broker of one's own that can also be reached through a proxy, and which clients that come through the
    /// proxy reach in no other way.
    pub(crate) fn start_behind(proxy: &Proxy) -> Self {
        Self::launch("", Some(proxy), None)
    }

    /// Starts a broker of one's own whose records are on that disk.
    pub(crate) fn start_on(disk: &Disk) -> Self {
        // The segments are small, as they are made in full at the start.
        Self::launch("log.index.size.max.bytes=65536", None, Some(disk))
    }

    fn launch(properties: &str, proxy: Option<&Proxy>, disk: Option<&Disk>) -> Self {
        let directory = disk.map_or_else(|| fresh_directory("kafka"), |disk| disk.directory().to_owned());
        let (port, controller) = (free_port(), free_port());
        let (mut listeners, mut advertised, mut protocols) = (String::new(), String::new(), String::new());
        if let Some(proxy) = proxy {
            listeners = format!(",PROXIED://127.0.0.1:{}", proxy.target());
            advertised = format!(",PROXIED://127.0.0.1:{}", proxy.port());
            protocols = ",PROXIED:PLAINTEXT".to_owned();
        }
        let settings = format!(
            "node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=PLAINTEXT
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
{properties}"
        );
        let prefix = disk.map(Disk::prefix).unwrap_or_default();
        let broker = Broker::format(directory, prefix, "-Xmx512m", &settings);
        let producer = ClientConfig::new()
            .set("bootstrap.servers", format!("127.0.0.1:{port}"))
            .set("linger.ms", "1")
            .create()
            .unwrap();
        let mut kafka = Self { port, broker, producer };
        kafka.start_again();
        kafka
    }

    /// Returns the address for clients.
    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the broker's output.
    pub(crate) fn log(&self) -> String {
        self.broker.log()
    }

    /// Stops the broker as an operator would.
    pub(crate) fn stop(&mut self) {
        self.broker.stop();
    }

    /// Stops the broker as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.broker.kill();
    }

    /// Starts the broker again after [`Self::stop`] or [`Self::kill`], on its port and with its records.
    pub(crate) fn start_again(&mut self) {
        self.broker.start();
        let began = Instant::now();
        while let Err(error) = onlooker(&self.bootstrap()).fetch_metadata(None, Duration::from_millis(250)) {
            let log = self.log();
            let ended = self.broker.ended();
            assert!(ended.is_none() && began.elapsed() < READY_WITHIN, "the broker does not answer ({error}):\n{log}");
        }
    }

    /// Creates a topic whose name starts with `name` and that no other test has; returns the name.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32) -> String {
        self.create_topic_with(name, partitions, &[])
    }

    /// Creates such a topic with settings of its own, such as `max.message.bytes`.
    pub(crate) fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        create_topic(&self.bootstrap(), name, partitions, 1, settings)
    }

    /// Changes a setting of a topic.
    pub(crate) fn set(&self, topic: &str, key: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
        let changed = wait_for_future(admin(&self.bootstrap()).alter_configs([&change], &AdminOptions::new()));
        changed.unwrap()[0].as_ref().unwrap();
    }

    /// Deletes a topic, and makes another of its name so long after, as soon as the broker lets it.
    pub(crate) fn make_anew(&self, topic: &str, partitions: i32, after: Duration) {
        let (admin, options) = (admin(&self.bootstrap()), AdminOptions::new());
        wait_for_future(admin.delete_topics(&[topic], &options)).unwrap()[0].as_ref().unwrap();
        std::thread::sleep(after);
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        wait_until("the topic to be made anew", Duration::from_secs(30), || {
            wait_for_future(admin.create_topics([&new], &options)).unwrap()[0].is_ok().then_some(())
        });
        // The topic is usable once it has leaders; until then records that are sent are held back.
        wait_until("the topic's leaders", Duration::from_secs(30), || {
            let metadata = self.producer.client().fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
            let found = metadata.topics().first()?.partitions();
            (found.len() == usize::try_from(partitions).unwrap() && found.iter().all(|it| it.leader() >= 0))
                .then_some(())
        });
    }

    /// Makes the broker lose all records of a topic while it is stopped, as a disk might that nobody has told to write.
    pub(crate) fn lose_records(&mut self, topic: &str) {
        assert!(!self.broker.is_started());
        for entry in std::fs::read_dir(self.broker.directory().join("data")).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("{topic}-")) {
                std::fs::remove_dir_all(entry.path()).unwrap();
            }
        }
    }

    /// Creates a topic of just this name.
    pub(crate) fn create_exactly(&self, name: &str, partitions: i32) {
        let new = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let created = wait_for_future(admin(&self.bootstrap()).create_topics([&new], &AdminOptions::new()));
        created.unwrap()[0].as_ref().unwrap();
    }

    /// Gives a topic more partitions, so many in all.
    pub(crate) fn grow(&self, topic: &str, partitions: usize) {
        let new = NewPartitions::new(topic, partitions);
        let grown = wait_for_future(admin(&self.bootstrap()).create_partitions([&new], &AdminOptions::new()));
        grown.unwrap()[0].as_ref().unwrap();
    }

    /// Lists the topics whose names begin so.
    pub(crate) fn topics(&self, prefix: &str) -> Vec<String> {
        let metadata = self.producer.client().fetch_metadata(None, Duration::from_secs(30)).unwrap();
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    /// Returns the exit status, if the broker has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.broker.ended()
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.broker.pid()
    }

    /// Writes one record and waits until the broker has it.
    pub(crate) fn produce(&self, topic: &str, key: Option<&str>, headers: &[(&str, &str)], value: &[u8]) {
        self.send(topic, key, headers, value);
        self.flush();
    }

    /// Writes one record without waiting; [`Self::flush`] waits for all of them.
    pub(crate) fn send(&self, topic: &str, key: Option<&str>, headers: &[(&str, &str)], value: &[u8]) {
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_bytes()) })
        });
        let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(topic).headers(headers).payload(value);
        record.key = key;
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.poll(Duration::ZERO);
    }

    /// Writes so many records, whose correlation ids are `order-0` and so on, and waits until the broker has them.
    pub(crate) fn send_orders(&self, topic: &str, count: usize, value: impl Fn(usize) -> Vec<u8>) {
        for n in 0..count {
            self.send(topic, None, &[("kafka_correlationId", &format!("order-{n}"))], &value(n));
        }
        self.flush();
    }

    /// Waits until the broker has every record that was sent.
    pub(crate) fn flush(&self) {
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// Reads all partitions of a topic from their beginning, until there are `count` records or `limit` is over.
    pub(crate) fn consume(&self, topic: &str, count: usize, limit: Duration) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = self.reader(topic);
        let began = Instant::now();
        let mut records = Vec::new();
        while records.len() < count && began.elapsed() < limit {
            if let Some(record) = consumer.poll(Duration::from_millis(50)) {
                records.extend(record.ok().map(|record| record.detach()));
            }
        }
        records
    }

    /// Makes a consumer without a group that stands at the beginning of all partitions of a topic and sees committed
    /// records only.
    pub(crate) fn reader(&self, topic: &str) -> BaseConsumer {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap())
            .set("group.id", unique("reader"))
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .create()
            .unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(30)).unwrap();
        let mut assignment = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&assignment).unwrap();
        consumer
    }
}

/// Creates a topic whose name starts with `name` and that no other test has; returns the name.
pub(super) fn create_topic(
    bootstrap: &str,
    name: &str,
    partitions: i32,
    replication: i32,
    settings: &[(&str, &str)],
) -> String {
    let name = unique(name);
    let admin = admin(bootstrap);
    let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(replication));
    let topics = [settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))];
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let created = wait_for_future(admin.create_topics(&topics, &options)).unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    name
}

/// Makes a client that asks a broker for its metadata once: one that sees brokers come and go again and again was seen to
/// crash.
pub(super) fn onlooker(bootstrap: &str) -> BaseConsumer {
    ClientConfig::new().set("bootstrap.servers", bootstrap).set("log_level", "0").create().unwrap()
}

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap()
}

/// Waits for a future on a thread of its own, so that it can be called from inside and outside of a runtime.
fn wait_for_future<F: Future<Output: Send> + Send>(future: F) -> F::Output {
    std::thread::scope(|scope| {
        let waiting = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
        scope.spawn(waiting).join().unwrap()
    })
}
