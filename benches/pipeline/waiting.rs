//! Resident memory with a million requests waiting and a slow model, beside a thousand.

use std::time::Duration;

use crate::backlog::{fill, signalbox};
use crate::support::{Kafka, Process, Setup, http_model, wait_until};
use crate::table::{Reach, Row};

const FEW: usize = 1_000;
const MANY: usize = 1_000_000;
/// The model takes this long, so that hardly any of them is answered meanwhile.
const SLOW_MS: u32 = 2_000;

pub(crate) fn run() -> Vec<Row> {
    let kafka = Kafka::shared();
    println!("\n{:<34} {:>14} {:>14}", "1 KiB, a model that takes 2 s", "at_least_once", "exactly_once");
    let deliveries = ["at_least_once", "exactly_once"];
    let few = deliveries.map(|delivery| resident(kafka, FEW, delivery));
    let many = deliveries.map(|delivery| resident(kafka, MANY, delivery));
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    for (name, [first, second]) in [("a thousand waiting, MiB", few), ("a million waiting, MiB", many)] {
        println!("{name:<34} {:>14.1} {:>14.1}", mib(first), mib(second));
    }
    let ratio = |index: usize| many[index] as f64 / few[index] as f64;
    println!("{:<34} {:>13.2}x {:>13.2}x", "ratio", ratio(0), ratio(1));
    let row = |index: usize, what| Row {
        what,
        against: "the same with 1,000 waiting",
        ours: mib(many[index]),
        theirs: mib(few[index]),
        unit: "MiB",
        reach: Reach::AtMost(1.2),
    };
    vec![row(0, "resident memory, 1,000,000 waiting, a slow model"), row(1, "the same with exactly_once")]
}

/// Resident bytes once the in-flight limit has been reached for a while: after a hundred answers.
fn resident(kafka: &Kafka, waiting: usize, delivery: &str) -> u64 {
    let setup = Setup::new(kafka);
    fill(kafka, &setup, waiting);
    let (_model, url) = http_model(SLOW_MS);
    let process = signalbox(&setup.single_config(&url, &format!("  max_in_flight: 500\n  delivery: {delivery}")));
    let reader = setup.reply_reader();
    let mut answered = std::collections::HashMap::new();
    wait_until("two hundred replies", Duration::from_secs(120), || {
        reader.count_into(&mut answered);
        (answered.len() >= 200).then_some(())
    });
    peak(&process)
}

/// The most that it has had.
fn peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
