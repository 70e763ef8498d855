//! Covers endings that no topic takes as they are: each ends all the same, soon, and no caller beside it notices.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::support::{Kafka, Reaction, Reply, Scrape, Setup, Signalbox, StubModel, unique, wait_until};

/// Limit within which each of the bad requests has its end; the rest is for a machine that does other things as well.
const ENDED_WITHIN: Duration = Duration::from_secs(15);
/// Limit that no request beside the bad ones waits for; the wait was half a minute, or for ever.
const INNOCENT_WITHIN: Duration = Duration::from_secs(4);
const BETWEEN: Duration = Duration::from_millis(25);

/// Describes a request whose reply or fault cannot be published as it is.
struct Bad {
    name: &'static str,
    endpoint: &'static str,
    key: Option<String>,
    headers: Vec<(&'static str, String)>,
    /// Tells whether there is a dead letter as well.
    dead: bool,
}

fn bad(name: &'static str, headers: &[(&'static str, &str)], dead: bool) -> Bad {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Bad { name, endpoint: "good", key: None, headers, dead }
}

/// Lists the bad requests. `there` is an allowed topic with four partitions; `tiny` is one that takes next to nothing.
fn kinds(there: &str, tiny: &str) -> Vec<Bad> {
    let (large, quotes) = ("k".repeat(600_000), "\"".repeat(255_000));
    let missing = |name: &str| format!("team-{}", unique(name));
    vec![
        Bad { key: Some(large.clone()), ..bad("a key of 600 KB", &[], false) },
        Bad { key: Some(quotes.clone()), ..bad("quotes as a key, and a bad deadline", &[("deadline", "x")], false) },
        bad("a header of nearly 1 MB", &[("x-big", &"h".repeat(999_800))], false),
        bad("a long id of Spring's", &[("kafka_correlationId", &large), ("deadline", "x")], false),
        bad("a long id of SmallRye's", &[("REPLY_CORRELATION_ID", &quotes), ("deadline", "x")], false),
        bad("a long plain id", &[("correlation-id", &quotes), ("deadline", "x"), ("x-more", &large)], false),
        bad(
            "a long id of NestJS's",
            &[
                ("kafka_correlationId", &quotes),
                ("kafka_replyTopic", &format!("{}.reply", missing("nest"))),
                ("kafka_replyPartition", "0"),
            ],
            true,
        ),
        bad("a NUL in the topic", &[("kafka_replyTopic", "team-\0")], true),
        bad("no topic's name", &[("kafka_replyTopic", "team- and others")], true),
        bad("a topic that is missing", &[("kafka_replyTopic", &missing("gone"))], true),
        bad("a partition that is missing", &[("kafka_replyTopic", there), ("kafka_replyPartition", "99")], false),
        bad("a topic that takes next to nothing", &[("kafka_replyTopic", tiny)], true),
        Bad { endpoint: "large", ..bad("an answer of 2 MiB", &[], false) },
    ]
}

fn config(setup: &Setup<'_>, large: &StubModel, delivery: &str) -> String {
    let endpoints = format!(
        "
  - {{name: good, routes: [{{model_uri: \"builtin:noop\", alias: only}}]}}
  - {{name: large, routes: [{{model_uri: \"{}\", alias: only}}]}}
",
        large.url()
    );
    let keys = format!("  delivery: {delivery}\n  allowed_reply_topics: [\"(?s)team-.*\"]\n  retry_delays: []");
    setup.config(&endpoints, &keys, "http://127.0.0.1:9")
}

/// Holds all endings that have come so far, by key, and when they came.
#[derive(Default)]
struct Seen {
    innocent: HashMap<String, Instant>,
    others: Vec<Reply>,
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn exactly_once_ends_unpublishable_requests_without_delaying_others() {
    println!("{}", each_ends_and_nobody_notices("exactly_once"));
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn at_least_once_ends_unpublishable_requests_without_delaying_others() {
    println!("{}", each_ends_and_nobody_notices("at_least_once"));
}

/// Runs the bad requests beside innocent ones, and returns for a person how long the bad ones took.
fn each_ends_and_nobody_notices(delivery: &str) -> String {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let there = kafka.create_topic("team-there", 4);
    let tiny = kafka.create_topic_with("team-tiny", 1, &[("max.message.bytes", "200")]);
    let large = StubModel::start(|_, _| Reaction::Large(2 << 20));
    let mut signalbox = Signalbox::start(&config(&setup, &large, delivery));
    let (seen, over, sent) = (Mutex::new(Seen::default()), AtomicBool::new(false), Mutex::new(HashMap::new()));
    let readers = [kafka.reader(&setup.replies), kafka.reader(&there), kafka.reader(&setup.dead_letters)];
    let worst = thread::scope(|scope| {
        let (seen, over, sent, requests) = (&seen, &over, &sent, &setup.requests);
        let [replies, there_too, letters] = &readers;
        for reader in [replies, there_too] {
            scope.spawn(move || watch(reader, seen, over));
        }
        scope.spawn(move || call(kafka, requests, sent, over));
        // The innocent callers stop even when a bad request never ends.
        let _end = OnDrop(|| over.store(true, Ordering::Release));
        let answered = || seen.lock().unwrap().innocent.len();
        wait_until("the first replies", Duration::from_secs(60), || (answered() > 10).then_some(()));
        let mut worst = Duration::ZERO;
        for kind in kinds(&there, &tiny) {
            let (before, began) = (seen.lock().unwrap().others.len(), Instant::now());
            let headers = kind.headers.iter().map(|(name, value)| (*name, value.as_str()));
            let headers: Vec<_> = headers.chain([("endpoint", kind.endpoint)]).collect();
            kafka.produce(requests, kind.key.as_deref(), &headers, b"{\"inputs\": [1]}");
            let reply = wait_until(kind.name, ENDED_WITHIN, || seen.lock().unwrap().others.get(before).cloned());
            worst = worst.max(began.elapsed());
            let answered = reply.status() == 200 && kind.name.contains("partition");
            assert!(reply.status() >= 400 || answered, "{}: {}", kind.name, reply.status());
            if kind.dead {
                let letter = wait_until("a dead letter", ENDED_WITHIN, || letters.poll(Duration::from_millis(50)));
                let letter = Reply::of(&letter.unwrap().detach());
                assert_eq!(letter.header("kafka_dlt-original-topic"), setup.requests, "{}", kind.name);
            }
        }
        over.store(true, Ordering::Release);
        worst
    });
    let sent = sent.into_inner().unwrap();
    wait_until("a reply to every innocent one", Duration::from_secs(30), || {
        let mut seen = seen.lock().unwrap();
        while let Some(Ok(record)) = readers[0].poll(Duration::from_millis(20)) {
            seen.note(Reply::of(&record.detach()));
        }
        (seen.innocent.len() == sent.len()).then_some(())
    });
    let seen = seen.into_inner().unwrap();
    let mut took: Vec<_> = sent.iter().map(|(key, sent)| seen.innocent[key].saturating_duration_since(*sent)).collect();
    took.sort_unstable();
    let (half, last, count) = (took[took.len() / 2], took[took.len() - 1], took.len());
    assert!(last < INNOCENT_WITHIN, "{half:?} {last:?}");
    assert_eq!(Scrape::of(&signalbox).sum("lost_total", &[]), 0.0);
    assert!(signalbox.terminate().success(), "{}", signalbox.log());
    let log = signalbox.log();
    assert!(!log.contains("panicked") && log.len() < 1 << 20, "{log}");
    format!("{delivery}: the bad within {worst:?}; half of {count} others within {half:?}, all within {last:?}")
}

impl Seen {
    fn note(&mut self, reply: Reply) {
        if reply.key.starts_with("innocent-") {
            self.innocent.entry(reply.key).or_insert_with(Instant::now);
        } else {
            self.others.push(reply);
        }
    }
}

fn watch(reader: &BaseConsumer, seen: &Mutex<Seen>, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        if let Some(Ok(record)) = reader.poll(Duration::from_millis(20)) {
            seen.lock().unwrap().note(Reply::of(&record.detach()));
        }
    }
}

fn call(kafka: &Kafka, requests: &str, sent: &Mutex<HashMap<String, Instant>>, over: &AtomicBool) {
    for n in 0.. {
        if over.load(Ordering::Acquire) {
            return;
        }
        let key = format!("innocent-{n}");
        sent.lock().unwrap().insert(key.clone(), Instant::now());
        kafka.send(requests, Some(&key), &[("endpoint", "good")], b"{\"inputs\": [1]}");
        thread::sleep(BETWEEN);
    }
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Covers a replies topic and dead letters that take nothing: each request is dropped, counted and logged, and requests
/// whose replies go elsewhere are answered.
#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn dropped_requests_are_counted_and_logged_when_no_topic_takes_them() {
    for delivery in ["exactly_once", "at_least_once"] {
        let kafka = Kafka::shared();
        let there = kafka.create_topic("team-there", 1);
        let nothing = [("max.message.bytes", "150")];
        let mut setup = Setup::with_replies(kafka, &nothing);
        setup.dead_letters = kafka.create_topic_with("dead-letters", 4, &nothing);
        let large = StubModel::start(|_, _| Reaction::Answer);
        let mut signalbox = Signalbox::start(&config(&setup, &large, delivery));
        let good = |reply_topic| [("endpoint", "good"), ("kafka_replyTopic", reply_topic)];
        for n in 0..10 {
            kafka.send(&setup.requests, Some(&format!("lost-{n}")), &good(&setup.replies), b"{\"inputs\": [1]}");
            kafka.send(&setup.requests, Some(&format!("kept-{n}")), &good(&there), b"{\"inputs\": [1]}");
        }
        kafka.flush();
        assert_eq!(kafka.consume(&there, 10, Duration::from_secs(60)).len(), 10, "{}", signalbox.log());
        wait_until("all that is lost", Duration::from_secs(30), || {
            (Scrape::of(&signalbox).sum("lost_total", &["request"]) == 10.0).then_some(())
        });
        let log = signalbox.log();
        let told = log.lines().filter(|line| line.contains("it is dropped") && line.contains(&setup.requests));
        assert_eq!(told.count(), 10, "{log}");
        // Dropped requests count as done.
        assert!(signalbox.terminate().success());
        assert!(kafka.consume(&setup.replies, 1, Duration::from_secs(1)).is_empty());
    }
}

/// Covers a broker that creates topics by itself: it is never asked for one that a request has named.
#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn broker_creates_no_topic_when_request_names_it() {
    let kafka = Kafka::start_with("auto.create.topics.enable=true");
    for delivery in ["exactly_once", "at_least_once"] {
        let setup = Setup::new(&kafka);
        let large = StubModel::start(|_, _| Reaction::Answer);
        let _signalbox = Signalbox::start(&config(&setup, &large, delivery));
        for n in 0..20 {
            let topic = format!("team-made-{n}");
            kafka.send(
                &setup.requests,
                None,
                &[("endpoint", "good"), ("kafka_replyTopic", &topic)],
                b"{\"inputs\": [1]}",
            );
        }
        kafka.flush();
        let replies = setup.replies(20, Duration::from_secs(60));
        assert_eq!(replies.len(), 20);
        assert!(replies.iter().all(|reply| reply.json()["error_code"] == "PERMISSION_DENIED"), "{replies:?}");
    }
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(30)).unwrap();
    let made: Vec<_> =
        metadata.topics().iter().map(|topic| topic.name()).filter(|name| name.contains("made")).collect();
    assert!(made.is_empty(), "{made:?}");
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn refused_requests_end_one_after_another_when_topic_takes_nothing() {
    const REQUESTS: usize = 40;
    let kafka = Kafka::shared();
    for delivery in ["exactly_once", "at_least_once"] {
        let setup = Setup::new(kafka);
        let stale = kafka.create_topic_with("team-stale", 1, &[("message.timestamp.before.max.ms", "0")]);
        let large = StubModel::start(|_, _| Reaction::Large(1));
        let signalbox = Signalbox::start(&config(&setup, &large, delivery));
        let begun = Instant::now();
        for n in 0..REQUESTS {
            let headers =
                [("kafka_correlationId", &*format!("order-{n}")), ("kafka_replyTopic", &*stale), ("endpoint", "good")];
            kafka.send(&setup.requests, None, &headers, br#"{"inputs": [1]}"#);
        }
        kafka.flush();
        let letters = kafka.consume(&setup.dead_letters, REQUESTS, ENDED_WITHIN).len();
        println!("{delivery}: {letters} letters within {:?}", begun.elapsed());
        // The topic takes a reply that comes within the millisecond of its timestamp.
        let taken = kafka.consume(&stale, REQUESTS - letters, Duration::from_secs(5)).len();
        assert!(letters > REQUESTS / 2, "{delivery}: {letters} letters");
        assert_eq!(letters + taken, REQUESTS, "{delivery}: {}", signalbox.log());
    }
}
