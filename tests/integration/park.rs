//! Covers requests that are put aside, to be run later: nothing is lost, nothing is repeated, and no other request
//! waits.

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::Message;
use rdkafka::message::{Headers, OwnedMessage};

use crate::support::{Kafka, Reaction, Reply, Setup, Signalbox, StubModel, fresh_directory, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const PAYLOAD: &[u8] = b"{\"inputs\": [1]}";
const DELIVERIES: [&str; 2] = ["at_least_once", "exactly_once"];

fn keys(delivery: &str, delays: &str) -> String {
    // The next start takes the place of one that was killed at once, rather than after a time-out of the group.
    format!("  delivery: {delivery}\n  retry_delays: {delays}\n  properties: {{group.instance.id: one}}")
}

/// Starts a model that does not answer before it is told to.
fn model_that_is_down() -> (StubModel, Arc<AtomicBool>) {
    let is_up = Arc::new(AtomicBool::new(false));
    let model = {
        let is_up = Arc::clone(&is_up);
        StubModel::start(move |_, _| match is_up.load(Ordering::SeqCst) {
            true => Reaction::Answer,
            false => Reaction::Status(503),
        })
    };
    (model, is_up)
}

fn in_a_minute() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    (now + Duration::from_secs(60)).as_millis().to_string()
}

fn header<'a>(record: &'a OwnedMessage, name: &str) -> &'a [u8] {
    let headers = record.headers().unwrap();
    headers.iter().filter(|header| header.key == name).last().and_then(|header| header.value).unwrap_or_default()
}

pub(crate) fn text(record: &OwnedMessage, name: &str) -> String {
    String::from_utf8(header(record, name).to_vec()).unwrap()
}

/// Starts `signalbox redrive`, and does not wait for its end.
pub(crate) fn redrive(config: &str, arguments: &[&str]) -> Child {
    let file = fresh_directory("redrive").join("signalbox.yaml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox"));
    command.args(["redrive", "--config", file.to_str().unwrap()]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn requests_wait_for_unavailable_model_unless_they_have_deadline() {
    const REQUESTS: usize = 300;
    for delivery in DELIVERIES {
        let kafka = Kafka::shared();
        let setup = Setup::new(kafka);
        let (model, is_up) = model_that_is_down();
        let keys = keys(delivery, "[300ms, 600ms, 1s, 30s]");
        let mut signalbox = Signalbox::start(&setup.single_config(model.url(), &keys));
        for (correlation, headers) in
            [("deadline", ("deadline", &*in_a_minute())), ("waits", ("kafka_replyTopic", &*setup.replies))]
        {
            kafka.produce(&setup.requests, None, &[("kafka_correlationId", correlation), headers], PAYLOAD);
        }
        let told = setup.replies(2, LIMIT);
        assert!(told.len() == 2 && told.iter().all(|reply| reply.status() == 503), "{told:?}");

        kafka.send_orders(&setup.requests, REQUESTS, |_| PAYLOAD.to_vec());
        // A request that has neither an id nor a key is known by its place, whatever has become of it meanwhile.
        kafka.produce(&setup.requests, None, &[], PAYLOAD);
        wait_until("a second wait", LIMIT, || (model.calls() > 2 * REQUESTS).then_some(()));
        assert_eq!(setup.replies(3, Duration::from_secs(1)).len(), 2, "nobody else is answered yet");
        signalbox.kill();
        is_up.store(true, Ordering::SeqCst);
        signalbox.start_again();

        let reader = setup.reply_reader();
        let mut answered = HashMap::<String, usize>::new();
        wait_until("a reply to every request", LIMIT, || {
            reader.count_into(&mut answered);
            (answered.len() == REQUESTS + 3).then_some(())
        });
        assert!(signalbox.terminate().success(), "{}", signalbox.log());
        reader.count_rest_into(&mut answered);
        let repeated: Vec<_> = answered.iter().filter(|(_, times)| **times > 1).collect();
        assert!(delivery == "at_least_once" || repeated.is_empty(), "{repeated:?}\n{}", signalbox.log());
        let replies = setup.replies(answered.values().sum(), LIMIT);
        for reply in replies.iter().filter(|reply| !["deadline", "waits"].contains(&&*reply.key)) {
            assert_eq!(reply.status(), 200, "{reply:?}");
            let attempts: u32 = reply.header("attempts").parse().unwrap();
            // There is one attempt for each delay at most, and the last.
            assert!((2..=5).contains(&attempts), "{reply:?}");
            let source = reply.header("source");
            assert!(source.starts_with(&format!("{}/", setup.requests)), "{reply:?}");
            if !reply.key.starts_with("order-") {
                assert_eq!(
                    reply.key.replace(&setup.requests, ""),
                    source.replace(&setup.requests, "").replace('/', "-")
                );
            }
        }
    }
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn request_becomes_dead_letter_with_fault_when_last_retry_fails() {
    for delivery in DELIVERIES {
        let kafka = Kafka::shared();
        let setup = Setup::new(kafka);
        let (model, is_up) = model_that_is_down();
        let config = setup.single_config(model.url(), &keys(delivery, "[200ms, 500ms]"));
        let signalbox = Signalbox::start(&config);
        let sent = [("kafka_correlationId", "order-0"), ("x-note", "mine"), ("retry_topic-attempts", "mine too")];
        let began = Instant::now();
        kafka.produce(&setup.requests, Some("key"), &sent, PAYLOAD);

        // The parked records can be read as Spring writes them.
        let parked = kafka.consume(&format!("{}-retry-{}-500", setup.requests, setup.group()), 1, LIMIT).pop().unwrap();
        assert_eq!((parked.key(), parked.payload()), (Some(&b"key"[..]), Some(PAYLOAD)));
        assert_eq!(text(&parked, "kafka_original-topic"), setup.requests);
        assert_eq!(header(&parked, "retry_topic-attempts"), 3_i32.to_be_bytes());
        assert_eq!(text(&parked, "attempts"), "2");
        let due = header(&parked, "retry_topic-backoff-timestamp");
        let due = due.iter().fold(0_i64, |number, byte| number << 8 | i64::from(*byte));
        let until = due - parked.timestamp().to_millis().unwrap();
        assert!((0..=500).contains(&until), "{until}");

        let letter =
            kafka.consume(&setup.dead_letters, 1, LIMIT).pop().unwrap_or_else(|| panic!("{}", signalbox.log()));
        assert!(began.elapsed() > Duration::from_millis(700));
        assert_eq!((letter.key(), letter.payload()), (Some(&b"key"[..]), Some(PAYLOAD)));
        assert_eq!(text(&letter, "kafka_dlt-original-topic"), setup.requests);
        assert_eq!(header(&letter, "kafka_dlt-original-offset"), 0_i64.to_be_bytes());
        assert_eq!(header(&letter, "kafka_dlt-original-partition"), letter.partition().to_be_bytes());
        assert_eq!(text(&letter, "kafka_dlt-exception-fqcn"), "TEMPORARILY_UNAVAILABLE");
        assert_eq!((text(&letter, "attempts"), model.calls()), ("3".to_owned(), 3));
        let own: Vec<_> = letter.headers().unwrap().iter().take(3).map(|header| header.key.to_owned()).collect();
        assert_eq!(own, sent.map(|(name, _)| name), "what the producer sent stays untouched");
        assert_eq!(text(&letter, "retry_topic-attempts"), "mine too");
        let fault = &setup.replies(1, LIMIT)[0];
        assert_eq!((fault.status(), fault.header("attempts"), fault.header("x-note")), (503, "3", "mine"), "{fault:?}");
        let metric = |series: &str| signalbox.metric(series).unwrap_or_default();
        assert_eq!(metric("signalbox_parked_total{reason=\"failed\"}"), 2.0);
        assert_eq!(metric("signalbox_dead_letters_total{reason=\"TEMPORARILY_UNAVAILABLE\"}"), 1.0);

        // The dead letter is sent back when the model is there again, and answered like any other.
        is_up.store(true, Ordering::SeqCst);
        let redrive = redrive(&config, &[]).wait_with_output().unwrap();
        assert!(redrive.status.success(), "{redrive:?}");
        let reply = setup.replies(2, LIMIT).into_iter().find(|reply| reply.status() == 200).expect("an answer");
        assert_eq!((&*reply.key, reply.header("attempts"), reply.header("x-note")), ("order-0", "1", "mine"));
        let redrive = self::redrive(&config, &[]).wait_with_output().unwrap();
        assert_eq!(redrive.status.code(), Some(1));
        let said = String::from_utf8(redrive.stdout).unwrap();
        assert!(said.starts_with("there are no dead letters"), "{said}");
    }
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn foreign_retry_record_runs_within_delay_of_its_topic() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let model = StubModel::start(|_, _| Reaction::Answer);
    let signalbox = Signalbox::start(&setup.single_config(model.url(), &keys("at_least_once", "[500ms, 60s]")));
    let topic = format!("{}-retry-{}-500", setup.requests, setup.group());
    let forged = [
        ("kafka_correlationId", "forged"),
        // The headers name the year 584,554,019, a topic of somebody else's, and more calls than a number holds.
        ("retry_topic-backoff-timestamp", "\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}"),
        ("kafka_original-topic", "elsewhere"),
        ("attempts", "99999999999999999999"),
    ];
    kafka.produce(&topic, None, &forged, PAYLOAD);
    let reply = &setup.replies(1, Duration::from_secs(10))[0];
    assert_eq!((reply.status(), &*reply.key, reply.header("attempts")), (200, "forged", "1"), "{}", signalbox.log());
    assert!(reply.header("source").starts_with(&format!("{topic}/")), "{reply:?}");
    let waiting = format!("{}-retry-{}-60000", setup.requests, setup.group());
    kafka.produce(&waiting, None, &[], PAYLOAD);
    let series = format!("signalbox_parked_requests{{topic=\"{waiting}\"}}");
    wait_until("word of what waits", LIMIT, || (signalbox.metric(&series) == Some(1.0)).then_some(()));
    assert_eq!(model.calls(), 1, "it is not due yet");
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn backlogged_model_does_not_delay_other_models() {
    const FLOOD: usize = 300;
    // Fewer probes run at once than half of what the slow model leaves free: more would be put aside as well.
    const PROBES: usize = 10;
    for delivery in DELIVERIES {
        let kafka = Kafka::shared();
        let setup = Setup::new(kafka);
        let slow = StubModel::start(|_, _| Reaction::Late(Duration::from_millis(500)));
        let fast = StubModel::start(|_, _| Reaction::Answer);
        let endpoints = format!(
            "
  - {{name: slow, timeout: 60s, routes: [{{alias: slow, model_uri: \"{}\", max_concurrency: 20}}]}}
  - {{name: fast, routes: [{{alias: fast, model_uri: \"{}\"}}]}}
",
            slow.url(),
            fast.url()
        );
        let keys = format!("{}\n  max_in_flight: 80", keys(delivery, "[100ms]"));
        let mut signalbox = Signalbox::start(&setup.config(&endpoints, &keys, "http://127.0.0.1:9"));
        for n in 0..FLOOD {
            let id = format!("slow-{n}");
            kafka.send(&setup.requests, None, &[("kafka_correlationId", &id), ("endpoint", "slow")], PAYLOAD);
        }
        kafka.flush();
        let began = Instant::now();
        wait_until("calls of the slow model", LIMIT, || (slow.calls() > 0).then_some(()));
        let reader = setup.reply_reader();
        let mut answered = HashMap::<String, usize>::new();
        let sent = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        for n in 0..PROBES {
            let id = format!("fast-{n}");
            kafka.send(&setup.requests, None, &[("kafka_correlationId", &id), ("endpoint", "fast")], PAYLOAD);
        }
        kafka.flush();
        wait_until("all others", LIMIT, || {
            reader.count_into(&mut answered);
            (answered.len() == FLOOD + PROBES).then_some(())
        });
        let took = began.elapsed();
        let behind = signalbox.metric("signalbox_parked_total{reason=\"behind\"}").unwrap_or_default();
        println!("{delivery}: all took {took:?}; {behind} were put aside");
        assert!(behind > 0.0);
        assert!(behind <= FLOOD as f64, "nobody is put aside twice for that");
        assert!(signalbox.terminate().success());
        reader.count_rest_into(&mut answered);
        assert!(answered.values().all(|times| *times == 1), "{answered:?}");
        let records = kafka.consume(&setup.replies, FLOOD + PROBES, LIMIT);
        let replies: Vec<_> = records.iter().map(Reply::of).collect();
        assert!(replies.iter().all(|reply| reply.status() == 200 && reply.header("attempts") == "1"));
        let at = |record: &OwnedMessage| record.timestamp().to_millis().unwrap();
        let is_fast = |record: &&OwnedMessage| record.key().unwrap().starts_with(b"fast-");
        let last = records.iter().filter(is_fast).map(at).max().unwrap();
        let before = records.iter().filter(|record| !is_fast(record) && at(record) < last).count();
        println!(
            "{delivery}: the last fast one was answered {} ms after it was sent, and {before} slow ones before",
            last - sent
        );
        assert!(before < FLOOD / 3, "{before}");
        assert_eq!(slow.calls(), FLOOD);
    }
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn poison_pill_is_isolated_when_it_ends_every_process() {
    const INNOCENT: usize = 40;
    for delivery in DELIVERIES {
        let kafka = Kafka::shared();
        let setup = Setup::new(kafka);
        let deadly = Arc::new(AtomicBool::new(false));
        let model = {
            let deadly = Arc::clone(&deadly);
            StubModel::start(move |_, headers| match headers.contains_key("x-poison") {
                true => {
                    deadly.store(true, Ordering::SeqCst);
                    Reaction::Late(Duration::from_secs(60))
                }
                false => Reaction::Late(Duration::from_millis(20)),
            })
        };
        let mut signalbox = Signalbox::start(&setup.single_config(model.url(), &keys(delivery, "[100ms]")));
        for n in 0..INNOCENT {
            kafka.send(&setup.requests, None, &[("kafka_correlationId", &format!("order-{n}"))], PAYLOAD);
            if n == INNOCENT / 2 {
                let poison = [("kafka_correlationId", "poison"), ("x-poison", "yes")];
                kafka.send(&setup.requests, Some("poison"), &poison, PAYLOAD);
            }
        }
        kafka.flush();
        let reader = setup.reply_reader();
        let mut answered = HashMap::<String, usize>::new();
        let mut lives = 1;
        wait_until("the end of it", Duration::from_secs(120), || {
            if deadly.swap(false, Ordering::SeqCst) {
                signalbox.kill();
                signalbox.start_again();
                lives += 1;
            }
            reader.count_into(&mut answered);
            (answered.len() == INNOCENT + 1).then_some(())
        });
        println!("{delivery}: it took {lives} lives");
        assert!(lives <= 6, "{lives}");
        let letters = kafka.consume(&setup.dead_letters, 2, Duration::from_secs(3));
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].key(), Some(&b"poison"[..]));
        assert_eq!(text(&letters[0], "kafka_dlt-exception-fqcn"), "INTERNAL_ERROR");
        let replies = setup.replies(answered.values().sum(), LIMIT);
        for reply in &replies {
            assert_eq!(reply.status(), if reply.key == "poison" { 500 } else { 200 }, "{reply:?}");
        }
        // Signalbox lives, and goes on.
        kafka.produce(&setup.requests, None, &[("kafka_correlationId", "after")], PAYLOAD);
        wait_until("one more", LIMIT, || {
            reader.count_into(&mut answered);
            answered.contains_key("after").then_some(())
        });
        assert!(!deadly.load(Ordering::SeqCst));
        assert!(signalbox.terminate().success());
        reader.count_rest_into(&mut answered);
        assert!(delivery == "at_least_once" || answered.values().all(|times| *times == 1), "{answered:?}");
    }
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn redrive_sends_matching_dead_letters_once_when_killed() {
    const LETTERS: usize = 8_000;
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let config = setup.single_config("builtin:noop", "");
    for n in 0..LETTERS {
        let code = if n % 4 == 0 { "INTERNAL_ERROR" } else { "MODEL_ERROR" };
        let headers = [
            ("kafka_correlationId", &*format!("order-{n}")),
            ("deadline", "1"),
            ("kafka_dlt-original-topic", &setup.requests),
            ("kafka_dlt-original-partition", "\0\0\0\u{2}"),
            ("kafka_dlt-original-offset", "\0\0\0\0\0\0\0\u{7}"),
            ("kafka_dlt-exception-fqcn", code),
            ("attempts", "3"),
        ];
        kafka.send(&setup.dead_letters, Some(&n.to_string()), &headers, PAYLOAD);
    }
    kafka.send(&setup.dead_letters, None, &[("kafka_dlt-original-topic", "elsewhere")], PAYLOAD);
    kafka.flush();
    let run = |arguments: &[&str]| {
        let output = redrive(&config, arguments).wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        println!("{arguments:?}: {} {said}{}", output.status, String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap(), said)
    };
    let (code, said) = run(&["--code", "MODEL_ERROR", "--dry-run"]);
    assert!(code == 0 && said.starts_with("6000 dead letters would be sent back"), "{said}");
    assert_eq!(run(&["--endpoint", "another"]).0, 1);
    assert_eq!(run(&["--until", "1h"]).0, 1);
    let (code, said) = run(&["--code", "MODEL_ERROR", "--limit", "1"]);
    assert!(code == 0 && said.starts_with("1 dead letter sent back"), "{said}");

    let reader = kafka.reader(&setup.requests);
    let mut sent = HashMap::<String, usize>::new();
    let take = |sent: &mut HashMap<String, usize>, wait: Duration| {
        while let Some(record) = reader.poll(wait) {
            let Ok(record) = record else { continue };
            let names: Vec<_> = record.headers().unwrap().iter().map(|header| header.key).collect();
            assert_eq!((names, record.partition()), (vec!["kafka_correlationId"], 2));
            *sent.entry(String::from_utf8(record.key().unwrap().to_vec()).unwrap()).or_default() += 1;
        }
    };
    let mut kills = 0;
    loop {
        let mut redrive = redrive(&config, &["--code", "MODEL_ERROR"]);
        let before = sent.len();
        let ended = wait_until("a batch, or the end", LIMIT, || {
            let ended = redrive.try_wait().unwrap();
            take(&mut sent, Duration::from_millis(1));
            (ended.is_some() || sent.len() > before).then_some(ended)
        });
        match ended {
            Some(ended) => {
                assert!(ended.success(), "{:?}", redrive.wait_with_output());
                break;
            }
            None if kills < 3 => {
                redrive.kill().unwrap();
                redrive.wait().unwrap();
                kills += 1;
            }
            None => {
                assert!(redrive.wait().unwrap().success());
                break;
            }
        }
    }
    assert!(kills > 0);
    take(&mut sent, Duration::from_secs(3));
    assert_eq!(sent.len(), LETTERS * 3 / 4, "after {kills} kills");
    assert!(sent.values().all(|times| *times == 1), "after {kills} kills");
    assert_eq!(run(&["--code", "MODEL_ERROR"]).0, 1);
    // Letters that the filter has left are there for another run.
    let (code, said) = run(&["--since", "1h"]);
    assert!(code == 0 && said.starts_with("2000 dead letters sent back"), "{said}");
    assert!(said.contains("1 dead letter left, which did not come from that topic"), "{said}");
    take(&mut sent, Duration::from_secs(3));
    assert!(sent.len() == LETTERS && sent.values().all(|times| *times == 1));
    let missing = config.replace(&setup.dead_letters, "no-such-topic");
    let output = redrive(&missing, &[]).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(69)
            && said.contains("topic 'no-such-topic' (kafka.dead_letter_topic) does not exist"),
        "{said}"
    );
    let embedded = config.replace(&kafka.bootstrap(), "embedded");
    let output = redrive(&embedded, &[]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));
}
