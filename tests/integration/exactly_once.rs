//! Covers `delivery: exactly_once`, which puts replies and offsets into one transaction.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::support::{Kafka, Setup, Signalbox, http_model, wait_until};

const REQUESTS: usize = 3_000;
const KILLS: usize = 3;
const KEYS: &str = "  max_in_flight: 64\n  delivery: exactly_once";

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn requests_get_one_reply_each_when_instance_is_killed_repeatedly() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    // The model takes its time, so that requests are in flight whenever the kill comes.
    let (_model, url) = http_model(20);
    let mut signalbox = Signalbox::start(&setup.single_config(&url, KEYS));
    kafka.send_orders(&setup.requests, REQUESTS, |_| b"{\"inputs\": [1]}".to_vec());

    let reader = setup.reply_reader();
    let mut answered = HashMap::<String, usize>::new();
    for kill in 1..=KILLS {
        wait_until("a share of the replies", Duration::from_secs(120), || {
            reader.count_into(&mut answered);
            (answered.len() >= kill * REQUESTS / (KILLS + 2)).then_some(())
        });
        signalbox.kill();
        signalbox.start_again();
        assert!(answered.len() < REQUESTS, "all was answered before the kill, which proves nothing");
    }
    wait_until("a reply to every request", Duration::from_secs(180), || {
        reader.count_into(&mut answered);
        (answered.len() == REQUESTS).then_some(())
    });
    assert!(signalbox.terminate().success(), "{}", signalbox.log());
    reader.count_rest_into(&mut answered);
    let repeated: Vec<_> = answered.iter().filter(|(_, times)| **times > 1).collect();
    assert!(repeated.is_empty(), "{repeated:?}\n{}", signalbox.log());
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn instances_accept_broker_when_they_start_at_once() {
    const INSTANCES: usize = 8;
    let setup = Setup::new(Kafka::shared());
    let config = setup.single_config("builtin:noop", KEYS);
    // Each instance is awaited by its start: one that ends in place of being ready is reported with its log.
    std::thread::scope(|scope| (0..INSTANCES).for_each(|_| drop(scope.spawn(|| Signalbox::start(&config)))));
}

/// Starts two instances with one name, which would take each other's transactions for ever.
#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn instance_exits_with_reason_when_another_has_its_name() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let (_model, url) = http_model(5);
    let config = setup.single_config(&url, &format!("{KEYS}\n  instance_id: twin"));
    let (mut first, mut second) = (Signalbox::start(&config), Signalbox::start(&config));
    let mut sent = 0;
    let ended = wait_until("one of them to end", Duration::from_secs(300), || {
        // Transactions go on until one of them ends, but no faster than requests are answered.
        let more = if sent < 2_000 { 20 } else { 1 };
        (sent..sent + more).for_each(|n| send(kafka, &setup, n));
        kafka.flush();
        sent += more;
        [&mut first, &mut second].into_iter().find_map(|one| one.ended().map(|status| (status, one.log())))
    });
    let (status, log) = ended;
    assert!(!status.success() && log.contains("give each a kafka.instance_id of its own"), "{status} {log}");

    let reader = setup.reply_reader();
    let mut answered = HashMap::<String, usize>::new();
    wait_until("a reply to every request", Duration::from_secs(120), || {
        reader.count_into(&mut answered);
        (answered.len() == sent).then_some(())
    });
    reader.count_rest_into(&mut answered);
    assert!(answered.values().all(|times| *times == 1), "{answered:?}");
}

fn send(kafka: &Kafka, setup: &Setup<'_>, n: usize) {
    kafka.send(&setup.requests, None, &[("kafka_correlationId", &format!("order-{n}"))], b"{\"inputs\": [1]}");
}

/// Covers requests in transactions: each transaction leaves an offset without a record, and an aborted one many.
#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn transactional_requests_are_answered_when_committed() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("transactional.id", &setup.requests)
        .create()
        .unwrap();
    let patience = Duration::from_secs(30);
    producer.init_transactions(patience).unwrap();
    for transaction in 0..20 {
        let commits = transaction % 3 != 1;
        producer.begin_transaction().unwrap();
        for n in 0..10 {
            let id = format!("{}-{transaction}-{n}", if commits { "kept" } else { "void" });
            producer.send(BaseRecord::to(&setup.requests).key(&id).payload("{\"inputs\": [1]}")).unwrap();
        }
        producer.flush(patience).unwrap();
        if commits { producer.commit_transaction(patience) } else { producer.abort_transaction(patience) }.unwrap();
    }
    let mut signalbox = Signalbox::start(&setup.single_config("builtin:noop", KEYS));
    let reader = setup.reply_reader();
    let mut answered = HashMap::<String, usize>::new();
    wait_until("the replies", Duration::from_secs(60), || {
        reader.count_into(&mut answered);
        (answered.len() >= 130).then_some(())
    });
    assert!(signalbox.terminate().success(), "{}", signalbox.log());
    reader.count_rest_into(&mut answered);
    assert_eq!(answered.len(), 130);
    assert!(answered.iter().all(|(id, times)| id.starts_with("kept-") && *times == 1), "{answered:?}");
}

/// Covers foreign commit metadata: whatever it says, a request after the commit's offset is answered unless it is known
/// to be.
#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn foreign_commit_metadata_is_ignored() {
    let kafka = Kafka::shared();
    for metadata in ["somebody's note", "sb1.AAAAAAAA/w", "sb9.AAAAAAAA/w"] {
        let setup = Setup::new(kafka);
        (0..40).for_each(|n| send(kafka, &setup, n));
        kafka.flush();
        let mut offsets = TopicPartitionList::new();
        for partition in 0..4 {
            let mut element = offsets.add_partition(&setup.requests, partition);
            element.set_offset(Offset::Offset(0)).unwrap();
            element.set_metadata(metadata);
        }
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap())
            .set("group.id", setup.group())
            .create()
            .unwrap();
        consumer.commit(&offsets, CommitMode::Sync).unwrap();
        let mut signalbox = Signalbox::start(&setup.single_config("builtin:noop", KEYS));
        let reader = setup.reply_reader();
        let mut answered = HashMap::<String, usize>::new();
        wait_until("the replies", Duration::from_secs(60), || {
            reader.count_into(&mut answered);
            (answered.len() == 40).then_some(())
        });
        assert!(signalbox.terminate().success());
        assert!(signalbox.log().contains("the commit's metadata cannot be relied on"), "{}", signalbox.log());
    }
}
