//! Kills, routers that are too busy or gone, and inputs that are others than before.

use std::io::Write as _;
use std::time::Duration;

use super::{Ground, RowModel, ended, json_lines, run_with_kills};
use crate::support::{Kafka, Setup, fresh_directory, signal, wait_until};

const LIMIT: Duration = Duration::from_secs(120);

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn output_is_the_same_when_run_is_killed_three_times() {
    const ROWS: usize = 12_000;
    let model = RowModel::start(Duration::from_millis(10), 0);
    let ground = Ground::new(model.url(), "");
    ground.lines("in.csv", ROWS + 1, |row| match row {
        0 => "n,name".to_owned(),
        row if row % 5_000 == 0 => format!("{row}"),
        row => format!("{row},\"a, {row}\""),
    });
    ground.lines("in.jsonl", ROWS, |row| match row {
        3_333 => "{".to_owned(),
        row => format!("{{\"n\": {row}, \"name\": \"a{row}\"}}"),
    });
    for (input, output) in [("in.csv", "out.csv"), ("in.jsonl", "out.jsonl"), ("in.jsonl", "out.parquet")] {
        let more = ["--rows", "20", "--in-flight", "4"];
        let whole = format!("whole.{output}");
        let (code, said) = ground.run(input, &whole, &["--rows", "50"]);
        assert_eq!(code, 1, "{said}");
        let runs = run_with_kills(|| ground.start(input, output, &more), || ground.rows_noted(output), 3, ROWS as u64);
        let (code, said) = runs.last().unwrap();
        assert!(*code == 1 && said.contains("rows are done already; going on after them"), "{output}: {code} {said}");
        let bytes = |name: &str| std::fs::read(ground.path(name)).unwrap();
        assert!(bytes(output) == bytes(&whole), "{output} differs from an uninterrupted run");
        let reasons = |name: &str| {
            let lines = json_lines(&ground.path(&format!("{name}.errors.jsonl")));
            lines.iter().map(|line| (line["row"].clone(), line["message"].clone())).collect::<Vec<_>>()
        };
        assert_eq!(reasons(output), reasons(&whole));
        assert!(!reasons(output).is_empty());
        assert_eq!(ground.files_of(output).len(), 2, "the output and its errors are left");
    }
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn run_that_is_told_to_end_is_gone_on_with_by_the_same_input_alone() {
    const ROWS: usize = 20_000;
    let model = RowModel::start(Duration::from_millis(20), 0);
    let ground = Ground::new(model.url(), "");
    let line = |row: usize| format!("{{\"n\": {row}}}");
    ground.lines("in.jsonl", ROWS, line);
    let more = ["--rows", "20", "--in-flight", "8"];
    let first = ground.start("in.jsonl", "out.jsonl", &more);
    wait_until("a checkpoint", LIMIT, || (ground.rows_noted("out.jsonl") > 0).then_some(()));
    let (code, said) = ground.run("in.jsonl", "out.jsonl", &more);
    assert!(code == 69 && said.contains("another process writes"), "{code} {said}");
    signal("TERM", first.id());
    let (code, said) = ended(first);
    assert!(code == 75 && said.contains("the same command goes on from there"), "{code} {said}");
    let done = ground.rows_noted("out.jsonl");

    let (code, said) = ground.run("in.jsonl", "out.jsonl", &["--columns", "m"]);
    assert!(code == 64 && said.contains("--columns was all, and is 'm'"), "{code} {said}");
    std::fs::OpenOptions::new().append(true).open(ground.path("in.jsonl")).unwrap().write_all(b"{\"n\": 7}\n").unwrap();
    let (code, said) = ground.run("in.jsonl", "out.jsonl", &more);
    assert!(code == 64 && said.contains("in.jsonl had ") && said.contains("--restart"), "{code} {said}");
    assert_eq!(ground.rows_noted("out.jsonl"), done, "a refusal changes nothing");
    let (code, said) = ground.run("in.jsonl", "out.jsonl", &["--restart"]);
    assert!(code == 0 && said.contains("20,001 rows, none failed"), "{code} {said}");
    let predictions = json_lines(&ground.path("out.jsonl"));
    assert!(predictions.iter().take(ROWS).enumerate().all(|(row, line)| line["prediction"] == 2 * row));

    let (code, said) = ground.run("in.jsonl", "out.jsonl", &[]);
    assert!(code == 64 && said.contains("--overwrite"), "{code} {said}");
    assert_eq!(ground.run("in.jsonl", "out.jsonl", &["--overwrite"]).0, 0);
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn all_rows_are_answered_when_router_is_too_busy_or_refuses() {
    const ROWS: usize = 3_000;
    // The model refuses at first, so the route's breaker opens; and its queue is shorter than the window.
    let model = RowModel::start(Duration::from_millis(5), 20);
    let ground = Ground::new(model.url(), "  max_in_flight: 8");
    ground.lines("in.jsonl", ROWS, |row| format!("{{\"n\": {row}}}"));
    let (code, said) = ground.run("in.jsonl", "out.jsonl", &["--rows", "10", "--attempts", "30"]);
    assert!(code == 0, "{code} {said}");
    let lines = json_lines(&ground.path("out.jsonl"));
    assert!(lines.len() == ROWS && lines.iter().enumerate().all(|(row, line)| line["prediction"] == 2 * row));
    assert!(model.calls() >= ROWS / 10 + 20, "{}", model.calls());
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn run_goes_on_when_router_is_killed_and_comes_back() {
    const ROWS: usize = 6_000;
    let model = RowModel::start(Duration::from_millis(10), 0);
    let mut ground = Ground::new(model.url(), "");
    ground.lines("in.jsonl", ROWS, |row| format!("{{\"n\": {row}}}"));
    let child = ground.start("in.jsonl", "out.jsonl", &["--rows", "10", "--in-flight", "8", "--timeout", "15s"]);
    wait_until("some rows", LIMIT, || (model.rows() > ROWS / 4).then_some(()));
    ground.router.kill();
    ground.router.start_again();
    let (code, said) = ended(child);
    assert!(code == 0, "{code} {said}");
    let lines = json_lines(&ground.path("out.jsonl"));
    assert!(lines.len() == ROWS && lines.iter().enumerate().all(|(row, line)| line["prediction"] == 2 * row));

    // Without a router the run stops in the end, and says what it has waited for.
    ground.router.kill();
    let (code, said) = ground.run("in.jsonl", "more.jsonl", &["--patience", "3s", "--timeout", "1s"]);
    assert!(code == 75 && said.contains("nothing is answered any more"), "{code} {said}");
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn config_alone_starts_a_router() {
    let model = RowModel::start(Duration::ZERO, 0);
    let setup = Setup::new(Kafka::shared());
    let directory = fresh_directory("batch");
    let path = |name: &str| directory.join(name);
    let embedded = format!(
        "model_endpoints: [{{name: only, routes: [{{model_uri: \"{}\", alias: only}}]}}]\nmodels: {{python: \"{}\"}}\n",
        model.url(),
        crate::support::Mlflow::python().display()
    );
    std::fs::write(path("embedded.yaml"), embedded).unwrap();
    std::fs::write(path("real.yaml"), setup.single_config(model.url(), "")).unwrap();
    let rows: String = (0..500).map(|row| format!("{{\"n\": {row}}}\n")).collect();
    std::fs::write(path("in.jsonl"), rows).unwrap();
    for config in ["embedded", "real"] {
        let (file, output) = (format!("{config}.yaml"), format!("{config}.jsonl"));
        let arguments = ["batch", "--config", &file, "--endpoint", "only", "--input", "in.jsonl", "--output", &output];
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_signalbox"));
        let done = command.args(arguments).current_dir(&directory).output().unwrap();
        assert!(done.status.success(), "{config}: {}", String::from_utf8_lossy(&done.stderr));
        let lines = json_lines(&path(&output));
        assert!(lines.len() == 500 && lines.iter().enumerate().all(|(row, line)| line["prediction"] == 2 * row));
    }
    let arguments =
        ["batch", "--config", "real.yaml", "--endpoint", "other", "--input", "in.jsonl", "--output", "o.csv"];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_signalbox"));
    let done = command.args(arguments).current_dir(&directory).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.code() == Some(64) && said.contains("real.yaml has only"), "{said}");
}
