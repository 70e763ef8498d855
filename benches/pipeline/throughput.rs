//! Measures requests per second and CPU per request beside a bare consume→produce loop.

use crate::backlog::{Backlog, Measured, signalbox};
use crate::processor::ourselves;
use crate::statistics::median;
use crate::support::{Kafka, Process, Setup};
use crate::table::{Reach, Row};

const REQUESTS: usize = 200_000;
/// Number of turns of the two sides, so that a noisy minute hits both.
const TURNS: usize = 3;
/// Delivery of the bare loop, which Signalbox has here too.
pub(crate) const AT_LEAST_ONCE: &str = "  delivery: at_least_once\n  max_in_flight: 4096";

pub(crate) const FOUR_ROUTES: &str = "
  - name: only
    routes:
      - {model_uri: \"builtin:noop\", alias: a, model_request_condition: \"request.json()['inputs'][0] == 'a'\"}
      - {model_uri: \"builtin:noop\", alias: b, model_request_condition: \"request.json()['inputs'][0] == 'b'\"}
      - {model_uri: \"builtin:noop\", alias: c, model_request_condition: \"request.headers.get('x-tier') == 'gold'\"}
      - {model_uri: \"builtin:noop\", alias: d}
";

pub(crate) fn run() -> Vec<Row> {
    let kafka = Kafka::shared();
    let backlog = Backlog::of(REQUESTS);
    let mut turns: [Vec<Measured>; 2] = Default::default();
    for _ in 0..TURNS {
        turns[0].push(backlog.measure(kafka, |setup| bare(kafka, setup)));
        turns[1].push(backlog.measure(kafka, noop));
    }
    println!("\n{:<42} {:>12} {:>16} {:>8} {:>8}", "1 KiB requests", "requests/s", "CPU us/request", "rate", "CPU");
    let beside = |one: &Measured, bare: &Measured| {
        format!(
            "{:>12.0} {:>16.1} {:>7.2}x {:>7.2}x",
            one.per_second,
            one.cpu_microseconds,
            one.per_second / bare.per_second,
            one.cpu_microseconds / bare.cpu_microseconds
        )
    };
    for (bare, noop) in turns[0].iter().zip(&turns[1]) {
        println!("{:<42} {}", "bare consume -> produce", beside(bare, bare));
        println!("{:<42} {}", "signalbox, 4 routes, in-process no-op model", beside(noop, bare));
    }
    let [bare, noop] = turns.map(|turns| {
        (median(turns.iter().map(|it| it.per_second)), median(turns.iter().map(|it| it.cpu_microseconds)))
    });
    vec![
        Row {
            what: "1 KB requests, 4 routes with conditions, no-op model",
            against: "a bare librdkafka consume→produce loop",
            ours: noop.0,
            theirs: bare.0,
            unit: "requests/s",
            reach: Reach::AtLeast(0.7),
        },
        Row {
            what: "CPU of the same",
            against: "CPU of the same",
            ours: noop.1,
            theirs: bare.1,
            unit: "µs/request",
            reach: Reach::AtMost(2.0),
        },
    ]
}

/// Starts the bare loop over these topics.
pub(crate) fn bare(kafka: &Kafka, setup: &Setup<'_>) -> Process {
    ourselves("bare", &[&kafka.bootstrap(), &setup.requests, &setup.replies])
}

/// Starts Signalbox over these topics, with a model in its own process that answers at once.
pub(crate) fn noop(setup: &Setup<'_>) -> Process {
    signalbox(&setup.config(FOUR_ROUTES, AT_LEAST_ONCE, "http://127.0.0.1:9"))
}
