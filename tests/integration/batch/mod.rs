//! Runs `signalbox batch` against a router: each format in and out, kills, bad rows, a router that is too busy, and one
//! that goes away.

mod formats;
mod interruptions;
mod long;
mod model;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::{Kafka, Setup, Signalbox, fresh_directory, wait_until};
use model::RowModel;

const LIMIT: Duration = Duration::from_secs(180);

/// A router over topics of its own, and a directory for files.
struct Ground {
    kafka: &'static Kafka,
    setup: Setup<'static>,
    router: Signalbox,
    directory: PathBuf,
}

impl Ground {
    /// Starts a router with one route to this model.
    fn new(model_uri: &str, kafka_keys: &str) -> Self {
        let kafka = Kafka::shared();
        let setup = Setup::new(kafka);
        let router = Signalbox::start(&setup.single_config(model_uri, kafka_keys));
        Self { kafka, setup, router, directory: fresh_directory("batch") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes a file of lines.
    fn lines(&self, name: &str, rows: usize, line: impl Fn(usize) -> String) {
        let mut file = std::io::BufWriter::new(File::create(self.path(name)).unwrap());
        (0..rows).for_each(|row| writeln!(file, "{}", line(row)).unwrap());
    }

    fn command(&self, input: &str, output: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox"));
        let bootstrap = self.kafka.bootstrap();
        let arguments: [&str; 11] = [
            "batch",
            "--brokers",
            &bootstrap,
            "--requests-topic",
            &self.setup.requests,
            "--replies-topic",
            &self.setup.replies,
            "--input",
            input,
            "--output",
            output,
        ];
        command.args(arguments).args(more).current_dir(&self.directory).env("RUST_LOG", "warn");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, input: &str, output: &str, more: &[&str]) -> Child {
        self.command(input, output, more).spawn().unwrap()
    }

    /// Runs to the end. Returns the exit code, and what was said.
    fn run(&self, input: &str, output: &str, more: &[&str]) -> (i32, String) {
        ended(self.start(input, output, more))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Lists the files of an output.
    fn files_of(&self, output: &str) -> Vec<OsString> {
        let names = fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.filter(|name| name.to_str().unwrap().starts_with(output)).collect();
        names.sort();
        names
    }

    /// Counts the rows of the last checkpoint.
    fn rows_noted(&self, output: &str) -> u64 {
        let text = fs::read(self.path(&format!("{output}.checkpoint"))).unwrap_or_default();
        let checkpoint: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        checkpoint["position"]["rows"].as_u64().unwrap_or_default()
    }
}

fn ended(child: Child) -> (i32, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert!(stdout.is_empty(), "{}", String::from_utf8_lossy(&stdout));
    (status.code().unwrap_or(-1), String::from_utf8(stderr).unwrap())
}

/// Kills a run with -9 each time that it has noted some more rows, and starts it again, until it ends by itself.
fn run_with_kills(start: impl Fn() -> Child, noted: impl Fn() -> u64, kills: usize, of: u64) -> Vec<(i32, String)> {
    let mut runs = Vec::new();
    for kill in 1..=kills {
        let mut child = start();
        let enough = of * kill as u64 / (kills as u64 + 1);
        wait_until("a checkpoint", LIMIT * 10, || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended before kill {kill}: {:?}", ended);
            (noted() >= enough).then_some(())
        });
        child.kill().unwrap();
        runs.push(ended_by_kill(child));
    }
    runs.push(ended(start()));
    runs
}

fn ended_by_kill(child: Child) -> (i32, String) {
    let Output { stderr, .. } = child.wait_with_output().unwrap();
    (-1, String::from_utf8(stderr).unwrap())
}

/// Parses a file of JSON lines.
fn json_lines(path: &Path) -> Vec<serde_json::Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
