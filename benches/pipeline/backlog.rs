//! Measures a backlog: requests that wait in a topic before a contender starts. The contender is measured from the
//! first tenth of the replies to the last, by the ends of the replies topic, so that neither its start nor a reader
//! counts. Then the replies are checked.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::processor::{seconds_of, seconds_of_tree};
use crate::support::{Kafka, Process, Setup, fresh_directory, wait_until};

/// Longest time in which every request must have been answered.
const PATIENCE: Duration = Duration::from_secs(300);

/// Describes the waiting requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backlog {
    pub(crate) requests: usize,
    pub(crate) partitions: i32,
    /// The payload of each request.
    pub(crate) payload: fn(usize) -> Vec<u8>,
    /// The requests that are to be answered with a fault; all others are to get a prediction.
    pub(crate) is_refused: fn(usize) -> bool,
}

/// Holds the time and the memory that a contender needed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) cpu_microseconds: f64,
    /// Processor time of the contender and of the processes that it has started: its models.
    pub(crate) cpu_of_all_microseconds: f64,
}

impl Backlog {
    /// Makes a backlog of requests of 1 KiB over four partitions.
    pub(crate) const fn of(requests: usize) -> Self {
        Self::with(requests, kibibyte)
    }

    /// Makes a backlog of requests over four partitions.
    pub(crate) const fn with(requests: usize, payload: fn(usize) -> Vec<u8>) -> Self {
        Self { requests, partitions: 4, payload, is_refused: |_| false }
    }

    /// Lets a contender answer the requests.
    pub(crate) fn measure(self, kafka: &Kafka, start: impl FnOnce(&Setup<'_>) -> Process) -> Measured {
        let setup = Setup::with_partitions(kafka, self.partitions);
        self.fill(kafka, &setup);
        let consumer: BaseConsumer = client(kafka);
        let mut ends = TopicPartitionList::new();
        for partition in 0..self.partitions {
            ends.add_partition_offset(&setup.replies, partition, Offset::End).unwrap();
        }
        let replies = || -> usize {
            let ends = consumer.offsets_for_times(ends.clone(), Duration::from_secs(10)).unwrap();
            let replies = ends.elements().iter().filter_map(|end| end.offset().to_raw()).sum::<i64>();
            usize::try_from(replies).unwrap()
        };
        let process = start(&setup);
        let at = |share: usize| {
            let reached = || Some(replies()).filter(|replies| *replies >= share);
            let replies = wait_until("the replies", PATIENCE, reached);
            (Instant::now(), replies, seconds_of(process.pid()), seconds_of_tree(process.pid()))
        };
        let (begun, first, cpu_begun, all_begun) = at(self.requests / 10);
        let (ended, last, cpu_ended, all_ended) = at(self.requests);
        self.look_at_replies(kafka, &setup);
        drop(process);
        forget(kafka, &setup);
        // Transactions leave control records between the replies, so offsets alone do not count them.
        let done = (last - first) as f64 * self.requests as f64 / last as f64;
        Measured {
            per_second: done / ended.duration_since(begun).as_secs_f64(),
            cpu_microseconds: (cpu_ended - cpu_begun) * 1e6 / done,
            cpu_of_all_microseconds: (all_ended - all_begun) * 1e6 / done,
        }
    }

    /// Writes the requests, and waits until the broker has them.
    pub(crate) fn fill(self, kafka: &Kafka, setup: &Setup<'_>) {
        static PRODUCER: OnceLock<ThreadedProducer<DefaultProducerContext>> = OnceLock::new();
        let producer = PRODUCER.get_or_init(|| {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", kafka.bootstrap()).set("linger.ms", "20").set("batch.size", "500000");
            config.set("message.max.bytes", "2000000").create().unwrap()
        });
        for n in 0..self.requests {
            let (key, payload) = (n.to_string(), (self.payload)(n));
            let mut record = BaseRecord::to(&setup.requests).key(&key).payload(&payload);
            while let Err((error, refused)) = producer.send(record) {
                assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), "{error}");
                std::thread::sleep(Duration::from_millis(1));
                record = refused;
            }
        }
        producer.flush(PATIENCE).unwrap();
    }

    /// Checks that there is one reply for each request, and no fault where an answer is due: faults are made faster
    /// than answers.
    fn look_at_replies(self, kafka: &Kafka, setup: &Setup<'_>) {
        let reader = kafka.reader(&setup.replies);
        let begun = Instant::now();
        let mut replies = 0;
        while replies < self.requests {
            assert!(begun.elapsed() < PATIENCE, "only {replies} of {} replies are there", self.requests);
            let Some(Ok(record)) = reader.poll(Duration::from_millis(100)) else { continue };
            let status = record.headers().and_then(|headers| headers.iter().find(|header| header.key == "status"));
            // The bare loop sends no status.
            if let Some(status) = status.and_then(|status| status.value) {
                let number: usize = std::str::from_utf8(record.key().unwrap()).unwrap().parse().unwrap();
                let body = String::from_utf8_lossy(record.payload().unwrap_or_default());
                assert_eq!(status != b"200", (self.is_refused)(number), "{number}: {body}");
            }
            replies += 1;
        }
    }
}

/// Makes a payload of 1 KiB.
pub(crate) fn kibibyte(_: usize) -> Vec<u8> {
    payload(1024)
}

/// Makes a payload of this many bytes.
pub(crate) fn payload(size: usize) -> Vec<u8> {
    let head = br#"{"inputs": ["d", ""#;
    [head, "x".repeat(size - head.len() - 3).as_bytes(), b"\"]}"].concat()
}

/// Starts a Signalbox with this configuration.
pub(crate) fn signalbox(config: &str) -> Process {
    let directory = fresh_directory("signalbox");
    std::fs::write(directory.join("signalbox.yaml"), config).unwrap();
    let command = [env!("CARGO_BIN_EXE_signalbox"), "start", "--config", "signalbox.yaml"];
    Process::start("signalbox", &directory, &[], command)
}

/// Deletes the topics and those of retries, so that a whole run does not need room for all of them.
pub(crate) fn forget(kafka: &Kafka, setup: &Setup<'_>) {
    let admin: AdminClient<DefaultClientContext> = client(kafka);
    let metadata = admin.inner().fetch_metadata(None, Duration::from_secs(10)).unwrap();
    let retries = format!("{}-retry-", setup.requests);
    let own = [&*setup.requests, &*setup.replies, &*setup.dead_letters];
    let names = metadata.topics().iter().map(MetadataTopic::name);
    let topics: Vec<_> = names.filter(|name| own.contains(name) || name.starts_with(&retries)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin.delete_topics(&topics, &AdminOptions::new())).unwrap();
}

fn client<C: rdkafka::config::FromClientConfig>(kafka: &Kafka) -> C {
    ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap()
}
