//! Compares Signalbox with a hand-written worker: `benches/worker/worker.py`, a plain consumer in Python with an
//! asynchronous HTTP client and a dictionary of conditions, over the same topics in the same run.
//!
//! Both call the same two `mlflow models serve`, as one does with a worker; Signalbox then hosts the same models itself
//! as well. Behind those servers nearly all time is theirs, so both are also put before a model over HTTP that costs
//! next to nothing.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::backlog::{Backlog, Measured, forget, signalbox};
use crate::model;
use crate::models::registry;
use crate::processor::seconds_of_tree;
use crate::served::Served;
use crate::statistics::median;
use crate::steady::{Latency, steadily};
use crate::support::{Kafka, Mlflow, Process, Setup, fresh_directory};
use crate::table::{Reach, Row};

const WORKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/worker/worker.py");
const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/worker/requirements.txt");
/// Connections to each model.
const CONNECTIONS: usize = 16;
/// Number of turns of the contenders, so that a noisy minute hits both.
const TURNS: usize = 2;
const SECONDS: u32 = 6;

/// Describes a set of models that both contenders call.
struct Stage {
    name: &'static str,
    fast: String,
    accurate: String,
    /// The processes that serve the models, and are no part of a contender.
    servers: Vec<u32>,
    requests: usize,
    /// Requests a second for the measurement of latency.
    rate: u32,
}

/// Holds the result of one contender before one set of models.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    per_second: f64,
    /// Processor time for a request in microseconds: of the contender, and of the models, whichever process runs them.
    cpu: f64,
    models_cpu: f64,
    latency: Latency,
}

pub(crate) fn run() -> Vec<Row> {
    let (mlflow, python) = (registry(2), environment());
    let runtime = Runtime::new().unwrap();
    let serve = |number| runtime.block_on(Served::start(mlflow, number)).0;
    let (fast, accurate) = (serve(1), serve(2));
    let served = Stage {
        name: "two mlflow models serve",
        fast: fast.url.clone(),
        accurate: accurate.url.clone(),
        servers: vec![fast.process.pid(), accurate.process.pid()],
        requests: 1_500,
        rate: 50,
    };
    let hosted = Stage {
        name: "its own hosts",
        fast: "models:/model-1@champion".to_owned(),
        accurate: "models:/model-2@champion".to_owned(),
        servers: Vec::new(),
        requests: 20_000,
        rate: 50,
    };
    let (model, url) = model::start(Duration::ZERO);
    let free = Stage {
        name: "a model that costs nothing",
        fast: url.clone(),
        accurate: url,
        servers: vec![model.pid()],
        requests: 20_000,
        rate: 500,
    };

    println!(
        "\n{:<44} {:>11} {:>12} {:>12} {:>8} {:>8}",
        "", "requests/s", "its CPU, us", "models', us", "p50 ms", "p99 ms"
    );
    let [worker, ours] = compare(&python, &served);
    let own = hosted.measure(|setup| hosted.signalbox(setup));
    own.print("signalbox", &hosted);
    let [free_worker, free_ours] = compare(&python, &free);
    let rows = [
        beside(
            ["throughput before two mlflow models serve", "CPU of its own for that", "p99 at 50 requests/s"],
            "a Python worker before the same two",
            [ours, worker],
            |outcome| outcome.cpu,
        ),
        beside(
            ["throughput with its own hosts", "CPU for that, models included", "p99 at 50 requests/s"],
            "a Python worker and two mlflow models serve",
            [own, worker],
            |outcome| outcome.cpu + outcome.models_cpu,
        ),
        beside(
            ["throughput before an HTTP model that costs nothing", "CPU of its own for that", "p99 at 500 requests/s"],
            "a Python worker before the same",
            [free_ours, free_worker],
            |outcome| outcome.cpu,
        ),
    ];
    rows.into_iter().flatten().collect()
}

/// Formats throughput, processor time and latency as rows of the table.
fn beside(what: [&'static str; 3], against: &'static str, sides: [Outcome; 2], cpu: fn(Outcome) -> f64) -> [Row; 3] {
    let row = |what, unit, value: fn(Outcome) -> f64| {
        let [ours, theirs] = sides.map(value);
        Row { what, against, ours, theirs, unit, reach: Reach::Open }
    };
    [
        row(what[0], "requests/s", |outcome| outcome.per_second),
        row(what[1], "µs/request", cpu),
        row(what[2], "ms", |outcome| outcome.latency.p99),
    ]
}

/// Measures the worker and Signalbox before the same servers.
fn compare(python: &str, stage: &Stage) -> [Outcome; 2] {
    let worker = |setup: &Setup<'_>| stage.worker(python, setup);
    let (mut workers, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        workers.push(stage.measure(worker));
        ours.push(stage.measure(|setup| stage.signalbox(setup)));
    }
    let [worker, ours] = [workers, ours].map(|outcomes| Outcome::median(&outcomes));
    worker.print("the worker", stage);
    ours.print("signalbox", stage);
    [worker, ours]
}

impl Stage {
    fn worker(&self, python: &str, setup: &Setup<'_>) -> Process {
        let (connections, bootstrap) = (CONNECTIONS.to_string(), Kafka::shared().bootstrap());
        let (fast, accurate) = (format!("fast={}", self.fast), format!("accurate={}", self.accurate));
        let command = [python, WORKER, &bootstrap, &setup.requests, &setup.replies, &connections, &fast, &accurate];
        Process::start("worker", &fresh_directory("worker"), &[], command)
    }

    fn signalbox(&self, setup: &Setup<'_>) -> Process {
        let concurrency = if self.servers.is_empty() { 1 } else { CONNECTIONS };
        let condition = "request.json()['dataframe_split']['data'][0][0].startswith('Domain specific text')";
        let endpoint = format!(
            "
  - name: only
    timeout: 60s
    routes:
      - {{model_uri: \"{}\", alias: fast, max_concurrency: {concurrency}}}
      - model_uri: \"{}\"
        alias: accurate
        max_concurrency: {concurrency}
        model_request_condition: \"{condition}\"
",
            self.fast, self.accurate
        );
        let keys = "  delivery: at_least_once\n  max_in_flight: 1024";
        signalbox(&setup.config(&endpoint, keys, &registry(2).tracking_uri()))
    }

    fn measure(&self, start: impl Fn(&Setup<'_>) -> Process) -> Outcome {
        let kafka = Kafka::shared();
        let servers = || self.servers.iter().map(|pid| seconds_of_tree(*pid)).sum::<f64>();
        let before = servers();
        let backlog = Backlog::with(self.requests, payload);
        let Measured { per_second, cpu_microseconds: cpu, cpu_of_all_microseconds: all } =
            backlog.measure(kafka, &start);
        let models_cpu = match self.servers.is_empty() {
            true => all - cpu,
            false => (servers() - before) * 1e6 / self.requests as f64,
        };

        let setup = Setup::new(kafka);
        let process = start(&setup);
        let latency = steadily(kafka, &setup, self.rate, SECONDS, payload);
        drop(process);
        forget(kafka, &setup);
        Outcome { per_second, cpu, models_cpu, latency }
    }
}

impl Outcome {
    fn median(outcomes: &[Self]) -> Self {
        let middle = |value: fn(&Self) -> f64| median(outcomes.iter().map(value));
        Self {
            per_second: middle(|it| it.per_second),
            cpu: middle(|it| it.cpu),
            models_cpu: middle(|it| it.models_cpu),
            latency: Latency { p50: middle(|it| it.latency.p50), p99: middle(|it| it.latency.p99) },
        }
    }

    fn print(&self, who: &str, stage: &Stage) {
        println!(
            "{:<44} {:>11.0} {:>12.0} {:>12.0} {:>8.2} {:>8.2}",
            format!("{who}, {}", stage.name),
            self.per_second,
            self.cpu,
            self.models_cpu,
            self.latency.p50,
            self.latency.p99
        );
    }
}

/// Makes the requests, of which one in four goes to the accurate model.
fn payload(n: usize) -> Vec<u8> {
    let text = if n.is_multiple_of(4) { "Domain specific text" } else { "This product" };
    format!(r#"{{"dataframe_split": {{"columns": ["text"], "data": [["{text} {n} is great"]]}}}}"#).into_bytes()
}

/// Returns the interpreter of an environment of the worker's own, which is made if it is missing or has other
/// requirements.
fn environment() -> String {
    let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("worker");
    let (stamp, pins) = (home.join("stamp"), std::fs::read_to_string(REQUIREMENTS).unwrap());
    let python = home.join("venv/bin/python").to_str().unwrap().to_owned();
    if std::fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == pins) {
        return python;
    }
    println!("making an environment for the worker in {}", home.display());
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(Mlflow::python().to_str().unwrap(), &["-m", "venv", "--clear", home.join("venv").to_str().unwrap()]);
    run(&python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", REQUIREMENTS]);
    std::fs::write(stamp, pins).unwrap();
    python
}
