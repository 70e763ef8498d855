//! End to end on a real Apache Kafka: what Signalbox costs beside what it cannot do without.
//!
//! `cargo bench --bench pipeline` runs every part, one after another, and prints a table for each; names of parts
//! (`cargo bench --bench pipeline -- delivery`) run those alone. Curves are drawn into `benches/results/`.
//!
//! | part | what |
//! | --- | --- |
//! | `throughput` | requests per second and CPU per request beside a bare consume→produce loop |
//! | `delivery` | `exactly_once` beside `at_least_once`, over the transaction interval |
//! | `memory` | resident memory with a million requests waiting beside a thousand |
//!
//! It needs what `tests/run` installs.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops where it fails"
)]

#[path = "../../tests/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
mod support;

mod backlog; // requests that wait in a topic, and what it costs to answer them
mod bare; // the floor
mod delivery;
mod memory;
mod plot;
mod throughput;

use support::Kafka;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, bare, bootstrap, requests, replies] = &arguments[..]
        && bare == "bare"
    {
        return bare::run(bootstrap, requests, replies);
    }
    let wanted: Vec<&String> = arguments[1..].iter().filter(|argument| !argument.starts_with("--")).collect();
    let kafka = Kafka::start();
    for (name, part) in
        [("throughput", throughput::run as fn(&Kafka)), ("delivery", delivery::run), ("memory", memory::run)]
    {
        if wanted.is_empty() || wanted.iter().any(|wanted| *wanted == name) {
            part(&kafka);
        }
    }
}
