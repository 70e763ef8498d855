//! The request producer: writes each call as a record of the requests topic, like any other producer's.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT_LANGUAGE, CONTENT_TYPE, USER_AGENT};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ThreadedProducer};
use uuid::Uuid;

use super::error::ShimError;
use super::reply_partition::ReplyPartition;
use crate::broker::{BrokerContext, Cluster, Deliveries};
use crate::callers::Callers;
use crate::config::Kafka;
use crate::message::{Code, Fault, Stage, header};
use crate::telemetry::{PendingWork, ProgressWatch};

const BAGGAGE: &str = "baggage";

/// Bytes that the broker's own headers and framing add to a record, estimated rather too high, so that the embedded
/// broker is never filled beyond its limit.
const RECORD_OVERHEAD: usize = 512;

/// Bytes that a record's headers may take beside the largest body.
const HEADER_ROOM: usize = 64 * 1024;

/// Bytes of librdkafka's own `message.max.bytes`, below which there is no reason to go.
const USUAL_RECORD: usize = 1_000_000;

/// Holds the parts of a call that its request record is made of.
pub(super) struct OutgoingRequest<'a> {
    pub(super) correlation: Uuid,
    pub(super) endpoint: &'a str,
    /// The time after which nobody wants the answer any more.
    pub(super) deadline: SystemTime,
    /// The HTTP request line, without the protocol.
    pub(super) target: &'a str,
    pub(super) http_headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

/// Produces to the requests topic.
pub(super) struct RequestProducer {
    /// The client; `None` only while this is dropped.
    producer: Option<ThreadedProducer<BrokerContext<DeliveryReports>>>,
    topic: String,
    reply_topic: String,
    reply_partition: [u8; 4],
    cluster: Arc<Cluster>,
    flow: ProgressWatch,
}

/// Receives delivery reports, and fails the callers whose requests the broker did not take.
struct DeliveryReports {
    callers: Callers,
    flow: ProgressWatch,
}

/// Names the caller of a request that is on its way to the broker.
struct SentRequest {
    correlation: Uuid,
    _pending: PendingWork,
}

impl RequestProducer {
    /// Makes the client. Blocks; not for the runtime's workers.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub(super) fn new(
        cluster: &Arc<Cluster>,
        config: &Kafka,
        reply: &ReplyPartition,
        callers: Callers,
        longest_timeout: Duration,
        max_body: usize,
        flow: ProgressWatch,
    ) -> Result<Self, ShimError> {
        let context = |broker: BrokerContext| broker.with(DeliveryReports { callers, flow: flow.clone() });
        // The longest endpoint timeout bounds the delivery: a request older than every deadline is not worth
        // delivering.
        let timeout = longest_timeout.as_millis().max(1).to_string();
        // The client's own limit must not be the lower one: the broker has to say whether a record is too large.
        let largest = max_body.saturating_add(HEADER_ROOM).clamp(USUAL_RECORD, 1_000_000_000).to_string();
        let settings = [
            ("linger.ms", "0"),
            ("sticky.partitioning.linger.ms", "0"),
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("message.timeout.ms", timeout.as_str()),
            ("message.max.bytes", largest.as_str()),
            ("queue.buffering.max.kbytes", "65536"),
        ];
        let producer = cluster.client("shim-producer", &settings, context)?;
        Ok(Self {
            producer: Some(producer),
            topic: config.requests_topic.clone(),
            reply_topic: reply.topic.clone(),
            reply_partition: reply.partition.to_be_bytes(),
            cluster: cluster.clone(),
            flow,
        })
    }

    /// Queues the request for delivery in the background. If the delivery fails, the caller who waits under the
    /// correlation id gets the fault. Never blocks. The key is null, so requests spread over the partitions.
    ///
    /// # Errors
    /// When the client's queue does not take the request.
    pub(super) fn send(&self, request: &OutgoingRequest<'_>) -> Result<(), Fault> {
        let Some(producer) = &self.producer else { return Err(undeliverable("its client is closed")) };
        let sent = SentRequest { correlation: request.correlation, _pending: self.flow.begin() };
        let record: BaseRecord<'_, [u8], [u8], Box<SentRequest>> =
            BaseRecord::with_opaque_to(&self.topic, Box::new(sent))
                .headers(self.record_headers(request))
                .payload(request.body);
        producer.send(record).map_err(|(error, _)| undelivered(&error))
    }

    fn record_headers(&self, request: &OutgoingRequest<'_>) -> OwnedHeaders {
        let correlation = request.correlation.to_string();
        let deadline = unix_milliseconds(request.deadline).to_string();
        let content_type = request.http_headers.get(CONTENT_TYPE).map_or(&b"application/json"[..], |t| t.as_bytes());
        let own: [(&str, &[u8]); 7] = [
            (header::ENDPOINT, request.endpoint.as_bytes()),
            (header::CORRELATION_ID, correlation.as_bytes()),
            (header::REPLY_TOPIC, self.reply_topic.as_bytes()),
            (header::REPLY_PARTITION, &self.reply_partition),
            (header::CONTENT_TYPE, content_type),
            (header::DEADLINE, deadline.as_bytes()),
            (header::HTTP_TARGET, request.target.as_bytes()),
        ];
        own.into_iter()
            .chain(carried(request.http_headers))
            .fold(OwnedHeaders::new_with_capacity(16), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value) })
            })
    }
}

impl OutgoingRequest<'_> {
    /// Computes the bytes that the record takes on the broker, at most.
    pub(super) fn size(&self) -> usize {
        let headers: usize = carried(self.http_headers).map(|(name, value)| name.len() + value.len()).sum();
        self.body.len() + headers + self.target.len() + self.endpoint.len() + RECORD_OVERHEAD
    }
}

/// Drops the client on a thread of its own: a librdkafka client may take a while to go, and the last owner of this may
/// be a worker of the runtime.
impl Drop for RequestProducer {
    fn drop(&mut self) {
        let (producer, cluster) = (self.producer.take(), self.cluster.clone());
        let away = move || {
            drop(producer);
            // The cluster is dropped after the client: an embedded broker stops with the cluster.
            drop(cluster);
        };
        // Without a thread the closure, and so the client, is dropped here after all.
        let _ = thread::Builder::new().name("shim-producer-drop".to_owned()).spawn(away);
    }
}

impl Deliveries for DeliveryReports {
    type Record = Box<SentRequest>;

    fn delivered(&self, result: Result<(), &KafkaError>, sent: Box<SentRequest>) {
        let Err(error) = result else { return self.flow.passed() };
        // A record that is too large says nothing of the broker, so it must not make the shim unready.
        if !is_too_large(error) {
            self.flow.failed(error);
        }
        self.callers.fail(sent.correlation, undelivered(error));
    }
}

/// Selects the caller's headers that travel on: those that a condition may want to know, and the trace. Never
/// `authorization` and `cookie`.
pub(crate) fn carried(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    let travels =
        |name: &str| header::is_carried(name) || name == BAGGAGE || name == USER_AGENT || name == ACCEPT_LANGUAGE;
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).filter(move |(name, _)| travels(name))
}

/// Tells whether the error says something of this request alone, and nothing of the broker.
fn is_too_large(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize))
}

fn undelivered(error: &KafkaError) -> Fault {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => Fault::permanent(
            Code::PayloadTooLarge,
            Stage::Publish,
            "the request is larger than the broker takes (its message.max.bytes)",
        ),
        Some(RDKafkaErrorCode::QueueFull) => {
            Fault::passing(Code::ResourceExhausted, Stage::Publish, "requests come faster than the broker takes them")
                .with_retry_after(Duration::from_secs(1))
        }
        Some(RDKafkaErrorCode::MessageTimedOut) => undeliverable("it does not answer"),
        Some(code) => undeliverable(&code.to_string()),
        None => undeliverable(&error.to_string()),
    }
}

fn undeliverable(reason: &str) -> Fault {
    let message = format!("the broker did not take the request: {reason}");
    Fault::passing(Code::TemporarilyUnavailable, Stage::Publish, message).with_retry_after(Duration::from_secs(1))
}

fn unix_milliseconds(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn record_carries_contract_headers_but_no_secrets() {
        let sent: [(&'static str, &[u8]); 10] = [
            ("authorization", b"Bearer secret"),
            ("cookie", b"session=secret"),
            ("proxy-authorization", b"secret"),
            ("host", b"localhost"),
            ("traceparent", b"00-1-2-03"),
            ("baggage", b"k=v"),
            ("user-agent", b"curl"),
            ("accept-language", b"de"),
            ("x-tier", b"gold"),
            ("x-raw", b"\xff\xe9"),
        ];
        let mut headers: HeaderMap = sent
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap()))
            .collect();
        headers.append("x-tier", HeaderValue::from_static("silver"));
        let mut carried: Vec<_> = carried(&headers).collect();
        carried.sort_unstable();
        let expected: [(&str, &[u8]); 7] = [
            ("accept-language", b"de"),
            ("baggage", b"k=v"),
            ("traceparent", b"00-1-2-03"),
            ("user-agent", b"curl"),
            ("x-raw", b"\xff\xe9"),
            ("x-tier", b"gold"),
            ("x-tier", b"silver"),
        ];
        assert_eq!(carried, expected);
    }

    #[test]
    fn delivery_fault_tells_whether_to_try_again() {
        let of = |code| undelivered(&KafkaError::MessageProduction(code));
        let fault = of(RDKafkaErrorCode::MessageSizeTooLarge);
        assert_eq!((fault.code.status(), fault.retryable), (413, false));
        let fault = of(RDKafkaErrorCode::QueueFull);
        assert_eq!((fault.code.status(), fault.retryable), (429, true));
        let fault = of(RDKafkaErrorCode::MessageTimedOut);
        assert_eq!((fault.code.status(), fault.retryable), (503, true));
        assert_eq!(fault.message, "the broker did not take the request: it does not answer");
    }
}
