//! Covers `kafka.ordering`: replies leave in the order of their requests, while models are called in parallel.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use rdkafka::Message;
use rdkafka::consumer::BaseConsumer;
use tokio::sync::Notify;

use crate::support::{Dice, Kafka, Reaction, Reply, Setup, Signalbox, StubModel, wait_until};

const REQUESTS: usize = 3_000;
const KEYS: usize = 50;
const LATEST: Duration = Duration::from_millis(200);
const IN_TIME: Duration = Duration::from_secs(120);
/// Topic that replies may not go to, so that the request becomes a dead letter and its fault takes another way.
const FORBIDDEN: &str = "somewhere-else";

/// Starts a model that answers after up to [`LATEST`], by chance.
fn model() -> StubModel {
    StubModel::start(|call, _| Reaction::Late(Dice::new(call as u64).moment(LATEST)))
}

fn key_of(request: usize) -> String {
    format!("key-{}", Dice::new(request as u64 + 1_000_000).below(KEYS))
}

fn config(setup: &Setup<'_>, model: &StubModel, delivery: &str, ordering: &str) -> String {
    // Many transactions follow each other at these intervals.
    let intervals = "  commit_interval: 50ms\n  transaction_interval: 5ms";
    let keys = format!("  max_in_flight: 256\n{intervals}\n  delivery: {delivery}\n  ordering: {ordering}");
    setup.single_config(model.url(), &keys)
}

/// Sends requests whose correlation ids are their numbers; every hundredth asks for a topic that is not allowed.
fn send(kafka: &Kafka, setup: &Setup<'_>, requests: Range<usize>) {
    for request in requests {
        let id = request.to_string();
        let mut headers = vec![("kafka_correlationId", id.as_str())];
        if request % 100 == 99 {
            headers.push(("kafka_replyTopic", FORBIDDEN));
        }
        kafka.send(&setup.requests, Some(&key_of(request)), &headers, b"{\"inputs\": [1]}");
    }
    kafka.flush();
}

/// Names the thing that has an order of its own.
#[derive(Clone, Copy)]
enum By {
    Key,
    Partition,
}

/// Looks at replies as they come.
struct Watch {
    by: By,
    replies: BaseConsumer,
    /// Holds for each key or partition in which partition its replies are, and the offsets of their requests.
    seen: HashMap<String, (i32, Vec<i64>)>,
    ids: HashSet<String>,
    repeats: usize,
    first: Option<Instant>,
}

impl Watch {
    fn new(kafka: &Kafka, setup: &Setup<'_>, by: By) -> Self {
        let replies = kafka.reader(&setup.replies);
        Self { by, replies, seen: HashMap::new(), ids: HashSet::new(), repeats: 0, first: None }
    }

    /// Takes in what has come.
    fn look(&mut self) {
        while self.take_one() {}
    }

    /// Takes in the next record, and returns false if none has come.
    fn take_one(&mut self) -> bool {
        let Some(record) = self.replies.poll(Duration::from_millis(50)) else { return false };
        if let Ok(record) = record {
            self.first.get_or_insert_with(Instant::now);
            self.count(record.partition(), &Reply::of(&record.detach()));
        }
        true
    }

    fn count(&mut self, partition: i32, reply: &Reply) {
        let (source, offset) = reply.header("source").rsplit_once('/').unwrap();
        let offset = offset.parse().unwrap();
        if !self.ids.insert(reply.key.clone()) {
            self.repeats += 1;
            return;
        }
        let group = match self.by {
            By::Key => key_of(reply.key.parse().unwrap()),
            By::Partition => source.to_owned(),
        };
        let (home, offsets) = self.seen.entry(group.clone()).or_insert((partition, Vec::new()));
        assert_eq!(*home, partition, "{group} is in two partitions");
        let before = offsets.last().copied().unwrap_or(-1);
        assert!(before < offset, "{group}: {offset} comes after {before}");
        offsets.push(offset);
    }

    /// Takes in no more than it takes to have so many.
    fn wait_for(&mut self, count: usize) {
        let end = Instant::now() + IN_TIME;
        while self.ids.len() < count {
            assert!(Instant::now() < end, "{} of {count} replies have come", self.ids.len());
            self.take_one();
        }
    }
}

/// Names the events that happen while requests are under way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Nothing,
    /// The instance is ended by `kill -9`, and started anew.
    Kill,
    /// A second instance joins, and then the first one leaves.
    Relay,
}

/// Sends all, and sees that the replies are complete and in order whatever happens.
fn run(delivery: &str, ordering: &str, by: By, event: Event) -> Watch {
    let kafka = Kafka::shared();
    let (setup, model) = (Setup::new(kafka), model());
    send(kafka, &setup, 0..REQUESTS);
    let config = config(&setup, &model, delivery, ordering);
    let mut signalbox = Signalbox::start(&config);
    // The broker knows its new topics for certain only now.
    let mut watch = Watch::new(kafka, &setup, by);
    let mut count = REQUESTS;
    match event {
        Event::Nothing => {}
        Event::Kill => {
            watch.wait_for(REQUESTS / 4);
            signalbox.kill();
            watch.look();
            assert!(watch.ids.len() < REQUESTS, "all was answered before the kill, which proves nothing");
            signalbox.start_again();
        }
        Event::Relay => {
            let second = Signalbox::start(&config);
            send(kafka, &setup, REQUESTS..2 * REQUESTS);
            count = 2 * REQUESTS;
            watch.wait_for(REQUESTS + REQUESTS / 8);
            assert!(signalbox.terminate().success(), "{}", signalbox.log());
            signalbox = second;
        }
    }
    watch.wait_for(count);
    if event == Event::Nothing {
        let (took, one_by_one) = (watch.first.unwrap().elapsed(), LATEST / 2 * REQUESTS as u32);
        assert!(took < one_by_one / 8, "{took:?} is hardly faster than one by one, {one_by_one:?}");
        let waited = signalbox.metric("signalbox_order_wait_seconds_sum").unwrap();
        assert!(waited > 1.0, "{waited}");
    }
    wait_until("repeats to leave as well", IN_TIME, || {
        (signalbox.metric("signalbox_order_waiting") == Some(0.0)).then_some(())
    });
    assert!(signalbox.terminate().success(), "{}", signalbox.log());
    watch.look();
    watch
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn replies_of_key_keep_order_of_requests() {
    assert_eq!(run("at_least_once", "key", By::Key, Event::Nothing).repeats, 0);
    assert_eq!(run("exactly_once", "key", By::Key, Event::Nothing).repeats, 0);
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn replies_of_partition_keep_order_of_requests() {
    assert_eq!(run("at_least_once", "partition", By::Partition, Event::Nothing).repeats, 0);
    assert_eq!(run("exactly_once", "partition", By::Partition, Event::Nothing).repeats, 0);
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn replies_keep_order_when_instance_is_killed() {
    // All runs start at once, since most of the time is spent waiting for the group to miss who was killed.
    thread::scope(|scope| {
        scope.spawn(|| run("at_least_once", "key", By::Key, Event::Kill));
        scope.spawn(|| assert_eq!(run("exactly_once", "key", By::Key, Event::Kill).repeats, 0));
        scope.spawn(|| assert_eq!(run("exactly_once", "partition", By::Partition, Event::Kill).repeats, 0));
    });
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn replies_keep_order_when_one_instance_joins_and_another_leaves() {
    thread::scope(|scope| {
        scope.spawn(|| run("at_least_once", "key", By::Key, Event::Relay));
        scope.spawn(|| assert_eq!(run("exactly_once", "key", By::Key, Event::Relay).repeats, 0));
    });
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn replies_keep_order_when_broker_refuses_one() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    // A batch of small answers has to fit all the same.
    let keys = "  delivery: exactly_once\n  ordering: key\n  properties: {batch.size: 15000}";
    let model = StubModel::start(|call, _| match call % 60 {
        30 => Reaction::Large(50_000),
        _ => Reaction::Late(Dice::new(call as u64).moment(LATEST)),
    });
    let mut signalbox = Signalbox::start(&setup.single_config(model.url(), keys));
    // Signalbox has asked for the topic's limit, and does so again only after a while, so the broker has to say it.
    kafka.set(&setup.replies, "max.message.bytes", "20000");
    send(kafka, &setup, 0..300);
    let mut watch = Watch::new(kafka, &setup, By::Key);
    watch.wait_for(300);
    assert!(signalbox.metric("signalbox_transactions_total{result=\"aborted\"}") > Some(0.0));
    assert!(signalbox.terminate().success(), "{}", signalbox.log());
    watch.look();
    assert_eq!(watch.repeats, 0);
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn slow_request_delays_only_its_own_key() {
    static TOLD: Notify = Notify::const_new();
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let model = StubModel::start(|_, headers: &HeaderMap| match headers.contains_key("x-slow") {
        true => Reaction::When(&TOLD),
        false => Reaction::Answer,
    });
    let signalbox = Signalbox::start(&config(&setup, &model, "at_least_once", "key"));
    let mut watch = Watch::new(kafka, &setup, By::Key);
    let stuck = key_of(0);
    let behind = (1..500).filter(|request| key_of(*request) == stuck).count();
    assert!(behind > 0);
    kafka.send(&setup.requests, Some(&stuck), &[("kafka_correlationId", "0"), ("x-slow", "1")], b"{\"inputs\": [1]}");
    for request in 1..500 {
        let id = request.to_string();
        kafka.send(&setup.requests, Some(&key_of(request)), &[("kafka_correlationId", &id)], b"{\"inputs\": [1]}");
    }
    kafka.flush();
    watch.wait_for(499 - behind);
    assert!(!watch.seen.contains_key(&stuck), "an answer has not waited for the one before it");
    wait_until("those behind it to be answered", IN_TIME, || {
        (signalbox.metric("signalbox_order_waiting") == Some(behind as f64)).then_some(())
    });
    assert_eq!(model.calls(), 500, "models are called in parallel");
    TOLD.notify_one();
    watch.wait_for(500);
    assert_eq!(signalbox.metric("signalbox_order_waiting"), Some(0.0));
    assert_eq!(signalbox.metric("signalbox_order_wait_seconds_count"), Some(500.0));
}
