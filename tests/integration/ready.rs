//! Covers `GET /ready`, which says whether requests are read and replies published, and why not.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;

use crate::support::{Caller, Kafka, Scrape, Setup, Signalbox, signal, wait_until};

const LIMIT: Duration = Duration::from_secs(90);
const PAYLOAD: &[u8] = br#"{"inputs": [1]}"#;

/// Returns the status of `GET /ready`, and what it says of each part.
fn ready(signalbox: &Signalbox) -> (u16, Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let answer = reqwest::get(format!("{}/ready", signalbox.url())).await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    })
}

fn wait_until_ready(signalbox: &Signalbox, expected: u16, parts: &[&str]) -> Value {
    wait_until(&format!("{expected} of /ready"), LIMIT, || {
        let (status, said) = ready(signalbox);
        let all = parts.iter().all(|part| said["parts"][part]["ready"] == (expected == 200));
        (status == expected && all).then_some(said)
    })
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn readiness_reports_broker_when_it_hangs_and_when_it_resumes() {
    for delivery in ["at_least_once", "exactly_once"] {
        let kafka = Kafka::start();
        let setup = Setup::new(&kafka);
        let (_model, url) = crate::support::http_model(3_000);
        let signalbox = Signalbox::start(&setup.single_config(&url, &format!("  delivery: {delivery}")));
        assert_eq!(ready(&signalbox).0, 200);
        assert_eq!(Scrape::of(&signalbox).sum("ready", &["part=\"replies\""]), 1.0);
        kafka.send_orders(&setup.requests, 5, |_| PAYLOAD.to_vec());
        wait_until("requests under way", LIMIT, || {
            (signalbox.metric("signalbox_in_flight_requests") == Some(5.0)).then_some(())
        });
        // The answers of these requests come when nobody takes them.
        signal("STOP", kafka.pid());
        let said = wait_until_ready(&signalbox, 503, &["replies", "requests"]);
        println!("{delivery}: {said}");
        let why = said["parts"]["replies"]["waits_for"].as_str().unwrap();
        assert!(why.contains("replies to be published: none got through"), "{why}");
        let why = said["parts"]["requests"]["waits_for"].as_str().unwrap();
        assert!(why.contains("broker"), "{why}");
        assert_eq!(Scrape::of(&signalbox).sum("ready", &["part=\"replies\""]), 0.0);
        signal("CONT", kafka.pid());
        wait_until("the replies", LIMIT, || {
            (signalbox.metric("signalbox_published_total{kind=\"reply\"}")? >= 5.0).then_some(())
        });
        assert_eq!(setup.replies(5, LIMIT).len(), 5, "{}", signalbox.log());
        wait_until_ready(&signalbox, 200, &["replies", "requests"]);
        assert_eq!(Scrape::of(&signalbox).sum("ready", &[]), 3.0);
    }
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn readiness_reports_replies_when_they_cannot_be_published() {
    for delivery in ["at_least_once", "exactly_once"] {
        let kafka = Kafka::shared();
        let setup = Setup::new(kafka);
        let keys = format!("  delivery: {delivery}\n  create_topics: true");
        let signalbox = Signalbox::start_role("router", &setup.single_config("builtin:noop", &keys));
        kafka.send_orders(&setup.requests, 1, |_| PAYLOAD.to_vec());
        assert_eq!(setup.replies(1, LIMIT).len(), 1);
        let topics = Topics::of(kafka);
        topics.delete(&setup.replies);
        kafka.send_orders(&setup.requests, 5, |_| PAYLOAD.to_vec());
        let said = wait_until_ready(&signalbox, 503, &["replies"]);
        println!("{delivery}: {said}");
        assert_eq!(said["parts"]["requests"]["ready"], true, "{said}");
        let why = said["parts"]["replies"]["waits_for"].as_str().unwrap();
        assert!(why.contains("replies to be published: none got through"), "{why}");
        let oldest = Scrape::of(&signalbox).sum("oldest_in_flight_seconds", &[]);
        assert!(oldest > 5.0, "{oldest} s");
        topics.create(&setup.replies);
        let said = wait_until_ready(&signalbox, 200, &["replies", "requests"]);
        println!("{delivery}: {said}");
        assert_eq!(setup.replies(5, LIMIT).len(), 5, "{}", signalbox.log());
    }
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn readiness_reports_shim_when_it_cannot_publish_requests() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let endpoint = "\n  - {name: only, timeout: 2s, routes: [{model_uri: builtin:noop, alias: only}]}\n";
    let config = setup.config(endpoint, "", "http://127.0.0.1:9");
    let _router = Signalbox::start_role("router", &config);
    let shim = Signalbox::start_role("shim", &config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let caller = Caller::of(&shim);
    let ask = || runtime.block_on(caller.ask("only", &serde_json::json!({"inputs": [1]}))).status;
    assert_eq!((ask(), ready(&shim).0), (200, 200));
    let topics = Topics::of(kafka);
    topics.delete(&setup.requests);
    let said = wait_until("the shim's word", LIMIT, || {
        ask();
        let (status, said) = ready(&shim);
        (status == 503).then_some(said)
    });
    println!("{said}");
    assert!(said["parts"]["shim"]["waits_for"].as_str().unwrap().contains("requests to be published"), "{said}");
    topics.create(&setup.requests);
    wait_until("the shim again", LIMIT, || {
        ask();
        (ready(&shim).0 == 200).then_some(())
    });
}

/// Deletes topics and makes them again.
struct Topics(AdminClient<DefaultClientContext>);

impl Topics {
    fn of(kafka: &Kafka) -> Self {
        Self(ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap())
    }

    fn delete(&self, topic: &str) {
        let options = AdminOptions::new().operation_timeout(Some(LIMIT));
        assert!(block_on(self.0.delete_topics(&[topic], &options)).unwrap()[0].is_ok());
    }

    fn create(&self, topic: &str) {
        let options = AdminOptions::new().operation_timeout(Some(LIMIT));
        let new = NewTopic::new(topic, 4, TopicReplication::Fixed(1));
        wait_until("a topic that is made again", LIMIT, || {
            block_on(self.0.create_topics([&new], &options)).unwrap()[0].is_ok().then_some(())
        });
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
