//! End to end on a real Apache Kafka: what Signalbox costs beside a bare consume→produce loop.
//!
//! `cargo bench --bench pipeline` prints, for each contender, requests per second and CPU per request, all on one broker
//! in one run. The requests wait in the topic before a contender starts; it is measured from its first tenth of the
//! replies to its last, by the ends of the replies topic, so that neither its start nor a reader counts.
//!
//! It needs what `tests/run` installs.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops where it fails"
)]

#[path = "../tests/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
mod support;

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};

use support::{Kafka, Process, Setup, fresh_directory, http_model, wait_until};

const PAYLOAD: usize = 1024;
const REQUESTS: usize = 200_000;
/// A model behind Python's own HTTP server is slower, so it gets fewer.
const HTTP_REQUESTS: usize = 10_000;
/// Clock ticks a second in /proc, which Linux fixes for user space.
const TICKS: f64 = 100.0;

struct Measured {
    per_second: f64,
    cpu_microseconds: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, bare, bootstrap, requests, replies] = &arguments[..]
        && bare == "bare"
    {
        return bare_loop(bootstrap, requests, replies);
    }
    let kafka = Kafka::start();
    let own = std::env::current_exe().unwrap();
    let bare = measure(&kafka, REQUESTS, |setup| {
        let command = [own.to_str().unwrap(), "bare", &kafka.bootstrap(), &setup.requests, &setup.replies];
        Process::start("bare", &fresh_directory("bare"), &[], command)
    });
    let noop =
        measure(&kafka, REQUESTS, |setup| signalbox(&setup.config(FOUR_ROUTES, IN_FLIGHT, "http://127.0.0.1:9")));
    let (_model, url) = http_model(0);
    let http = measure(&kafka, HTTP_REQUESTS, |setup| signalbox(&setup.single_config(&url, IN_FLIGHT)));

    println!(
        "{:<42} {:>12} {:>16} {:>8} {:>8}",
        "1 KiB requests on one broker", "requests/s", "CPU us/request", "rate", "CPU"
    );
    for (name, measured) in [
        ("bare consume -> produce", &bare),
        ("signalbox, 4 routes, in-process no-op model", &noop),
        ("signalbox, a model over HTTP (Python)", &http),
    ] {
        println!(
            "{name:<42} {:>12.0} {:>16.1} {:>7.2}x {:>7.2}x",
            measured.per_second,
            measured.cpu_microseconds,
            measured.per_second / bare.per_second,
            measured.cpu_microseconds / bare.cpu_microseconds,
        );
    }
}

const IN_FLIGHT: &str = "  max_in_flight: 4096";

const FOUR_ROUTES: &str = "
  - name: only
    routes:
      - {model_uri: \"builtin:noop\", alias: a, model_request_condition: \"request.json()['inputs'][0] == 'a'\"}
      - {model_uri: \"builtin:noop\", alias: b, model_request_condition: \"request.json()['inputs'][0] == 'b'\"}
      - {model_uri: \"builtin:noop\", alias: c, model_request_condition: \"request.headers.get('x-tier') == 'gold'\"}
      - {model_uri: \"builtin:noop\", alias: d}
";

fn signalbox(config: &str) -> Process {
    let directory = fresh_directory("signalbox");
    std::fs::write(directory.join("signalbox.yaml"), config).unwrap();
    Process::start(
        "signalbox",
        &directory,
        &[],
        [env!("CARGO_BIN_EXE_signalbox"), "start", "--config", "signalbox.yaml"],
    )
}

fn measure(kafka: &Kafka, count: usize, start: impl FnOnce(&Setup<'_>) -> Process) -> Measured {
    let setup = Setup::new(kafka);
    let head = br#"{"inputs": ["d", ""#;
    let payload = [head, "x".repeat(PAYLOAD - head.len() - 3).as_bytes(), b"\"]}"].concat();
    for n in 0..count {
        kafka.send(&setup.requests, Some(&n.to_string()), &[], &payload);
        if n % 10_000 == 0 {
            kafka.flush();
        }
    }
    kafka.flush();
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let replies = || -> usize {
        let end = |partition| consumer.fetch_watermarks(&setup.replies, partition, Duration::from_secs(10)).unwrap().1;
        usize::try_from((0..4).map(end).sum::<i64>()).unwrap()
    };
    let process = start(&setup);
    let at = |share: usize| {
        let reached = || Some(replies()).filter(|replies| *replies >= share);
        let replies = wait_until("the replies", Duration::from_secs(600), reached);
        (Instant::now(), replies, cpu_seconds(process.pid()))
    };
    let (begun, first, cpu_begun) = at(count / 10);
    let (ended, last, cpu_ended) = at(count);
    let done = f64::from(u32::try_from(last - first).unwrap());
    Measured {
        per_second: done / ended.duration_since(begun).as_secs_f64(),
        cpu_microseconds: (cpu_ended - cpu_begun) * 1e6 / done,
    }
}

/// User and system time of a process so far.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
}

/// The floor: what librdkafka costs with the settings that Signalbox uses, and nothing else. It never ends by itself.
fn bare_loop(bootstrap: &str, requests: &str, replies: &str) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "bare")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "true")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.wait.max.ms", "100")
        .create()
        .unwrap();
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("sticky.partitioning.linger.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .unwrap();
    consumer.subscribe(&[requests]).unwrap();
    loop {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) {
            let record =
                BaseRecord::to(replies).key(message.key().unwrap_or_default()).payload(br#"{"predictions": []}"#);
            if let Err((error, _)) = producer.send(record) {
                panic!("{error}");
            }
        }
    }
}
