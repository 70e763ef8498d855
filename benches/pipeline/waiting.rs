//! Measures resident memory over the number of requests that wait for a slow model, up to a million of them.

use std::collections::HashMap;
use std::time::Duration;

use crate::backlog::{Backlog, forget, signalbox};
use crate::plot::{Curve, Plot};
use crate::support::{Kafka, Process, Setup, http_model, wait_until};
use crate::table::{Reach, Row};

/// Numbers of waiting requests, of which the thousand and the million are compared.
const WAITING: [usize; 5] = [1, 1_000, 10_000, 100_000, 1_000_000];
const FEW: usize = 1;
const MANY: usize = 4;
const DELIVERIES: [&str; 2] = ["at_least_once", "exactly_once"];
/// Time that the model takes for a call, so long that hardly any request is answered meanwhile.
const SLOW_MS: u32 = 2_000;
/// Answers after which the limit of requests in flight has been reached for a while.
const ENOUGH: usize = 200;

pub(crate) fn run() -> Vec<Row> {
    let resident = WAITING.map(|waiting| DELIVERIES.map(|delivery| resident(waiting, delivery)));
    println!("\n{:<34} {:>14} {:>14}", "1 KiB waiting, a model of 2 s; MiB", DELIVERIES[0], DELIVERIES[1]);
    for (waiting, [first, second]) in WAITING.iter().zip(resident) {
        println!("{waiting:<34} {first:>14.1} {second:>14.1}");
    }
    let curve = |delivery: usize| {
        let points = WAITING.iter().zip(resident).map(|(waiting, resident)| (*waiting as f64, resident[delivery]));
        Curve::new(DELIVERIES[delivery], points.collect())
    };
    Plot {
        file: "waiting-memory",
        title: "Memory by the number of requests that wait",
        across: "requests of 1 KiB that wait",
        up: "MiB, the most that was resident",
        curves: vec![curve(0), curve(1)],
    }
    .draw();
    let row = |delivery: usize, what| Row {
        what,
        against: "the same with 1,000 waiting",
        ours: resident[MANY][delivery],
        theirs: resident[FEW][delivery],
        unit: "MiB",
        reach: Reach::AtMost(1.2),
    };
    vec![row(0, "resident memory, 1,000,000 waiting, a slow model"), row(1, "the same with exactly_once")]
}

/// Returns the greatest resident memory, in MiB.
fn resident(waiting: usize, delivery: &str) -> f64 {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    Backlog::of(waiting).fill(kafka, &setup);
    let (_model, url) = http_model(SLOW_MS);
    let process = signalbox(&setup.single_config(&url, &format!("  max_in_flight: 500\n  delivery: {delivery}")));
    let reader = setup.reply_reader();
    let mut answered = HashMap::new();
    wait_until("enough replies", Duration::from_secs(120), || {
        reader.count_into(&mut answered);
        (answered.len() >= ENOUGH.min(waiting)).then_some(())
    });
    let peak = peak(&process);
    drop(process);
    forget(kafka, &setup);
    peak
}

/// Reads the greatest resident memory that a process has had.
fn peak(process: &Process) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
