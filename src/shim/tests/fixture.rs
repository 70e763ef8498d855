//! The fixture of the shim's tests: a broker, a responder for the requests, and shims to call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;

use crate::broker::BrokerContext;
use crate::callers::ReplyRecord;
use crate::shim::*;

pub(super) const CALL: &str = "/endpoints/sentiment-router/invocations";
pub(super) const LONG: Duration = Duration::from_secs(20);

/// Holds the reply that the responder sends for one request.
pub(super) struct CannedReply {
    pub(super) status: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    pub(super) times: usize,
}

impl CannedReply {
    pub(super) fn status(status: &'static str, body: impl Into<Bytes>) -> Option<Self> {
        Some(Self { status, headers: Vec::new(), body: body.into(), times: 1 })
    }

    pub(super) fn echo(request: &ReplyRecord) -> Option<Self> {
        Self::status("200", request.body.clone())
    }
}

/// Runs a broker, and a responder to the requests topic, until it is dropped.
pub(super) struct Fixture {
    pub(super) kafka: config::Kafka,
    pub(super) cluster: Arc<Cluster>,
    stop: Arc<AtomicBool>,
}

impl Fixture {
    /// Starts a responder that answers by this rule; `None` is silence.
    pub(super) async fn new(answer: impl FnMut(&ReplyRecord) -> Option<CannedReply> + Send + 'static) -> Self {
        let kafka = config::Kafka { partitions: 4, ..config::Kafka::default() };
        let cluster = Arc::new(Cluster::new(&kafka).unwrap());
        cluster.ensure_topics(&kafka, &[&kafka.requests_topic, &kafka.replies_topic]).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let responder = {
            let (cluster, kafka, stop) = (cluster.clone(), kafka.clone(), stop.clone());
            move || respond(&cluster, &kafka, &stop, answer)
        };
        // The thread is not joined: a responder that waits to be released ends with the process.
        std::thread::spawn(responder);
        Self { kafka, cluster, stop }
    }

    /// Starts a responder that echoes each request once it is released.
    pub(super) async fn held() -> (Self, Sender<()>) {
        let (release, held) = channel();
        let fixture = Self::new(move |request| {
            held.recv().unwrap();
            CannedReply::echo(request)
        });
        (fixture.await, release)
    }

    pub(super) async fn shim(&self, server: config::Server, timeout: Duration) -> RunningShim {
        let names = ["sentiment-router", "translate"];
        self.shim_of(&names, server, timeout).await
    }

    pub(super) async fn shim_of(&self, names: &[&str], server: config::Server, timeout: Duration) -> RunningShim {
        let readiness = Readiness::default();
        let metrics = Metrics::new().unwrap();
        let config = Config {
            model_endpoints: names.iter().map(|name| endpoint(name, timeout)).collect(),
            kafka: self.kafka.clone(),
            server: config::Server { port: 0, ..server },
            ..empty_config()
        };
        let (operations, callers) = (axum::Router::new(), Callers::default());
        let shim = Shim::start(&config, &self.cluster, &readiness, &metrics, operations, callers).await.unwrap();
        until("ready", || readiness.is_ready()).await;
        let base = format!("http://{}", shim.address());
        RunningShim { shim, base, client: Client::new(), metrics, readiness }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Holds a running shim, and a client that calls it.
pub(super) struct RunningShim {
    pub(super) shim: Shim,
    pub(super) base: String,
    pub(super) client: Client,
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
}

impl RunningShim {
    pub(super) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        self.client.post(format!("{}{path}", self.base)).body(body).send().await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, String, String) {
        let answer = self.client.get(format!("{}{path}", self.base)).send().await.unwrap();
        (answer.status(), header(&answer, "content-type"), answer.text().await.unwrap())
    }

    pub(super) fn counted(&self, status: &str) -> u64 {
        self.metrics.shim_requests.with_label_values(&["sentiment-router", status]).get()
    }

    pub(super) fn nothing_pending(&self) -> bool {
        let pending = &self.shim.pending;
        pending.waiting() == 0 && pending.held() == (0, 0) && self.metrics.shim_pending.get() == 0
    }
}

/// Describes an endpoint with one route.
pub(crate) fn endpoint(name: &str, timeout: Duration) -> config::Endpoint {
    let route = "routes: [{model_uri: \"models:/m/1\", alias: fast}]";
    let mut endpoint: config::Endpoint = serde_yaml::from_str(&format!("name: {name}\n{route}")).unwrap();
    endpoint.timeout = timeout;
    endpoint
}

/// Builds a config without endpoints.
pub(super) fn empty_config() -> Config {
    serde_yaml::from_str("model_endpoints: []").unwrap()
}

fn respond(
    cluster: &Cluster,
    kafka: &config::Kafka,
    stop: &AtomicBool,
    mut answer: impl FnMut(&ReplyRecord) -> Option<CannedReply>,
) {
    let settings = [("group.id", "responder"), ("fetch.wait.max.ms", "5"), ("enable.auto.commit", "false")];
    let consumer: BaseConsumer<BrokerContext> = cluster.client("responder", &settings, std::convert::identity).unwrap();
    let producer: BaseProducer =
        cluster.client("responder", &[("linger.ms", "0")], |_| DefaultProducerContext).unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..kafka.partitions {
        assignment.add_partition_offset(&kafka.requests_topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    while !stop.load(Ordering::Acquire) {
        producer.poll(Duration::ZERO);
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(20)) else { continue };
        let request = reply_consumer::copy(&record);
        let Some(said) = answer(&request) else { continue };
        let asked = |name: &str| request.headers.get(name).unwrap();
        let headers = || {
            let fixed = OwnedHeaders::new()
                .insert(Header { key: "kafka_correlationId", value: Some(asked("kafka_correlationId")) })
                .insert(Header { key: "status", value: Some(said.status) });
            said.headers.iter().fold(fixed, |all, (key, value)| all.insert(Header { key, value: Some(value) }))
        };
        for _ in 0..said.times {
            let reply: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(request.headers.text("kafka_replyTopic").unwrap())
                .partition(i32::from_be_bytes(asked("kafka_replyPartition").try_into().unwrap()))
                .headers(headers())
                .payload(&said.body);
            producer.send(reply).map_err(|(error, _)| error).unwrap();
        }
    }
    producer.flush(Duration::from_secs(5)).unwrap();
}

/// Waits until a condition holds, and panics when it does not in time.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LONG, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) fn header(answer: &Response, name: &str) -> String {
    answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

pub(super) async fn fault(answer: Response) -> Value {
    assert_eq!(header(&answer, "content-type"), "application/json");
    let correlation = header(&answer, "x-correlation-id");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["correlation_id"], correlation);
    body
}
