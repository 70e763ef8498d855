//! Shadow answers for comparison: records that nothing waits for, on a producer of their own.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tracing::{debug, warn};
use xxhash_rust::xxh3::xxh3_64;

use super::record::{reply_record, with};
use crate::broker::{BrokerContext, BrokerError, Cluster, Deliveries};
use crate::config::Kafka;
use crate::message::{Correlation, Fault, Outcome, Reply, Request, header};
use crate::telemetry::{LogGate, ShadowMetrics};

/// Settings of the producer; `kafka.properties` win over them. Its queue is bounded, and records are given up after a
/// while.
const SETTINGS: &[(&str, &str)] = &[
    ("acks", "1"),
    ("message.timeout.ms", "30000"),
    ("queue.buffering.max.messages", "1000"),
    ("queue.buffering.max.kbytes", "65536"),
    ("linger.ms", "5"),
    // Keys choose partitions as in Java's clients.
    ("partitioner", "murmur2_random"),
];

/// Publishes to the shadow topic as far as there is room, and counts delivered and dropped records.
pub struct ShadowPublisher {
    producer: ThreadedProducer<BrokerContext<ShadowDeliveries>>,
    topic: String,
}

/// Answer of the primary route, as far as the shadow's answer is compared with it.
#[derive(Debug, Clone)]
pub struct PrimaryAnswer {
    /// Route that answered, if one was chosen.
    pub route: Option<Arc<str>>,
    /// Time that its model took, if one was called.
    pub took: Option<Duration>,
    /// The reply, or the fault.
    pub result: Result<Reply, Fault>,
}

/// Answer of a shadow route.
#[derive(Debug)]
pub struct ShadowAnswer {
    /// The reply or fault, and the route and model that gave it.
    pub outcome: Outcome,
    /// Time that its model took, if it was called.
    pub took: Option<Duration>,
}

/// Record on its way to the broker.
struct ShadowRecord {
    failed: bool,
    metrics: Arc<ShadowMetrics>,
}

/// Receiver of the producer's delivery reports.
#[derive(Default)]
struct ShadowDeliveries {
    log: LogGate,
}

impl ShadowPublisher {
    /// Creates the producer, which connects when there is a first record.
    ///
    /// # Errors
    /// When librdkafka refuses a property.
    pub fn start(config: &Kafka, cluster: &Cluster) -> Result<Self, BrokerError> {
        let context = |broker: BrokerContext| broker.with(ShadowDeliveries::default());
        Ok(Self { producer: cluster.client("shadows", SETTINGS, context)?, topic: config.shadow_topic.clone() })
    }

    /// Hands a record over, or drops it when there is no room; either is counted.
    pub fn publish(
        &self,
        request: &Request,
        primary: &PrimaryAnswer,
        shadow: &ShadowAnswer,
        metrics: Arc<ShadowMetrics>,
    ) {
        let correlation = Correlation::of(request);
        let record = reply_record(request, &correlation, &shadow.outcome);
        let headers = comparison_headers(record.headers, &correlation, primary, shadow.took, &record.payload);
        let sent = Box::new(ShadowRecord { failed: shadow.outcome.result.is_err(), metrics });
        let record = BaseRecord::with_opaque_to(&self.topic, sent)
            .key(&correlation.id[..])
            .payload(&record.payload[..])
            .headers(headers);
        if let Err((error, record)) = self.producer.send(record) {
            self.producer.context().deliveries().dropped(&record.delivery_opaque, &error);
        }
    }

    /// Waits until everything that was handed over is acknowledged, this long at most. Blocks; not for the runtime's
    /// workers.
    pub fn flush(&self, timeout: Duration) {
        if let Err(error) = self.producer.flush(timeout) {
            debug!(%error, "some shadow records were given up");
        }
    }
}

/// Adds the headers by which the two answers are compared without the primary's value.
fn comparison_headers(
    headers: OwnedHeaders,
    correlation: &Correlation,
    primary: &PrimaryAnswer,
    took: Option<Duration>,
    value: &[u8],
) -> OwnedHeaders {
    let (status, body) = match &primary.result {
        Ok(reply) => (200, reply.body.clone()),
        Err(fault) => (fault.code.status(), fault.body(&correlation.display())),
    };
    let texts = [
        (header::SHADOW_OF, primary.route.as_ref().map(ToString::to_string)),
        (header::PRIMARY_STATUS, Some(status.to_string())),
        (header::PRIMARY_HASH, Some(hash(&body))),
        (header::PRIMARY_LATENCY_MS, primary.took.map(milliseconds)),
        (header::HASH, Some(hash(value))),
        (header::LATENCY_MS, took.map(milliseconds)),
    ];
    let given = texts.into_iter().filter_map(|(name, text)| Some((name, text?)));
    given.fold(headers, |headers, (name, text)| with(headers, name, text.as_bytes()))
}

fn hash(body: &[u8]) -> String {
    format!("{:016x}", xxh3_64(body))
}

/// Formats a time in milliseconds with three decimals, such as `12.250`.
fn milliseconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1000.0)
}

impl ShadowDeliveries {
    fn dropped(&self, sent: &ShadowRecord, error: &KafkaError) {
        sent.metrics.dropped.inc();
        if let Some(unlogged) = self.log.admit(LogGate::now()) {
            warn!(%error, unlogged, "a shadow record was not taken and is dropped");
        }
    }
}

impl Deliveries for ShadowDeliveries {
    type Record = Box<ShadowRecord>;

    fn delivered(&self, result: Result<(), &KafkaError>, sent: Box<ShadowRecord>) {
        match result {
            Ok(()) if sent.failed => sent.metrics.failed.inc(),
            Ok(()) => sent.metrics.answered.inc(),
            Err(error) => self.dropped(&sent, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rdkafka::message::Headers as _;

    use super::*;
    use crate::message::{Code, Dialect, Stage};

    fn correlation() -> Correlation {
        Correlation {
            id: Bytes::from_static(b"order-1"),
            dialect: Dialect::Spring,
            reply_topic: None,
            reply_partition: None,
        }
    }

    fn headers(primary: &PrimaryAnswer, took: Option<Duration>, value: &[u8]) -> Vec<(String, String)> {
        let headers = comparison_headers(OwnedHeaders::new(), &correlation(), primary, took, value);
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap()).into_owned();
        headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
    }

    #[test]
    fn shadow_hashes_equal_values_equally() {
        let body = Bytes::from_static(b"{\"predictions\": [1]}");
        let reply = Reply { content_type: "application/json".to_owned(), body: body.clone() };
        let primary =
            PrimaryAnswer { route: Some("fast".into()), took: Some(Duration::from_micros(12_250)), result: Ok(reply) };
        let headers = headers(&primary, Some(Duration::from_secs(1)), &body);
        let hash = format!("{:016x}", xxh3_64(&body));
        let expected = [
            ("shadow-of", "fast"),
            ("primary-status", "200"),
            ("primary-hash", &hash),
            ("primary-latency-ms", "12.250"),
            ("hash", &hash),
            ("latency-ms", "1000.000"),
        ];
        assert_eq!(headers, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
        // This hash of the empty value is XXH3's own published test vector.
        assert_eq!(super::hash(b""), "2d06800538d394c2");
    }

    #[test]
    fn shadow_omits_latency_when_no_model_was_called() {
        let fault = Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "gone");
        let primary = PrimaryAnswer { route: None, took: None, result: Err(fault.clone()) };
        let headers = headers(&primary, None, b"x");
        let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["primary-status", "primary-hash", "hash"]);
        assert_eq!(headers[0].1, "503");
        assert_eq!(headers[1].1, super::hash(&fault.body("order-1")));
    }
}
