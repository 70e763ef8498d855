//! Covers the services of the tests, which do what the other tests stand on.

use std::time::Duration;

use rdkafka::Message;

use crate::support::{Kafka, Mlflow, python};

const SECOND: Duration = Duration::from_secs(1);

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn kafka_keeps_produced_records() {
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
fn kafka_keeps_port_and_records_when_killed_and_restarted() {
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
fn foreign_client_produces_and_consumes() {
    let kafka = Kafka::shared();
    let topic = kafka.create_topic("foreign", 1);
    let script = r#"
import asyncio, sys
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

async def main(broker, topic):
    async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
        await producer.send_and_wait(topic, b"from python", key=b"k", headers=[("kafka_correlationId", b"1")])
    async with AIOKafkaConsumer(topic, bootstrap_servers=broker, auto_offset_reset="earliest") as consumer:
        record = await asyncio.wait_for(consumer.getone(), 30)
        print(record.key.decode(), record.value.decode(), dict(record.headers)["kafka_correlationId"].decode())

asyncio.run(main(*sys.argv[1:]))
"#;
    let output = python(script, &[&kafka.bootstrap(), &topic]);
    assert_eq!(output.trim(), "k from python 1");
    assert_eq!(kafka.consume(&topic, 1, 30 * SECOND).len(), 1);
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn mlflow_resolves_registered_models() {
    let mlflow = Mlflow::shared();
    for model in ["sentiment-model-fast", "sentiment-model-accurate", "raises-model", "slow-model"] {
        let answer = registry(mlflow, "get-latest-versions", &[("name", model), ("stages", "production")]).await;
        assert_eq!(answer["model_versions"][0]["version"], "1", "{model}: {answer}");
        assert_eq!(answer["model_versions"][0]["status"], "READY", "{model}: {answer}");
    }
    let answer = registry(mlflow, "alias", &[("name", "sentiment-model-fast"), ("alias", "champion")]).await;
    assert_eq!(answer["model_version"]["version"], "1", "{answer}");
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn mlflow_keeps_port_and_models_when_stopped() {
    let mut mlflow = Mlflow::start();
    let tracking_uri = mlflow.tracking_uri();
    mlflow.stop();
    assert!(reqwest::get(&tracking_uri).await.is_err());
    mlflow.start_again();
    let answer = registry(&mlflow, "get", &[("name", "slow-model")]).await;
    assert_eq!(answer["registered_model"]["name"], "slow-model", "{answer}");
}

async fn registry(mlflow: &Mlflow, call: &str, query: &[(&str, &str)]) -> serde_json::Value {
    let url = format!("{}/api/2.0/mlflow/registered-models/{call}", mlflow.tracking_uri());
    reqwest::Client::new().get(url).query(query).send().await.unwrap().json().await.unwrap()
}
