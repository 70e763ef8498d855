//! `exactly_once` beside `at_least_once`: throughput from a backlog, and latency at a steady rate for a reader of
//! committed replies, over the transaction interval.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::message::{Headers, Message};

use crate::backlog::{measure, payload, signalbox};
use crate::plot::{Curve, draw};
use crate::support::{Kafka, Setup};
use crate::table::{Reach, Row};
use crate::throughput::FOUR_ROUTES;

const REQUESTS: usize = 150_000;
const INTERVALS_MS: [u64; 6] = [5, 10, 20, 50, 100, 200];
/// The one that holds when the config names none.
const DEFAULT_MS: u64 = 50;
/// For the latency: so many requests a second, for so long.
const RATE: u32 = 500;
const STEADY: u32 = 8;

struct Measured {
    name: String,
    per_second: f64,
    cpu_microseconds: f64,
    p50: f64,
    p99: f64,
}

pub(crate) fn run() -> Vec<Row> {
    let kafka = Kafka::shared();
    // Both ends of the run see the same side, so that a machine that tires does not favour one.
    let base = row(kafka, "at_least_once", "delivery: at_least_once");
    let swept: Vec<Measured> = INTERVALS_MS
        .iter()
        .map(|interval| {
            let keys = format!("delivery: exactly_once\n  transaction_interval: {interval}ms");
            row(kafka, &format!("exactly_once, {interval} ms"), &keys)
        })
        .collect();
    let again = row(kafka, "at_least_once, again", "delivery: at_least_once");
    let at_least_once = f64::midpoint(base.per_second, again.per_second);

    println!(
        "\n{:<24} {:>12} {:>8} {:>16} {:>10} {:>10}",
        "1 KiB, 4 routes, no-op", "requests/s", "rate", "CPU us/request", "p50 ms", "p99 ms"
    );
    for row in [&base].into_iter().chain(&swept).chain([&again]) {
        println!(
            "{:<24} {:>12.0} {:>7.2}x {:>16.1} {:>10.1} {:>10.1}",
            row.name,
            row.per_second,
            row.per_second / at_least_once,
            row.cpu_microseconds,
            row.p50,
            row.p99
        );
    }
    let points = |value: fn(&Measured) -> f64| -> Vec<(f64, f64)> {
        INTERVALS_MS.iter().zip(&swept).map(|(interval, row)| (*interval as f64, value(row))).collect()
    };
    let level = |value: f64| vec![(5.0, value), (200.0, value)];
    draw(
        "delivery-throughput",
        "exactly_once: requests per second",
        ("transaction_interval, ms", "requests/s"),
        &[
            Curve { name: "exactly_once", points: points(|row| row.per_second) },
            Curve { name: "at_least_once", points: level(at_least_once) },
        ],
    );
    draw(
        "delivery-latency",
        "exactly_once: latency for a reader of committed replies",
        ("transaction_interval, ms", "ms"),
        &[
            Curve { name: "exactly_once, p50", points: points(|row| row.p50) },
            Curve { name: "exactly_once, p99", points: points(|row| row.p99) },
            Curve { name: "at_least_once, p50", points: level(f64::midpoint(base.p50, again.p50)) },
            Curve { name: "at_least_once, p99", points: level(f64::midpoint(base.p99, again.p99)) },
        ],
    );
    let default = &swept[INTERVALS_MS.iter().position(|interval| *interval == DEFAULT_MS).unwrap()];
    vec![Row {
        what: "requests routed with exactly_once",
        against: "at_least_once",
        ours: default.per_second,
        theirs: at_least_once,
        unit: "requests/s",
        reach: Reach::AtLeast(0.85),
    }]
}

fn row(kafka: &Kafka, name: &str, keys: &str) -> Measured {
    let keys = format!("  max_in_flight: 4096\n  {keys}");
    let measured = measure(kafka, REQUESTS, |setup| signalbox(&setup.config(FOUR_ROUTES, &keys, "http://127.0.0.1:9")));
    let (p50, p99) = latency(kafka, &keys);
    Measured {
        name: name.to_owned(),
        per_second: measured.per_second,
        cpu_microseconds: measured.cpu_microseconds,
        p50,
        p99,
    }
}

/// From a request's sending to its committed reply, in milliseconds: p50 and p99.
fn latency(kafka: &Kafka, keys: &str) -> (f64, f64) {
    let setup = Setup::new(kafka);
    let _process = signalbox(&setup.config(FOUR_ROUTES, keys, "http://127.0.0.1:9"));
    let reader = kafka.reader(&setup.replies);
    let payload = payload();
    let send = |id: &str| kafka.send(&setup.requests, Some(id), &[("kafka_correlationId", id)], &payload);
    // The first reply shows that it runs.
    send("first");
    while reader.poll(Duration::from_millis(100)).is_none() {}

    let count = RATE * STEADY;
    let mut sent = HashMap::with_capacity(count as usize);
    let mut taken = Vec::with_capacity(count as usize);
    let begun = Instant::now();
    thread::scope(|scope| {
        let received = scope.spawn(|| {
            let mut received = HashMap::with_capacity(count as usize);
            while received.len() < count as usize {
                if let Some(Ok(record)) = reader.poll(Duration::from_secs(1)) {
                    let id = record.headers().and_then(|headers| {
                        headers.iter().find(|header| header.key == "kafka_correlationId")?.value.map(<[u8]>::to_vec)
                    });
                    received.insert(id.unwrap(), Instant::now());
                }
            }
            received
        });
        for n in 0..count {
            let due = begun + Duration::from_secs(1) / RATE * n;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let id = n.to_string();
            sent.insert(id.clone().into_bytes(), Instant::now());
            send(&id);
        }
        kafka.flush();
        for (id, at) in received.join().unwrap() {
            taken.extend(sent.get(&id).map(|sent| at.duration_since(*sent).as_secs_f64() * 1e3));
        }
    });
    taken.sort_by(f64::total_cmp);
    (taken[taken.len() / 2], taken[taken.len() * 99 / 100])
}
