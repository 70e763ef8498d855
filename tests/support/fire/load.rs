//! Sends the requests of a plan, so many a second.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::clock;
use super::plan::Plan;

/// Longest time for which the broker may be away while the last requests are on their way.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(5);

/// Holds the requests on their way to the broker.
pub(crate) struct Load {
    sent: Arc<AtomicU64>,
    enough: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

/// Sees each request through until the broker has it.
struct Receipts {
    acknowledged: Arc<AtomicU64>,
}

impl Load {
    /// Starts to send these requests. The pace is kept on average: requests that a slow broker holds up are caught up
    /// with.
    pub(crate) fn start(plan: Plan, numbers: Range<u64>, bootstrap: &str, topic: &str, per_second: u64) -> Self {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let producer: ThreadedProducer<Receipts> = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("client.id", "checker-load")
            // A request that is twice in the topic would be answered twice, and rightly so.
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "0")
            .set("queue.buffering.max.messages", "2000000")
            .set("reconnect.backoff.max.ms", "1000")
            .set("linger.ms", "2")
            .create_with_context(Receipts { acknowledged: Arc::clone(&acknowledged) })
            .unwrap();
        let sent = Arc::new(AtomicU64::new(numbers.start));
        let enough = Arc::new(AtomicBool::new(false));
        let (counted, stopped, topic) = (Arc::clone(&sent), Arc::clone(&enough), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let begun = Instant::now();
            let mut number = numbers.start;
            while number < numbers.end && !stopped.load(Ordering::Relaxed) {
                let due = numbers.start + (begun.elapsed().as_secs_f64() * per_second as f64) as u64;
                while number < due.min(numbers.end) {
                    send(&producer, &plan, &topic, number);
                    number += 1;
                }
                counted.store(number, Ordering::Relaxed);
                std::thread::sleep(PAUSE);
            }
            producer.flush(ACKNOWLEDGED_WITHIN).unwrap();
            acknowledged.load(Ordering::SeqCst)
        });
        Self { sent, enough, thread }
    }

    /// Returns the number of the request that is handed to the producer next.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops the load.
    pub(crate) fn stop(&self) {
        self.enough.store(true, Ordering::Relaxed);
    }

    /// Waits until the broker has all requests, and returns their number.
    pub(crate) fn finish(self) -> u64 {
        self.thread.join().unwrap()
    }
}

fn send(producer: &ThreadedProducer<Receipts>, plan: &Plan, topic: &str, number: u64) {
    let (id, key, text) = (plan.id(number), format!("key-{}", plan.key(number)), number.to_string());
    let partition = plan.reply_partition(number).map(i32::to_be_bytes);
    let now = clock::micros().to_be_bytes();
    let mut values = vec![
        ("kafka_correlationId", id.as_bytes()),
        ("endpoint", plan.endpoint(number).as_bytes()),
        ("x-tier", plan.tier(number).as_bytes()),
        ("x-number", text.as_bytes()),
        ("x-sent", &now[..]),
    ];
    values.extend(partition.as_ref().map(|partition| ("kafka_replyPartition", &partition[..])));
    let headers = values.iter().fold(OwnedHeaders::new_with_capacity(values.len()), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(*value) })
    });
    let payload = plan.payload(number);
    let mut record = BaseRecord::to(topic).key(&key).payload(&payload).headers(headers);
    while let Err((error, refused)) = producer.send(record) {
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "request {number} cannot be sent");
        std::thread::sleep(PAUSE);
        record = refused;
    }
}

impl ClientContext for Receipts {
    // The brokers' troubles are made on purpose, so they are not logged.
    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, _facility: &str, _message: &str) {}
    fn error(&self, _error: rdkafka::error::KafkaError, _reason: &str) {}
}

impl ProducerContext for Receipts {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_ok() {
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }
}
