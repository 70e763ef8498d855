//! A batch at length, which `tests/batch` runs: memory, rate, and the output of a run that was killed three times.

use std::process::Child;
use std::time::Instant;

use super::{Ground, run_with_kills};
use crate::support::{Kafka, Mlflow, Setup, Signalbox, fresh_directory, resident_peak};

/// Rows of a run, and its options. The usual run has a hundredth of the rows, and sends them slowly, so that it can be
/// killed.
fn rows(long: usize, slowly: &'static [&'static str]) -> (usize, &'static [&'static str]) {
    match std::env::var_os("SIGNALBOX_TEST_BATCH_LONG").is_some() {
        true => (long, &[]),
        false => (long / 100, slowly),
    }
}

/// Runs once without and once with kills, and compares the outputs. Returns how fast it was and what it took.
fn compare(ground: &Ground, what: &str, rows: usize, more: &[&str]) -> String {
    let began = Instant::now();
    let mut child = ground.start("in.jsonl", "whole.jsonl", more);
    let (mut peak, mut early) = (0, 0);
    while child.try_wait().unwrap().is_none() {
        // A process that has just ended has no memory any more.
        peak = peak.max(std::panic::catch_unwind(|| resident_peak(child.id())).unwrap_or_default());
        if began.elapsed().as_secs() < 5 {
            early = peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let (code, said) = super::ended(child);
    assert_eq!(code, 0, "{said}");
    let rate = rows as f64 / began.elapsed().as_secs_f64();
    let start = || -> Child { ground.start("in.jsonl", "killed.jsonl", more) };
    let runs = run_with_kills(start, || ground.rows_noted("killed.jsonl"), 3, rows as u64);
    assert_eq!(runs.last().unwrap().0, 0, "{:?}", runs.last());
    let bytes = |name: &str| std::fs::read(ground.path(name)).unwrap();
    assert!(bytes("whole.jsonl") == bytes("killed.jsonl"), "the outputs differ");
    assert_eq!(bytes("whole.jsonl").iter().filter(|byte| **byte == b'\n').count(), rows);
    format!(
        "{what}: {rows} rows, {rate:.0} rows/s, at most {} MiB ({} MiB after 5 s); killed three times: the same output; {}",
        peak >> 20,
        early >> 20,
        said.trim()
    )
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn long_run_over_noop_is_the_same_when_killed() {
    let (rows, more) = rows(1_000_000, &["--rows", "5", "--in-flight", "2"]);
    let ground = Ground::new("builtin:noop", "");
    ground.lines("in.jsonl", rows, |row| format!("{{\"id\": {row}, \"text\": \"the {row}th line of a long file\"}}"));
    println!("{}", compare(&ground, "builtin:noop", rows, more));
}

#[test]
#[ignore = "needs Apache Kafka and MLflow; tests/run starts them"]
fn long_run_over_real_model_is_the_same_when_killed() {
    let (rows, more) = rows(100_000, &["--rows", "1", "--in-flight", "1"]);
    let (kafka, mlflow) = (Kafka::shared(), Mlflow::shared());
    let setup = Setup::new(kafka);
    let endpoints = "\n  - {name: only, timeout: 60s, routes: [{model_uri: \"models:/sentiment-model-fast/production\", alias: fast}]}\n";
    let router = Signalbox::start(&setup.config(endpoints, "", &mlflow.tracking_uri()));
    let ground = Ground { kafka, setup, router, directory: fresh_directory("batch") };
    let words = ["great", "awful", "fine", "broken", "lovely"];
    ground.lines("in.jsonl", rows, |row| {
        format!("{{\"text\": \"a {} product, number {row}\"}}", words[row % words.len()])
    });
    println!("{}", compare(&ground, "sentiment-model-fast", rows, more));
}
