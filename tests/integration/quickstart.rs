//! Follows a newcomer: `signalbox quickstart`, and the requests that it prints.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Caller, MARK, Mark, Signalbox, fresh_directory, python, signal, wait_until};

#[tokio::test]
#[ignore = "needs MLflow; tests/run installs it"]
async fn quickstart_answers_over_http_and_kafka() {
    let mut signalbox = Signalbox::quickstart();
    let log = signalbox.log();
    assert!(log.contains(&format!("curl {}/invocations", signalbox.url())), "{log}");

    let everyday = ask(&signalbox, "This is a great product!").await;
    assert_eq!(everyday["predictions"][0]["label"], "positive", "{everyday}");
    assert_eq!(everyday["predictions"][0].get("domain_confidence"), None, "{everyday}");

    let text = "Domain specific text: The latest research shows significant improvements.";
    let domain = ask(&signalbox, text).await;
    assert_eq!(domain["predictions"][0]["label"], "positive", "{domain}");
    assert_eq!(domain["predictions"][0]["domain_confidence"], "high", "{domain}");

    let model = Caller::of(&signalbox).model("sentiment-model-fast/1").await.unwrap();
    assert_eq!((model.batched_by.as_deref(), model.singly), (Some("tag"), None));

    let answer = python(OVER_KAFKA, &[signalbox.broker(), &payload(text).to_string()]);
    assert_eq!(answer.lines().next(), Some("request-1 200 accurate"), "{answer}");
    assert!(answer.contains("domain_confidence"), "{answer}");

    assert!(signalbox.terminate().success(), "{}", signalbox.log());

    // The second start finds the models in the registry, and trains none.
    let before = signalbox.log().len();
    signalbox.start_again();
    let log = signalbox.log().split_off(before);
    let found = "✓ models in the registry: sentiment-model-fast version 1, sentiment-model-accurate version 1 (";
    assert!(log.contains(found) && !log.contains("training"), "{log}");
    assert_eq!(ask(&signalbox, "This is a great product!").await, everyday);
    assert!(signalbox.terminate().success(), "{}", signalbox.log());
}

#[test]
#[ignore = "needs MLflow; tests/run installs it"]
fn quickstart_leaves_nothing_behind_when_interrupted_or_killed_at_any_step() {
    let home = fresh_directory("quickstart");
    for step in ["starting MLflow", "✓ MLflow at", "signalbox is ready", "looking for the models"] {
        for way in ["INT", "KILL"] {
            let mark = Mark::new();
            let mut signalbox = Signalbox::spawn_quickstart(home.clone(), vec![(MARK, mark.value().into())]);
            signalbox.wait_for(step);
            if way == "KILL" {
                signalbox.kill();
            } else {
                signal(way, signalbox.pid());
                wait_until(&format!("the end after SIG{way}"), Duration::from_secs(30), || signalbox.ended());
            }
            mark.assert_nothing_is_left(&format!("SIG{way} at \"{step}\""));
            // After the second step the database is there, and the models are not all: the next start makes up for that.
            if step == "starting MLflow" {
                let _ = std::fs::remove_dir_all(home.join(".signalbox"));
            }
        }
    }
}

#[test]
#[ignore = "needs MLflow; tests/run installs it"]
fn quickstart_says_why_when_mlflow_fails_beside_it() {
    let home = fresh_directory("quickstart");
    std::fs::create_dir(home.join(".signalbox")).unwrap();
    std::fs::write(home.join(".signalbox/mlflow.db"), "no database ".repeat(1000)).unwrap();
    let mark = Mark::new();
    let mut signalbox = Signalbox::spawn_quickstart(home, vec![(MARK, mark.value().into())]);
    let status = wait_until("the end of the quickstart", Duration::from_secs(120), || signalbox.ended());
    let log = signalbox.log();
    assert_eq!(status.code(), Some(69), "{log}");
    assert!(log.contains("signalbox quickstart: MLflow ended with exit status: 1: see "), "{log}");
    assert!(!log.contains("signalbox is ready"), "{log}");
    mark.assert_nothing_is_left("MLflow has failed");
}

/// Script of a Kafka client that shares no code with ours.
const OVER_KAFKA: &str = r#"
import asyncio, sys
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

async def main(broker, payload):
    async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
        headers = [("kafka_correlationId", b"request-1")]
        await producer.send_and_wait("inference-requests", payload.encode(), headers=headers)
        partitions = await producer.partitions_for("inference-replies")
    async with AIOKafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition("inference-replies", partition) for partition in partitions])
        async for record in consumer:
            headers = {name: value.decode() for name, value in record.headers}
            if headers["kafka_correlationId"] == "request-1":
                print(record.key.decode(), headers["status"], headers["route"])
                print(record.value.decode())
                return

asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 60))
"#;

fn payload(text: &str) -> Value {
    json!({"dataframe_split": {"columns": ["text"], "data": [[text]]}})
}

async fn ask(signalbox: &Signalbox, text: &str) -> Value {
    let url = format!("{}/invocations", signalbox.url());
    let answer = reqwest::Client::new().post(url).json(&payload(text)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}
