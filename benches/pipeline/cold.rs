//! Measures cold starts and warm calls beside `mlflow models serve`, and the memory of each model.

use std::time::Duration;

use tokio::runtime::Runtime;

use super::host_memory::{Memory, memory_of, memory_of_tree};
use super::models::{ask, hosting, registry, unload};
use super::phases::Phases;
use super::served::Served;
use super::statistics::{at, milliseconds};
use super::support::{Caller, Mlflow};
use super::table::{Reach, Row};

/// Cold starts, spread over as many rounds as `mlflow models serve` is started.
const COLD: usize = 50;
const ROUNDS: usize = 5;
/// Warm calls of each model, by which its latency is measured and after which its memory is.
const WARM_CALLS: usize = 50;

const COLD_TARGET: Reach = Reach::AtMost(1.0 / 40.0);
const MEMORY_TARGET: Reach = Reach::AtMost(1.0 / 15.0);

pub(super) fn run() -> Vec<Row> {
    let mlflow = registry(COLD + 1);
    Runtime::new().unwrap().block_on(cold(mlflow))
}

async fn cold(mlflow: &Mlflow) -> Vec<Row> {
    let signalbox = hosting(mlflow, COLD + 1).start();
    let caller = Caller::of(&signalbox);
    // One model is loaded beforehand: the template then has imported what it needs, and what the first model adds to
    // that.
    let first_of_all = ask(&caller, COLD + 1).await;
    let tree_before = memory_of_tree(signalbox.pid());

    let (mut never_loaded, mut served) = (Vec::new(), Vec::new());
    let (mut served_memory, mut served_warm, mut hosted_warm) = (Vec::new(), Vec::new(), Vec::new());
    let phases = Phases::scraped(&signalbox).await;
    for round in 0..ROUNDS {
        let numbers = round * COLD / ROUNDS + 1..=(round + 1) * COLD / ROUNDS;
        for number in numbers.clone() {
            never_loaded.push(ask(&caller, number).await);
        }
        let (server, took) = Served::start(mlflow, COLD + 1).await;
        served.push(took);
        for _ in 0..WARM_CALLS {
            served_warm.push(server.ask().await);
            hosted_warm.push(ask(&caller, *numbers.start()).await);
        }
        served_memory.push(memory_of_tree(server.process.pid()));
    }
    let never_loaded_phases = Phases::scraped(&signalbox).await.since(&phases);

    let models = caller.models().await.models;
    assert!(models.iter().all(|model| model.loads == 1), "something was loaded twice: {models:?}");
    let mut hosts: Vec<_> = models.iter().flat_map(|model| &model.pids).map(|pid| memory_of(*pid)).collect();
    let tree = memory_of_tree(signalbox.pid());

    let mut reloaded = Vec::new();
    let phases = Phases::scraped(&signalbox).await;
    for number in 1..=COLD {
        unload(&caller, number).await;
        reloaded.push(ask(&caller, number).await);
    }
    let reloaded_phases = Phases::scraped(&signalbox).await.since(&phases);
    let models = caller.models().await.models;
    assert_eq!(
        models.iter().filter(|model| model.loads == 2).count(),
        COLD,
        "not each was loaded once more: {models:?}"
    );

    println!("\n{:<58} {:>9} {:>9} {:>7} {:>9}", "request to reply, ms", "p50", "p99", "n", "ratio");
    let row = |name: &str, took: &mut Vec<Duration>, beside: Option<f64>| -> f64 {
        took.sort_unstable();
        let (middle, worst) = (milliseconds(at(took, 0.5)), milliseconds(at(took, 0.99)));
        let ratio = beside.map_or_else(String::new, |other| format!("1/{:.1}", other / middle));
        println!("{name:<58} {middle:>9.1} {worst:>9.1} {:>7} {ratio:>9}", took.len());
        middle
    };
    let start = row("mlflow models serve, from start to first answer", &mut served, None);
    let cold = row("signalbox, a model never loaded, not in the cache", &mut never_loaded, Some(start));
    row("signalbox, a model that was unloaded", &mut reloaded, Some(start));
    row("signalbox, the very first model after the start", &mut vec![first_of_all], Some(start));
    let served_call = row("mlflow models serve, a warm call", &mut served_warm, None);
    let hosted_call = row("signalbox, a warm call", &mut hosted_warm, Some(served_call));

    println!("\nmean ms by phase: resolve, fetch, room, fork, load, warm, and the rest of the way there and back");
    never_loaded_phases.print("never loaded", &never_loaded);
    reloaded_phases.print("unloaded", &reloaded);

    println!("\n{:<58} {:>9} {:>9}", "MiB for one more model", "private", "PSS");
    let served = Memory::median(&mut served_memory);
    let hosted = Memory::median(&mut hosts);
    println!("{:<58} {:>9.1} {:>9.1}", "mlflow models serve, the processes of the command", served.private, served.pss);
    println!("{:<58} {:>9.1} {:>9.1}", "signalbox, the host", hosted.private, hosted.pss);
    let more = (tree.pss - tree_before.pss) / COLD as f64;
    println!("{:<58} {:>9} {more:>9.1}", format!("signalbox, all its processes: growth for each of {COLD}"), "");
    vec![
        Row {
            what: "a cold model's first answer, hosts warmed",
            against: "mlflow models serve, from its start",
            ours: cold,
            theirs: start,
            unit: "ms",
            reach: COLD_TARGET,
        },
        Row {
            what: "a warm call over HTTP, one at a time, p50",
            against: "the same of mlflow models serve",
            ours: hosted_call,
            theirs: served_call,
            unit: "ms",
            reach: Reach::Open,
        },
        Row {
            what: "memory for one more loaded model, private",
            against: "the same, by mlflow models serve",
            ours: hosted.private,
            theirs: served.private,
            unit: "MiB",
            reach: MEMORY_TARGET,
        },
    ]
}
