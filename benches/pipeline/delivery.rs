//! Compares `exactly_once` with `at_least_once`: throughput from a backlog, and latency at a steady rate for a reader
//! of committed replies, over the transaction interval.

use crate::backlog::{Backlog, Measured, forget, kibibyte, signalbox};
use crate::plot::{Curve, Plot};
use crate::statistics::median;
use crate::steady::{Latency, steadily};
use crate::support::{Kafka, Setup};
use crate::table::{Reach, Row};
use crate::throughput::FOUR_ROUTES;

const REQUESTS: usize = 150_000;
/// Number of turns of the ways to deliver, so that a noisy minute hits both.
const TURNS: usize = 3;
/// Transaction interval that holds when the config names none, in milliseconds.
const DEFAULT_MS: u64 = 20;
const OTHERS_MS: [u64; 4] = [5, 10, 50, 200];
/// Requests a second in the measurement of latency, which lasts [`SECONDS`].
const RATE: u32 = 500;
const SECONDS: u32 = 6;

/// Names one way to deliver, and holds its measurements.
struct DeliveryCase {
    name: String,
    interval: u64,
    throughput: Vec<Measured>,
    latency: Latency,
}

pub(crate) fn run() -> Vec<Row> {
    let mut at_least_once = DeliveryCase::of(None);
    let mut ways = vec![DeliveryCase::of(Some(DEFAULT_MS))];
    for _ in 0..TURNS {
        at_least_once.measure();
        ways[0].measure();
    }
    for interval in OTHERS_MS {
        let mut way = DeliveryCase::of(Some(interval));
        way.measure();
        ways.push(way);
    }
    ways.sort_by_key(|way| way.interval);

    println!(
        "\n{:<24} {:>12} {:>8} {:>16} {:>10} {:>10}",
        "1 KiB, 4 routes, no-op", "requests/s", "rate", "CPU us/request", "p50 ms", "p99 ms"
    );
    for way in [&at_least_once].into_iter().chain(&ways) {
        println!(
            "{:<24} {:>12.0} {:>7.2}x {:>16.1} {:>10.1} {:>10.1}",
            way.name,
            way.per_second(),
            way.per_second() / at_least_once.per_second(),
            median(way.throughput.iter().map(|it| it.cpu_microseconds)),
            way.latency.p50,
            way.latency.p99
        );
    }
    draw(&at_least_once, &ways);
    let default = ways.iter().find(|way| way.interval == DEFAULT_MS).unwrap();
    vec![Row {
        what: "requests routed with exactly_once, no-op model",
        against: "at_least_once",
        ours: default.per_second(),
        theirs: at_least_once.per_second(),
        unit: "requests/s",
        reach: Reach::AtLeast(0.85),
    }]
}

impl DeliveryCase {
    /// Measures the latency of `exactly_once` with that interval, or of `at_least_once`.
    fn of(interval: Option<u64>) -> Self {
        let name = interval.map_or("at_least_once".to_owned(), |interval| format!("exactly_once, {interval} ms"));
        let interval = interval.unwrap_or_default();
        let kafka = Kafka::shared();
        let setup = Setup::new(kafka);
        let process = signalbox(&config(&setup, interval));
        let latency = steadily(kafka, &setup, RATE, SECONDS, kibibyte);
        drop(process);
        forget(kafka, &setup);
        Self { name, interval, throughput: Vec::new(), latency }
    }

    fn measure(&mut self) {
        let start = |setup: &Setup<'_>| signalbox(&config(setup, self.interval));
        self.throughput.push(Backlog::of(REQUESTS).measure(Kafka::shared(), start));
    }

    fn per_second(&self) -> f64 {
        median(self.throughput.iter().map(|it| it.per_second))
    }
}

fn config(setup: &Setup<'_>, interval: u64) -> String {
    let keys = match interval {
        0 => "  delivery: at_least_once".to_owned(),
        _ => format!("  delivery: exactly_once\n  transaction_interval: {interval}ms"),
    };
    let keys = format!("{keys}\n  max_in_flight: 4096");
    setup.config(FOUR_ROUTES, &keys, "http://127.0.0.1:9")
}

fn draw(at_least_once: &DeliveryCase, ways: &[DeliveryCase]) {
    let curve = |name, value: fn(&DeliveryCase) -> f64| {
        Curve::new(name, ways.iter().map(|way| (way.interval as f64, value(way))).collect())
    };
    let ends = [ways[0].interval as f64, ways[ways.len() - 1].interval as f64];
    let level = |name, value: f64| Curve::new(name, ends.map(|interval| (interval, value)).to_vec());
    Plot {
        file: "delivery-throughput",
        title: "Requests per second by the transaction interval",
        across: "transaction_interval, ms",
        up: "requests/s",
        curves: vec![
            curve("exactly_once", DeliveryCase::per_second),
            level("at_least_once", at_least_once.per_second()),
        ],
    }
    .draw();
    Plot {
        file: "delivery-latency",
        title: "Latency for a reader of committed replies, 500 requests/s",
        across: "transaction_interval, ms",
        up: "ms",
        curves: vec![
            curve("exactly_once, p50", |way| way.latency.p50),
            curve("exactly_once, p99", |way| way.latency.p99),
            level("at_least_once, p50", at_least_once.latency.p50),
            level("at_least_once, p99", at_least_once.latency.p99),
        ],
    }
    .draw();
}
