//! Covers the answers over HTTP: a caller has the answer as soon as this process has it, or another instance's as soon
//! as its record is there.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::OwnedHeaders;
use rdkafka::message::{Header, Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;
use tokio::sync::Notify;

use crate::support::{Caller, Kafka, Proxy, Reaction, Reply, Setup, Signalbox, StubModel, Way, eventually};

const LIMIT: Duration = Duration::from_secs(60);
const DIRECT: &str = r#"signalbox_shim_replies_total{way="direct"}"#;
const BY_TOPIC: &str = r#"signalbox_shim_replies_total{way="topic"}"#;
const UNCLAIMED: &str = "signalbox_shim_unclaimed_replies_total";

fn endpoint(name: &str, model: &StubModel) -> String {
    let route = format!("{{alias: only, model_uri: \"{}\", max_concurrency: 8}}", model.url());
    format!("\n  - {{name: {name}, timeout: 60s, routes: [{route}]}}")
}

/// Builds a config whose intake reads this partition of the replies.
fn config(setup: &Setup<'_>, endpoints: &[String], kafka_keys: &str, partition: i32) -> String {
    let config = setup.config(&format!("{}\n", endpoints.concat()), kafka_keys, "http://127.0.0.1:9");
    config.replace("server: {port: 0}", &format!("server: {{port: 0, reply_partition: {partition}}}"))
}

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(test);
}

/// Sends a record of the replies that is nobody's. Once this record is counted, all before it have been looked at.
fn send_nobodys(kafka: &Kafka, setup: &Setup<'_>, partition: i32) {
    send(kafka, &setup.replies, partition, OwnedHeaders::new(), b"{}");
}

fn send(kafka: &Kafka, topic: &str, partition: i32, headers: OwnedHeaders, payload: &[u8]) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).headers(headers).payload(payload);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(LIMIT).unwrap();
}

async fn until_metric(caller: &Caller, series: &str, value: f64) {
    let is_there = async || (caller.metric(series).await == value).then_some(());
    eventually(&format!("{series} {value}"), LIMIT, is_there).await;
}

/// Counts all committed replies, by correlation id.
fn committed(setup: &Setup<'_>) -> HashMap<String, usize> {
    let mut answered = HashMap::new();
    setup.reply_reader().count_rest_into(&mut answered);
    answered
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn caller_is_answered_before_commit_and_record_appears_once_after_it() {
    static GO_ON: Notify = Notify::const_new();
    const CALLS: usize = 20;
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let slow = StubModel::start(|_, _| Reaction::When(&GO_ON));
    let fast = StubModel::start(|calls, _| if calls == 0 { Reaction::Status(400) } else { Reaction::Answer });
    let endpoints = [endpoint("slow", &slow), endpoint("fast", &fast)];
    let keys = "  delivery: exactly_once\n  transaction_interval: 5s";
    let signalbox = Signalbox::start(&config(&setup, &endpoints, keys, 2));
    let caller = Caller::of(&signalbox);
    block_on(async {
        // A transaction takes its time while a request is under way.
        let waits = tokio::spawn({
            let caller = caller.clone();
            async move { caller.ask("slow", &json!({"inputs": [1]})).await }
        });
        eventually("the slow call", LIMIT, async || (slow.calls() == 1).then_some(())).await;
        let mut answers = Vec::new();
        for _ in 0..CALLS {
            answers.push(caller.ask("fast", &json!({"inputs": [1]})).await);
        }
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [&[400][..], &[200; CALLS - 1]].concat());
        answers[0].fault();
        let took: Duration = answers.iter().map(|answer| answer.took).sum();
        assert!(took < Duration::from_secs(4), "{took:?}");
        assert_eq!(caller.metric(r#"signalbox_transactions_total{result="committed"}"#).await, 0.0);
        assert_eq!((caller.metric(DIRECT).await, caller.metric(BY_TOPIC).await), (CALLS as f64, 0.0));

        GO_ON.notify_one();
        answers.push(waits.await.unwrap());
        let replies = setup.replies(CALLS + 1, LIMIT);
        for answer in &answers {
            let id = answer.header("x-correlation-id");
            let reply = replies.iter().find(|reply| reply.key == id).unwrap();
            assert_eq!((reply.status(), &reply.body), (answer.status, &answer.body));
            for name in ["content-type", "endpoint", "route", "attempts"] {
                let shown = if name == "content-type" { name.to_owned() } else { format!("x-{name}") };
                assert_eq!(answer.header(&shown), reply.header(name));
            }
        }
        let records = committed(&setup);
        assert!(records.len() == CALLS + 1 && records.values().all(|times| *times == 1), "{records:?}");
        send_nobodys(kafka, &setup, 2);
        until_metric(&caller, UNCLAIMED, 1.0).await;
    });
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn caller_is_answered_while_broker_hangs_and_record_follows() {
    static GO_ON: Notify = Notify::const_new();
    let proxy = Proxy::start();
    let kafka = Kafka::start_behind(&proxy);
    let setup = Setup::new(&kafka);
    let model = StubModel::start(|_, _| Reaction::When(&GO_ON));
    let config = config(&setup, &[endpoint("slow", &model)], "  delivery: at_least_once", 1);
    let config = config.replace(&kafka.bootstrap(), &format!("127.0.0.1:{}", proxy.port()));
    let signalbox = Signalbox::start(&config);
    let caller = Caller::of(&signalbox);
    block_on(async {
        let waits = tokio::spawn({
            let caller = caller.clone();
            async move { caller.ask("slow", &json!({"inputs": [1]})).await }
        });
        eventually("the call", LIMIT, async || (model.calls() == 1).then_some(())).await;
        proxy.stall(&[Way::Requests]);
        GO_ON.notify_one();
        let answer = waits.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(committed(&setup).is_empty());
        proxy.heal();
        let replies = setup.replies(1, LIMIT);
        assert_eq!((&*replies[0].key, &replies[0].body), (answer.header("x-correlation-id"), &answer.body));
        assert_eq!((caller.metric(DIRECT).await, committed(&setup).len()), (1.0, 1));
        send_nobodys(&kafka, &setup, 1);
        until_metric(&caller, UNCLAIMED, 1.0).await;
    });
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn instances_answer_callers_of_each_other() {
    const CALLS: usize = 60;
    let kafka = Kafka::shared();
    for delivery in ["at_least_once", "exactly_once"] {
        let setup = Setup::new(kafka);
        let model = StubModel::start(|_, _| Reaction::Answer);
        let keys = format!("  delivery: {delivery}");
        let start = |partition| Signalbox::start(&config(&setup, &[endpoint("only", &model)], &keys, partition));
        let instances = [start(0), start(3)];
        let callers = instances.each_ref().map(Caller::of);
        block_on(async {
            for _ in 0..CALLS {
                for caller in &callers {
                    let answer = caller.ask("only", &json!({"inputs": [1]})).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            }
            assert_eq!(setup.replies(2 * CALLS, LIMIT).len(), 2 * CALLS);
            for (caller, partition) in callers.iter().zip([0, 3]) {
                send_nobodys(kafka, &setup, partition);
                until_metric(caller, UNCLAIMED, 1.0).await;
                let (direct, by_topic) = (caller.metric(DIRECT).await, caller.metric(BY_TOPIC).await);
                println!("{delivery}: {direct} by the instance that was called, {by_topic} by the other");
                assert!(direct > 0.0 && by_topic > 0.0 && direct + by_topic == CALLS as f64);
            }
        });
    }
}

/// Covers a forged request: anybody who writes to the requests topic can know a caller's correlation id.
#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn copied_request_does_not_answer_caller_when_reply_topic_differs() {
    static GO_ON: Notify = Notify::const_new();
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let model = StubModel::start(|calls, _| if calls == 0 { Reaction::When(&GO_ON) } else { Reaction::Large(7) });
    let signalbox = Signalbox::start(&config(&setup, &[endpoint("only", &model)], "  delivery: at_least_once", 1));
    let caller = Caller::of(&signalbox);
    block_on(async {
        let waits = tokio::spawn({
            let caller = caller.clone();
            async move { caller.ask("only", &json!({"inputs": [1]})).await }
        });
        eventually("the call", LIMIT, async || (model.calls() == 1).then_some(())).await;
        let request = kafka.consume(&setup.requests, 1, LIMIT).remove(0);
        let elsewhere = request.headers().unwrap().iter().fold(OwnedHeaders::new(), |headers, header| {
            let value = if header.key == "kafka_replyPartition" { Some(&[0, 0, 0, 2][..]) } else { header.value };
            headers.insert(Header { key: header.key, value })
        });
        send(kafka, &setup.requests, 0, elsewhere, request.payload().unwrap());
        let replies = kafka.consume(&setup.replies, 1, LIMIT);
        assert_eq!((replies[0].partition(), Reply::of(&replies[0]).status()), (2, 200));
        assert!(!waits.is_finished());
        GO_ON.notify_one();
        let answer = waits.await.unwrap();
        assert_eq!(answer.json()["predictions"][1], "");
        assert_eq!(caller.metric(DIRECT).await, 1.0);
    });
}
