//! The real services do what the other tests stand on.

use std::time::Duration;

use rdkafka::Message;

use crate::support::{Kafka, Mlflow, python, unique};

const SECOND: Duration = Duration::from_secs(1);

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn kafka_keeps_what_is_produced() {
    let kafka = Kafka::shared();
    let topic = kafka.create_topic("smoke", 3);
    for n in 0..100 {
        kafka.produce(&topic, Some(&format!("key-{n}")), &[("n", &n.to_string())], b"payload");
    }
    let records = kafka.consume(&topic, 100, 30 * SECOND);
    assert_eq!(records.len(), 100);
    assert!(records.iter().all(|record| record.payload() == Some(b"payload")));
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn kafka_keeps_its_port_and_its_records_when_it_is_killed_and_started_again() {
    let mut kafka = Kafka::start();
    let topic = kafka.create_topic("smoke", 1);
    kafka.produce(&topic, None, &[], b"before");
    let bootstrap = kafka.bootstrap();
    kafka.stop();
    kafka.start_again();
    kafka.produce(&topic, None, &[], b"between");
    kafka.kill();
    kafka.start_again();
    kafka.produce(&topic, None, &[], b"after");
    assert_eq!(kafka.bootstrap(), bootstrap);
    let records = kafka.consume(&topic, 3, 30 * SECOND);
    let payloads: Vec<_> = records.iter().filter_map(Message::payload).collect();
    assert_eq!(payloads, [b"before".as_slice(), b"between", b"after"]);
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn a_client_that_is_not_ours_produces_and_consumes() {
    let kafka = Kafka::shared();
    let topic = kafka.create_topic("foreign", 1);
    let script = r#"
import sys
from kafka import KafkaConsumer, KafkaProducer
bootstrap, topic = sys.argv[1:]
producer = KafkaProducer(bootstrap_servers=bootstrap)
producer.send(topic, key=b"k", value=b"from python", headers=[("kafka_correlationId", b"1")])
producer.flush()
for record in KafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest"):
    print(record.key.decode(), record.value.decode(), dict(record.headers)["kafka_correlationId"].decode())
    break
"#;
    let output = python(script, &[&kafka.bootstrap(), &topic]);
    assert_eq!(output.trim(), "k from python 1");
    assert_eq!(kafka.consume(&topic, 1, 30 * SECOND).len(), 1);
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn mlflow_resolves_the_registered_models() {
    let mlflow = Mlflow::shared();
    for model in ["sentiment-model-fast", "sentiment-model-accurate", "raises-model", "slow-model"] {
        let url = format!("{}/api/2.0/mlflow/registered-models/get-latest-versions", mlflow.tracking_uri());
        let query = [("name", model), ("stages", "production")];
        let answer = reqwest::Client::new().get(url).query(&query).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{model}");
        let answer: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(answer["model_versions"][0]["version"], "1", "{model}: {answer}");
        assert_eq!(answer["model_versions"][0]["status"], "READY", "{model}: {answer}");
    }
    let url = format!("{}/api/2.0/mlflow/registered-models/alias", mlflow.tracking_uri());
    let query = [("name", "sentiment-model-fast"), ("alias", "champion")];
    let answer = reqwest::Client::new().get(url).query(&query).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[test]
fn names_are_unique() {
    assert_ne!(unique("topic"), unique("topic"));
}
