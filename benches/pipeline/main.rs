//! Compares Signalbox with programs that do the same without it, on a real Apache Kafka and a real MLflow, in one
//! table.
//!
//! ```sh
//! benches/run                                  # everything, from a fresh checkout on: installs, builds, measures
//! cargo bench --bench pipeline                 # everything that is measured here
//! cargo bench --bench pipeline -- cold batch   # some parts, by name
//! ```
//!
//! The parts are listed in [`PARTS`], and the file of each says what is compared. Compared sides run in turn in the
//! same run, on the same machine: absolute times mean little on a machine that one shares, ratios more. Each part
//! prints what it has seen; the rows with something to reach are gathered into one table in the end, which a whole run
//! also writes to `benches/results/table.md`. Curves are drawn into `benches/results/`.
//!
//! The benchmark needs the services that `tests/run` installs.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "the bans are for what runs in production")]
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

#[path = "../common/routing.rs"]
mod routing;

// The parts that are measured.
mod batch;
mod cold;
mod decision;
mod delivery;
mod doors;
mod evaluation;
mod http;
mod latency;
mod many;
mod poisoned;
mod residency;
mod sweeps;
mod throughput;
mod waiting;
mod worker;

// The tools of the measurements.
mod backlog; // requests that wait in a topic, and the cost of answering them
mod bare; // the floor: consume and produce, and nothing else
mod callers; // the callers over HTTP
mod host_memory; // the memory of processes
mod model; // an HTTP model that costs next to nothing
mod models; // copies of a real model in a real registry
mod phases; // the time of loads by phase
mod processor; // processor time
mod served; // mlflow models serve
mod steady; // requests at a steady rate, and their latency

// The table and the plots of the results.
mod machine;
mod plot;
mod statistics;
mod table;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use machine::{Machine, Ticks};
use table::{Row, Table};

/// Measures one part, and returns its rows of the table.
type Part = fn() -> Vec<Row>;

const PARTS: [(&str, &str, Part); 17] = [
    ("throughput", "requests per second and CPU per request beside a bare consume→produce loop", throughput::run),
    ("http", "requests per second through a model over HTTP, beside a load generator straight at it", http::run),
    ("batch", "rows per second through real models beside a bare loop that calls predict", batch::run),
    ("poisoned", "the same when one in a hundred is refused, beside none", poisoned::run),
    ("cold", "cold starts, warm calls and memory beside mlflow models serve", cold::run),
    ("latency", "POST /invocations beside two bare hops over the broker", latency::run),
    ("decision", "one routing decision at 1 KB and at 1 MB", decision::run),
    ("evaluation", "conditions that Python evaluates, beside a Python process that does nothing else", evaluation::run),
    ("delivery", "exactly_once beside at_least_once, over the transaction interval", delivery::run),
    ("waiting", "resident memory by how many requests wait, up to a million", waiting::run),
    ("residency", "twenty models in room for ten, beside plain LRU and no limit", residency::run),
    ("worker", "a worker in Python before the same models", worker::run),
    ("payloads", "payloads of 100 B to 1 MB", sweeps::payloads),
    ("routes", "1 to 1,000 routes", sweeps::routes),
    ("partitions", "1 to 64 partitions", sweeps::partitions),
    ("callers", "1 to 256 callers over HTTP", doors::run),
    ("models", "1 to 100 loaded models", many::run),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bare", bootstrap, requests, replies] => return bare::run(bootstrap, requests, replies),
        ["model", microseconds] => return model::serve(microseconds),
        _ => {}
    }
    if let Some(unknown) = arguments.iter().find(|argument| PARTS.iter().all(|(name, ..)| name != argument)) {
        let names = PARTS.map(|(name, what, _)| format!("  {name:<12} {what}\n")).concat();
        panic!("there is no part {unknown}; there are\n{names}");
    }
    let wanted = PARTS.iter().filter(|(name, ..)| arguments.is_empty() || arguments.iter().any(|it| it == name));

    let machine = Machine::here();
    println!("{machine}");
    let (begun, ticks) = (Instant::now(), Ticks::now());
    let mut table = Table::new(machine);
    for (name, what, part) in wanted {
        println!("\n==> [{:>4}s] {name}: {what}", begun.elapsed().as_secs());
        let (part_begun, part_ticks) = (Instant::now(), Ticks::now());
        match catch_unwind(AssertUnwindSafe(part)) {
            Ok(rows) => table.add(rows),
            Err(_) => table.failed(name),
        }
        println!("\n{name} took {} s, {}", part_begun.elapsed().as_secs(), part_ticks.since());
    }
    table.end(begun.elapsed(), &ticks);
    println!("\n{table}");
    if arguments.is_empty() {
        table.write();
    }
    if table.has_failed() {
        std::process::exit(1);
    }
}
