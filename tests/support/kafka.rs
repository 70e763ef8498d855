//! Apache Kafka itself: one broker in KRaft mode, on the jars that `tests/run` installs.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::{Process, free_port, fresh_directory, installed, unique};

const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";
const READY_WITHIN: Duration = Duration::from_secs(90);

/// A broker, and the plain clients that tests look at it with.
pub(crate) struct Kafka {
    directory: PathBuf,
    port: u16,
    process: Option<Process>,
    producer: BaseProducer,
}

impl Kafka {
    /// The broker that all tests share which do not stop it. It is started by the first.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A broker of one's own.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// A broker of one's own, with more lines of `server.properties`.
    pub(crate) fn start_with(properties: &str) -> Self {
        let directory = fresh_directory("kafka");
        let (port, controller) = (free_port(), free_port());
        let data = directory.join("data");
        let settings = format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
num.network.threads=2
num.io.threads=4
log.cleaner.enable=false
{properties}
",
            data.display()
        );
        std::fs::write(directory.join("server.properties"), settings).unwrap();
        let format = ["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config", "server.properties"];
        let formatted = Command::new("java").args(java(&format)).current_dir(&directory).output().unwrap();
        assert!(formatted.status.success(), "the broker's storage cannot be formatted: {formatted:?}");

        let producer = ClientConfig::new()
            .set("bootstrap.servers", format!("127.0.0.1:{port}"))
            .set("linger.ms", "1")
            .create()
            .unwrap();
        let mut kafka = Self { directory, port, process: None, producer };
        kafka.start_again();
        kafka
    }

    /// Where clients find it.
    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What the broker has written.
    pub(crate) fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Stops it as an operator would.
    pub(crate) fn stop(&mut self) {
        self.process.take().expect("the broker runs").terminate();
    }

    /// Stops it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("the broker runs").kill();
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`], on its port and with its records.
    pub(crate) fn start_again(&mut self) {
        assert!(self.process.is_none(), "the broker runs already");
        let command = ["java".to_owned()].into_iter().chain(java(&["kafka.Kafka", "server.properties"]));
        self.process = Some(Process::start("kafka", &self.directory, &[], command));
        let began = Instant::now();
        while let Err(error) = self.producer.client().fetch_metadata(None, Duration::from_millis(250)) {
            let log = self.log();
            let ended = self.process.as_mut().and_then(Process::ended);
            assert!(ended.is_none() && began.elapsed() < READY_WITHIN, "the broker does not answer ({error}):\n{log}");
        }
    }

    /// Creates a topic whose name starts with `name` and that no other test has; returns the name.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32) -> String {
        self.create_topic_with(name, partitions, &[])
    }

    /// The same with settings of the topic, such as `max.message.bytes`.
    pub(crate) fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = unique(name);
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().unwrap();
        let topic = settings
            .iter()
            .fold(NewTopic::new(&name, partitions, TopicReplication::Fixed(1)), |topic, (key, value)| {
                topic.set(key, value)
            });
        let topics = [topic];
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        let creation = admin.create_topics(&topics, &options);
        let created = wait_for_future(creation).unwrap();
        assert!(created.iter().all(Result::is_ok), "{created:?}");
        name
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

    /// A consumer without a group that stands at the beginning of all partitions of a topic and sees committed records
    /// only.
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

fn java(command: &[&str]) -> Vec<String> {
    let libs = installed("SIGNALBOX_TEST_KAFKA_LIBS", "kafka/libs");
    let logging = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/log4j2.properties");
    let mut words = vec!["-Xmx512m".to_owned(), "-XX:+UseSerialGC".to_owned(), "-XX:TieredStopAtLevel=1".to_owned()];
    words.push(format!("-Dlog4j2.configurationFile={logging}"));
    words.extend(["-cp".to_owned(), format!("{}/*", libs.display())]);
    words.extend(command.iter().map(|word| (*word).to_owned()));
    words
}

/// Waits for a future on a thread of its own, so that it can be called from inside and outside of a runtime.
fn wait_for_future<F: Future<Output: Send> + Send>(future: F) -> F::Output {
    std::thread::scope(|scope| {
        let waiting = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
        scope.spawn(waiting).join().unwrap()
    })
}
