//! Covers partitions that are added while requests run.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::{Kafka, Reaction, Setup, Signalbox, StubModel};

const REQUESTS: usize = 200;
/// Limit that is a small part of the five minutes after which librdkafka looks by itself.
const SOON: Duration = Duration::from_secs(90);

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn added_partitions_and_their_retries_are_read_within_seconds() {
    let kafka = Kafka::shared();
    let setup = Setup::with_partitions(kafka, 2);
    let seen = Mutex::new(HashSet::new());
    let model = StubModel::start(move |_, headers| {
        let id = headers["x-id"].to_str().unwrap().to_owned();
        if seen.lock().unwrap().insert(id) { Reaction::Status(503) } else { Reaction::Answer }
    });
    let keys = "  retry_delays: [500ms]";
    let route = format!(
        "\n  - {{name: only, routes: [{{model_uri: \"{}\", alias: only, max_concurrency: 64, breaker: {{minimum_calls: 100000}}}}]}}\n",
        model.url()
    );
    let signalbox = Signalbox::start(&setup.config(&route, keys, "http://127.0.0.1:9"));
    kafka.produce(&setup.requests, None, &[("kafka_correlationId", "first"), ("x-id", "first")], b"{\"inputs\": [1]}");
    assert_eq!(setup.replies(1, SOON).len(), 1, "{}", signalbox.log());

    // Partitions are added to the requests topic and to those for retries, in that order and in the other.
    let mut topics = kafka.topics(&setup.requests);
    topics.sort();
    topics.iter().for_each(|topic| kafka.grow(topic, 4));
    let began = Instant::now();
    let reader = setup.reply_reader();
    let mut answered = HashMap::<String, usize>::new();
    // The producer knows of the new partitions, and writes to nothing else.
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    for n in 0..REQUESTS {
        let id = format!("order-{n}");
        let header = |key| Header { key, value: Some(id.as_bytes()) };
        let headers = OwnedHeaders::new().insert(header("kafka_correlationId")).insert(header("x-id"));
        let record = BaseRecord::<(), _>::to(&setup.requests).partition(2 + i32::try_from(n % 2).unwrap());
        producer.send(record.payload("{\"inputs\": [1]}").headers(headers)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(SOON).unwrap();
    while answered.len() < REQUESTS + 1 {
        reader.count_into(&mut answered);
        let found = answered.len().saturating_sub(1);
        assert!(began.elapsed() < SOON, "{found} of {REQUESTS} are answered:\n{}", signalbox.log());
    }
    assert!(setup.replies(REQUESTS + 1, SOON).iter().all(|reply| reply.status() == 200));
    println!("all were answered {:?} after the partitions were added", began.elapsed());
    assert!(answered.values().all(|times| *times == 1), "{answered:?}");
}
