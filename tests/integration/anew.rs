//! Covers topics that are deleted and created again: an offset alone does not name a record.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, TopicPartitionList};

use crate::support::{Caller, Kafka, Reaction, Setup, Signalbox, StubModel, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const PAYLOAD: &[u8] = b"{\"inputs\": [1]}";
const DELIVERIES: [&str; 2] = ["at_least_once", "exactly_once"];

/// Sends requests whose ids begin so, and waits until each of them is answered.
fn ask(setup: &Setup<'_>, kafka: &Kafka, name: &str, count: usize, signalbox: &Signalbox) {
    for n in 0..count {
        kafka.send(&setup.requests, None, &[("kafka_correlationId", &format!("{name}-{n}"))], PAYLOAD);
    }
    kafka.flush();
    let reader = setup.reply_reader();
    let mut answered = HashMap::<String, usize>::new();
    let began = std::time::Instant::now();
    let ours =
        |answered: &HashMap<String, usize>| answered.keys().filter(|id| id.starts_with(&format!("{name}-"))).count();
    while ours(&answered) < count {
        reader.count_into(&mut answered);
        let found = ours(&answered);
        assert!(began.elapsed() < LIMIT, "{found} of {count} requests '{name}' are answered:\n{}", signalbox.log());
    }
}

fn assert_each_once(setup: &Setup<'_>, signalbox: &Signalbox) {
    let mut answered = HashMap::<String, usize>::new();
    setup.reply_reader().count_rest_into(&mut answered);
    let repeated: Vec<_> = answered.iter().filter(|(_, times)| **times > 1).collect();
    assert!(repeated.is_empty(), "{repeated:?}\n{}", signalbox.log());
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn requests_are_answered_once_when_topic_is_recreated() {
    for delivery in DELIVERIES {
        let kafka = Kafka::shared();
        let setup = Setup::with_partitions(kafka, 1);
        let mut signalbox = Signalbox::start(&setup.single_config("builtin:noop", &format!("  delivery: {delivery}")));
        ask(&setup, kafka, "old", 100, &signalbox);
        // The topic gets fewer requests than before, as many, and more; at once, and when the group has formed anew
        // without it.
        for (count, gap) in [(40, 0), (40, 0), (250, 0), (300, 8)] {
            kafka.make_anew(&setup.requests, 1, Duration::from_secs(gap));
            ask(&setup, kafka, &format!("{count}-at-{}", signalbox.log().len()), count, &signalbox);
        }
        assert!(signalbox.log().contains("was deleted and made again"), "{}", signalbox.log());
        assert!(signalbox.terminate().success(), "{}", signalbox.log());
        signalbox.start_again();
        ask(&setup, kafka, "last", 20, &signalbox);
        assert!(signalbox.terminate().success(), "{}", signalbox.log());
        assert_each_once(&setup, &signalbox);
    }
}

/// Starts with an old position: a commit that comes late may leave the deleted topic's position beside the new topic.
#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn startup_ignores_committed_position_of_deleted_topic() {
    for delivery in DELIVERIES {
        for count in [100, 160] {
            let kafka = Kafka::shared();
            let setup = Setup::with_partitions(kafka, 1);
            let config = setup.single_config("builtin:noop", &format!("  delivery: {delivery}"));
            let mut signalbox = Signalbox::start(&config);
            ask(&setup, kafka, "old", 100, &signalbox);
            assert!(signalbox.terminate().success(), "{}", signalbox.log());

            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", kafka.bootstrap())
                .set("group.id", setup.group())
                .create()
                .unwrap();
            let mut partition = TopicPartitionList::new();
            partition.add_partition(&setup.requests, 0);
            let position = consumer.committed_offsets(partition, LIMIT).unwrap();
            kafka.make_anew(&setup.requests, 1, Duration::ZERO);
            for n in 0..count {
                kafka.send(&setup.requests, None, &[("kafka_correlationId", &format!("new-{n}"))], PAYLOAD);
            }
            kafka.flush();
            consumer.commit(&position, CommitMode::Sync).unwrap();
            drop(consumer);

            signalbox.start_again();
            let reader = setup.reply_reader();
            let mut answered = HashMap::<String, usize>::new();
            let began = std::time::Instant::now();
            while answered.len() < 100 + count {
                reader.count_into(&mut answered);
                let found = answered.len().saturating_sub(100);
                assert!(began.elapsed() < LIMIT, "{found} of {count} are answered:\n{}", signalbox.log());
            }
            assert!(signalbox.terminate().success(), "{}", signalbox.log());
            assert_each_once(&setup, &signalbox);
        }
    }
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn requests_in_flight_are_answered_when_topic_is_deleted() {
    for delivery in DELIVERIES {
        let kafka = Kafka::shared();
        let setup = Setup::with_partitions(kafka, 1);
        let model = StubModel::start(|before, _| match before {
            0..20 => Reaction::Late(Duration::from_secs(6)),
            _ => Reaction::Answer,
        });
        let mut signalbox = Signalbox::start(&setup.single_config(model.url(), &format!("  delivery: {delivery}")));
        for n in 0..20 {
            kafka.send(&setup.requests, None, &[("kafka_correlationId", &format!("old-{n}"))], PAYLOAD);
        }
        kafka.flush();
        wait_until("calls of the model", LIMIT, || (model.calls() == 20).then_some(()));
        kafka.make_anew(&setup.requests, 1, Duration::ZERO);
        ask(&setup, kafka, "new", 60, &signalbox);
        let reader = setup.reply_reader();
        let mut answered = HashMap::<String, usize>::new();
        wait_until("a reply to every request", LIMIT, || {
            reader.count_into(&mut answered);
            (answered.len() == 80).then_some(())
        });
        assert!(signalbox.terminate().success(), "{}", signalbox.log());
        assert_each_once(&setup, &signalbox);
    }
}

/// Reads the offset that the group has committed for the topic's only partition.
fn committed(kafka: &Kafka, group: &str, topic: &str) -> i64 {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).set("group.id", group).create().unwrap();
    let mut partition = TopicPartitionList::new();
    partition.add_partition(topic, 0);
    let committed = consumer.committed_offsets(partition, LIMIT).unwrap();
    committed.elements()[0].offset().to_raw().unwrap_or_default()
}

/// Names these topics in a setup, for as long as the broker is not to be stopped.
fn of<'a>(kafka: &'a Kafka, requests: &str, replies: &str) -> Setup<'a> {
    let mut setup = Setup::new(kafka);
    (setup.requests, setup.replies) = (requests.to_owned(), replies.to_owned());
    setup
}

/// Reuses offsets: the topic's name is the same, and the record at an offset is not.
#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn reused_offsets_count_as_new_requests_when_topic_is_recreated() {
    for delivery in DELIVERIES {
        let mut kafka = Kafka::start();
        let requests = kafka.create_topic("requests", 1);
        let replies = kafka.create_topic("replies", 1);
        let (mut config, mut group) = (String::new(), String::new());
        let mut signalbox = None;
        for (name, count) in [("old", 100), ("new", 40)] {
            if name == "new" {
                wait_until("the commit of all", LIMIT, || (committed(&kafka, &group, &requests) == 100).then_some(()));
                kafka.kill();
                kafka.lose_records(&requests);
                kafka.start_again();
            }
            let setup = of(&kafka, &requests, &replies);
            if config.is_empty() {
                setup.group().clone_into(&mut group);
                // Signalbox is a member of the group all along, whatever time the broker takes to be there again.
                let keys = format!("  delivery: {delivery}\n  properties: {{session.timeout.ms: 120000}}");
                config = setup.single_config("builtin:noop", &keys);
            }
            let signalbox = signalbox.get_or_insert_with(|| Signalbox::start(&config));
            ask(&setup, &kafka, name, count, signalbox);
        }
        let signalbox = signalbox.unwrap();
        assert!(signalbox.log().contains("offsets have gone back"), "{}", signalbox.log());
        assert_each_once(&of(&kafka, &requests, &replies), &signalbox);
    }
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn http_callers_are_answered_when_replies_topic_is_recreated() {
    let kafka = Kafka::shared();
    let setup = Setup::with_partitions(kafka, 1);
    let config = setup.single_config("builtin:noop", "");
    let router = Signalbox::start_role("router", &config);
    let shim = Signalbox::start_role("shim", &config);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ask = |count: usize| {
        runtime.block_on(async {
            let caller = Caller::of(&shim);
            for n in 0..count {
                let answer = caller.ask("only", &serde_json::json!({"inputs": [1]})).await;
                assert_eq!(answer.status, 200, "call {n}: {}\n{}", answer.text(), shim.log());
            }
        });
    };
    ask(50);
    kafka.make_anew(&setup.replies, 1, Duration::ZERO);
    // The shim has to have seen the topic's end: nobody may read a record that was written before.
    wait_until("the new topic to be read", LIMIT, || shim.log().contains("was deleted and made again").then_some(()));
    ask(20);
    drop(router);
}
