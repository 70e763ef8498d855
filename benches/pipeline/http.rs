//! Measures requests per second through an HTTP model, beside a load generator straight at that model.
//!
//! Both have the same payloads, as many connections and the same HTTP client. The generator has its requests at hand;
//! for Signalbox they wait in Kafka, and count when their replies are there. The model is a process of its own on one
//! thread. One model costs next to nothing, so that all work between counts in full; another computes for a
//! millisecond, as small models do.

use std::time::Duration;

use crate::backlog::{Backlog, Measured, kibibyte, signalbox};
use crate::callers::call;
use crate::model;
use crate::processor::seconds_of;
use crate::statistics::median;
use crate::support::Kafka;
use crate::table::{Reach, Row};

const CONNECTIONS: usize = 64;
/// Number of turns of the two sides, so that a noisy minute hits both.
const TURNS: usize = 3;

pub(crate) fn run() -> Vec<Row> {
    println!("\n{CONNECTIONS} connections, 1 KiB {:>30} {:>16} {:>8}", "requests/s", "CPU us/request", "rate");
    let free = compare(Duration::ZERO, 60_000);
    let small = compare(Duration::from_millis(1), 5_000);
    let row = |what, [direct, through]: [f64; 2], reach| Row {
        what,
        against: "the load generator straight at that model",
        ours: through,
        theirs: direct,
        unit: "requests/s",
        reach,
    };
    vec![
        row("requests through an HTTP model that costs nothing", free, Reach::AtLeast(0.85)),
        row("the same, a model that computes for 1 ms", small, Reach::AtLeast(0.85)),
    ]
}

/// Measures requests per second of the model directly, and through Signalbox.
fn compare(busy: Duration, requests: usize) -> [f64; 2] {
    let (_model, url) = model::start(busy);
    let mut turns: [Vec<Measured>; 2] = Default::default();
    for _ in 0..TURNS {
        turns[0].push(directly(&url, requests));
        turns[1].push(Backlog::of(requests).measure(Kafka::shared(), |setup| {
            let keys = format!("  delivery: at_least_once\n  max_in_flight: {}", 4 * CONNECTIONS);
            let route = format!("{{model_uri: \"{url}\", alias: only, max_concurrency: {CONNECTIONS}}}");
            let endpoint = format!("\n  - {{name: only, routes: [{route}]}}\n");
            signalbox(&setup.config(&endpoint, &keys, "http://127.0.0.1:9"))
        }));
    }
    let [direct, through] = turns.map(|turns| {
        (median(turns.iter().map(|it| it.per_second)), median(turns.iter().map(|it| it.cpu_microseconds)))
    });
    for (name, (per_second, cpu)) in [("straight at the model", direct), ("through Signalbox", through)] {
        let name = format!("{name}, which takes {busy:?}");
        println!("{name:<46} {per_second:>10.0} {cpu:>16.1} {:>7.2}x", per_second / direct.0);
    }
    [direct.0, through.0]
}

fn directly(url: &str, requests: usize) -> Measured {
    let before = seconds_of(std::process::id());
    let served = call(&format!("{url}/invocations"), CONNECTIONS, requests, kibibyte(0));
    let cpu_microseconds = (seconds_of(std::process::id()) - before) * 1e6 / requests as f64;
    Measured { per_second: served.per_second, cpu_microseconds, cpu_of_all_microseconds: cpu_microseconds }
}
