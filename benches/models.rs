//! Models that are loaded when they are asked for: how long the first answer takes, what one more costs in memory, and
//! what happens when there are more than memory holds.
//!
//! ```sh
//! cargo bench --bench models                # everything, some six minutes
//! cargo bench --bench models -- cold        # one part: cold or residency
//! ```
//!
//! A real MLflow tracking server serves copies of a small scikit-learn text model, each logged and registered of its
//! own. Whatever is compared runs in turn in the same run, on the same machine:
//!
//! - `cold`: from the HTTP request to its answer for models that were never loaded and are not in the artifact cache,
//!   and for models that are only no longer loaded; beside `mlflow models serve --env-manager local`, from the start of
//!   that command to its first answer. Then what each of them holds in memory for itself, after some calls: for
//!   `mlflow models serve` the command and the server that it starts, for Signalbox the model's host. What is shared is
//!   not in there: libraries that are mapped from the same files, and for a host what it still has in common with the
//!   process it was forked from.
//! - `residency`: twenty models and room for ten, asked for by a few callers at once, each its next question as soon as
//!   it has the answer. Signalbox decides what stays, beside strict LRU over a Signalbox without a limit: for each miss
//!   it has the least recently used model unloaded over HTTP, waits until the process has gone, and only then asks. And
//!   beside one that keeps all twenty. All three begin with all models loaded once and their files in the cache.
//!
//! It needs what `tests/run` installs.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops where it fails"
)]

#[path = "../tests/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
mod support;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::{Caller, Dice, Hosting, Mlflow, Process, Signalbox};
use support::{eventually, free_port, fresh_directory, is_alive, mlflow_environment, python};

/// Logs and registers copies of the quickstart's fast model: `model-1` and so on, each with the alias `champion`.
const REGISTER: &str = "
import importlib.util, sys, warnings
script, tracking_uri, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
found = importlib.util.spec_from_file_location('quickstart', script)
quickstart = importlib.util.module_from_spec(found)
found.loader.exec_module(quickstart)
import mlflow
warnings.filterwarnings('ignore')
mlflow.set_tracking_uri(tracking_uri)
train, example = quickstart.python_models()['sentiment-model-fast']
model, outputs = train(), {'label': 'string', 'score': 'double'}
for number in range(1, count + 1):
    quickstart.register(mlflow.MlflowClient(), f'model-{number}', model, example, outputs)
";
const QUICKSTART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/quickstart/models.py");

/// Cold starts, in as many rounds as `mlflow models serve` is started.
const COLD: usize = 50;
const ROUNDS: usize = 5;
/// Calls of each after which its memory is measured, and by which its warm latency is.
const WARM_CALLS: usize = 50;

const MODELS: usize = 20;
const ROOM: usize = 10;
const CALLERS: usize = 4;
const REQUESTS: usize = 600;
/// The contenders take turns, so that a noisy minute hits all of them.
const TURNS: usize = 3;

const COLD_TARGET: f64 = 1.0 / 40.0;
const MEMORY_TARGET: f64 = 1.0 / 15.0;
const ZIPF_TARGET: f64 = 1.5;

#[tokio::main]
async fn main() {
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = parts.iter().find(|part| !["cold", "residency"].contains(&part.as_str())) {
        panic!("there is no part {unknown}: cold or residency");
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|it| it == part);

    println!("{}, load average {}", machine(), load_average());
    let mlflow = Mlflow::empty();
    let count = if wanted("cold") { COLD + 1 } else { MODELS };
    python(REGISTER, &[QUICKSTART, &mlflow.tracking_uri(), &count.to_string()]);
    if wanted("cold") {
        cold(&mlflow).await;
    }
    if wanted("residency") {
        residency(&mlflow).await;
    }
    println!("\nload average {}", load_average());
}

fn payload() -> Value {
    json!({"dataframe_split": {"columns": ["text"], "data": [["This is a great product!"]]}})
}

/// A Signalbox with this many of the models.
fn hosting(mlflow: &Mlflow, count: usize) -> Hosting {
    (1..=count).fold(Hosting::of(mlflow), |hosting, number| {
        hosting.endpoint(&format!("model-{number}"), &format!("models:/model-{number}@champion"))
    })
}

/// How long a request took from here and back. Panics when it got no prediction.
async fn ask(caller: &Caller, number: usize) -> Duration {
    let answer = caller.ask(&format!("model-{number}"), &payload()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.took
}

// Cold starts, and memory.

async fn cold(mlflow: &Mlflow) {
    let signalbox = hosting(mlflow, COLD + 1).start();
    let caller = Caller::of(&signalbox);
    // The template imports what it needs, and what the first model adds to that.
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
        let (server, took) = Served::start(mlflow).await;
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
    row("signalbox, a warm call", &mut hosted_warm, Some(served_call));
    verdict("never loaded / mlflow models serve", cold / start, COLD_TARGET);

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
    verdict("private: host / mlflow models serve", hosted.private / served.private, MEMORY_TARGET);
}

/// `mlflow models serve` of the last model.
struct Served {
    process: Process,
    client: reqwest::Client,
    url: String,
}

impl Served {
    /// Starts it; how long it took from there to its first answer.
    async fn start(mlflow: &Mlflow) -> (Self, Duration) {
        let (port, directory) = (free_port().to_string(), fresh_directory("served"));
        let mut environment = mlflow_environment();
        environment.push(("MLFLOW_TRACKING_URI", mlflow.tracking_uri().into()));
        let uri = format!("models:/model-{}@champion", COLD + 1);
        let python = Mlflow::python();
        let command =
            [python.to_str().unwrap(), "-m", "mlflow", "models", "serve", "-m", &uri, "--env-manager", "local"];
        let command = command.into_iter().chain(["--host", "127.0.0.1", "--port", &port]);
        let process = Process::start("served", &directory, &environment, command);
        let begun = Instant::now();
        let url = format!("http://127.0.0.1:{port}/invocations");
        let served = Self { process, client: reqwest::Client::new(), url };
        let answered = async || served.try_ask().await;
        eventually("an answer of mlflow models serve", Duration::from_secs(180), answered).await;
        (served, begun.elapsed())
    }

    async fn ask(&self) -> Duration {
        self.try_ask().await.expect("a server that has answered answers again")
    }

    async fn try_ask(&self) -> Option<Duration> {
        let begun = Instant::now();
        let answer = self.client.post(&self.url).json(&payload()).send().await.ok()?;
        let is_success = answer.status().is_success();
        answer.bytes().await.ok()?;
        is_success.then(|| begun.elapsed())
    }
}

/// Has a model unloaded, and waits until its process has gone.
async fn unload(caller: &Caller, number: usize) {
    let id = format!("model-{number}/1");
    let pids = caller.model(&id).await.unwrap().pids;
    caller.tell(&id, "unload").await;
    while pids.iter().any(|pid| is_alive(*pid)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// From `signalbox_model_load_phase_seconds`: the seconds of each phase, and how often it was gone through.
struct Phases(HashMap<String, (f64, f64)>);

impl Phases {
    const NAMES: [&str; 6] = ["resolve", "fetch", "room", "fork", "load", "warm"];

    async fn scraped(signalbox: &Signalbox) -> Self {
        let page = reqwest::get(format!("{}/metrics", signalbox.url())).await.unwrap().text().await.unwrap();
        let value = |kind: &str, phase: &str| {
            let name = format!("signalbox_model_load_phase_seconds_{kind}{{phase=\"{phase}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0.0)
        };
        Self(Self::NAMES.map(|phase| (phase.to_owned(), (value("sum", phase), value("count", phase)))).into())
    }

    fn since(mut self, before: &Self) -> Self {
        for (phase, (seconds, count)) in &mut self.0 {
            let (seconds_before, count_before) = before.0[phase];
            (*seconds, *count) = (*seconds - seconds_before, *count - count_before);
        }
        self
    }

    /// Means over those that have gone through it.
    fn print_loads(&self) {
        let means = Self::NAMES.iter().filter_map(|phase| {
            let (seconds, count) = self.0[*phase];
            (count > 0.0).then(|| format!("{phase} {:.1}", seconds * 1000.0 / count))
        });
        println!("  mean ms of a load by phase: {}", means.collect::<Vec<_>>().join("  "));
    }

    fn print(&self, name: &str, took: &[Duration]) {
        let all = took.iter().map(|took| milliseconds(*took)).sum::<f64>() / took.len() as f64;
        let means = Self::NAMES.map(|phase| self.0[phase].0 * 1000.0 / took.len() as f64);
        let shown = Self::NAMES.iter().zip(means).map(|(phase, mean)| format!("{phase} {mean:.1}"));
        let shown = shown.collect::<Vec<_>>().join("  ");
        println!("  {name:<14} {all:>6.1} = {shown}  rest {:.1}", all - means.iter().sum::<f64>());
    }
}

/// In MiB.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    private: f64,
    pss: f64,
}

impl Memory {
    /// Of each column.
    fn median(all: &mut [Self]) -> Self {
        let mut middle = |value: fn(&Self) -> f64| {
            all.sort_by(|one, other| value(one).total_cmp(&value(other)));
            value(&all[all.len() / 2])
        };
        Self { private: middle(|memory| memory.private), pss: middle(|memory| memory.pss) }
    }
}

fn memory_of(pid: u32) -> Memory {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let mebibytes = |prefix: &str| {
        let lines = rollup.lines().filter(|line| line.starts_with(prefix));
        lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()).sum::<f64>() / 1024.0
    };
    Memory { private: mebibytes("Private_"), pss: mebibytes("Pss:") }
}

/// Of a process and all that it has started.
fn memory_of_tree(pid: u32) -> Memory {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let children = children.collect::<String>();
    children.split_whitespace().fold(memory_of(pid), |sum, child| {
        let child = memory_of_tree(child.parse().unwrap());
        Memory { private: sum.private + child.private, pss: sum.pss + child.pss }
    })
}

// More models than memory holds.

/// In which order the models are asked for.
#[derive(Debug, Clone, Copy)]
enum Pattern {
    Uniform,
    Zipf,
    Cyclic,
}

impl Pattern {
    fn requests(self, count: usize) -> Vec<usize> {
        let mut dice = Dice::new(20);
        let model = |request: usize| match self {
            Self::Uniform => dice.below(MODELS),
            Self::Zipf => dice.zipf(MODELS),
            Self::Cyclic => request % MODELS,
        };
        (0..count).map(model).map(|index| index + 1).collect()
    }
}

/// One way to decide what stays.
struct Contender {
    name: &'static str,
    signalbox: Signalbox,
    caller: Caller,
    lru: Option<Arc<Lru>>,
    measured: Measured,
}

#[derive(Debug, Default)]
struct Measured {
    took: Vec<Duration>,
    elapsed: Duration,
    loads: u64,
    failed: usize,
}

async fn residency(mlflow: &Mlflow) {
    let cache = fresh_directory("cache");
    let mut contenders = vec![Contender::start("unlimited", mlflow, &cache, None, false).await];
    // Those that were called are measured each second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let largest = async || {
        let page = contenders[0].caller.models().await;
        let settled = page.models.iter().all(|model| model.state == "loaded" && model.calls > 0);
        settled.then(|| page.models.iter().filter_map(|model| model.memory).max().unwrap())
    };
    let largest = eventually("the sizes of all models", Duration::from_secs(10), largest).await;
    let limit = largest * ROOM as u64 + largest / 2;
    contenders.push(Contender::start("plain LRU, from outside", mlflow, &cache, None, true).await);
    contenders.push(Contender::start("signalbox", mlflow, &cache, Some(limit), false).await);

    let mebibyte = (1 << 20) as f64;
    println!(
        "\n{MODELS} models of at most {:.1} MiB, room for {ROOM} ({:.0} MiB), {CALLERS} callers, {REQUESTS} requests each",
        largest as f64 / mebibyte,
        limit as f64 / mebibyte
    );
    println!(
        "{:<34} {:>9} {:>9} {:>8} {:>11} {:>10} {:>7} {:>7}",
        "", "mean ms", "p95 ms", "ratio", "loads/min", "hits", "failed", "req/s"
    );
    for pattern in [Pattern::Uniform, Pattern::Zipf, Pattern::Cyclic] {
        let requests = pattern.requests(REQUESTS + REQUESTS / TURNS);
        let (before, requests) = requests.split_at(REQUESTS / TURNS);
        for contender in &mut contenders {
            contender.run(before).await;
            contender.measured = Measured::default();
        }
        let phases = Phases::scraped(&contenders[2].signalbox).await;
        for turn in requests.chunks(REQUESTS / TURNS) {
            for contender in &mut contenders {
                contender.run(turn).await;
            }
        }
        let unlimited = contenders[0].measured.mean();
        for contender in &contenders {
            contender.measured.print(&format!("{pattern:?}, {}", contender.name), unlimited);
        }
        Phases::scraped(&contenders[2].signalbox).await.since(&phases).print_loads();
        if matches!(pattern, Pattern::Zipf) {
            verdict("Zipf: signalbox / unlimited, mean", contenders[2].measured.mean() / unlimited, ZIPF_TARGET);
        }
    }
}

impl Contender {
    async fn start(name: &'static str, mlflow: &Mlflow, cache: &Path, limit: Option<u64>, lru: bool) -> Self {
        let mut hosting = hosting(mlflow, MODELS);
        cache.clone_into(&mut hosting.cache);
        if let Some(limit) = limit {
            hosting = hosting.models(&format!("memory_limit: {limit}B"));
        }
        let signalbox = hosting.start();
        let caller = Caller::of(&signalbox);
        let lru = lru.then(|| Arc::new(Lru::default()));
        let mut contender = Self { name, signalbox, caller, lru, measured: Measured::default() };
        contender.run(&(1..=MODELS).collect::<Vec<_>>()).await;
        contender.measured = Measured::default();
        contender
    }

    /// Has the callers take one request after the other.
    async fn run(&mut self, requests: &[usize]) {
        let loads = self.loads().await;
        let (requests, next): (Arc<[usize]>, _) = (requests.into(), Arc::new(AtomicUsize::new(0)));
        let begun = Instant::now();
        let callers = (0..CALLERS).map(|_| {
            let (caller, lru) = (self.caller.clone(), self.lru.clone());
            let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
            tokio::spawn(async move {
                let (mut took, mut failed) = (Vec::new(), 0);
                while let Some(number) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    if let Some(lru) = &lru {
                        lru.begin(&caller, *number).await;
                    }
                    let answer = caller.ask(&format!("model-{number}"), &payload()).await;
                    if let Some(lru) = &lru {
                        lru.end(*number);
                    }
                    took.push(begun.elapsed());
                    if answer.status != 200 {
                        failed += 1;
                        println!("  {}: model-{number}: {} {}", answer.status, answer.took.as_millis(), answer.text());
                    }
                }
                (took, failed)
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            let (took, failed) = caller.await.unwrap();
            self.measured.took.extend(took);
            self.measured.failed += failed;
        }
        self.measured.elapsed += begun.elapsed();
        self.measured.loads += self.loads().await - loads;
    }

    async fn loads(&self) -> u64 {
        self.caller.models().await.models.iter().map(|model| model.loads).sum()
    }
}

impl Measured {
    fn mean(&self) -> f64 {
        self.took.iter().map(|took| milliseconds(*took)).sum::<f64>() / self.took.len() as f64
    }

    fn print(&self, name: &str, unlimited: f64) {
        let mut took = self.took.clone();
        took.sort_unstable();
        let (mean, requests, elapsed) = (self.mean(), took.len() as f64, self.elapsed.as_secs_f64());
        println!(
            "{name:<34} {mean:>9.1} {:>9.1} {:>7.2}x {:>11.0} {:>9.1}% {:>7} {:>7.0}",
            milliseconds(at(&took, 0.95)),
            mean / unlimited,
            self.loads as f64 / elapsed * 60.0,
            100.0 * (1.0 - self.loads as f64 / requests),
            self.failed,
            requests / elapsed,
        );
    }
}

/// Keeps the models that were used last, and one that is in use whatever happens.
#[derive(Default)]
struct Lru {
    /// Those that are loaded, the least recently used first, and how many calls of each are under way.
    order: Mutex<VecDeque<(usize, usize)>>,
}

impl Lru {
    /// Before a request: makes room for its model, if that is not loaded.
    async fn begin(&self, caller: &Caller, number: usize) {
        let victim = {
            let mut order = self.order.lock().unwrap();
            let known = order.iter().position(|(loaded, _)| *loaded == number).and_then(|index| order.remove(index));
            order.push_back((number, known.map_or(0, |(_, calls)| calls) + 1));
            let is_full = order.len() > ROOM;
            let unused = order.iter().position(|(_, calls)| *calls == 0).filter(|_| is_full);
            unused.and_then(|index| order.remove(index))
        };
        if let Some((victim, _)) = victim {
            unload(caller, victim).await;
        }
    }

    /// After its answer.
    fn end(&self, number: usize) {
        let mut order = self.order.lock().unwrap();
        if let Some((_, calls)) = order.iter_mut().find(|(loaded, _)| *loaded == number) {
            *calls -= 1;
        }
    }
}

// What is printed.

fn verdict(what: &str, ratio: f64, target: f64) {
    let shown = |ratio: f64| if ratio < 1.0 { format!("1/{:.1}", 1.0 / ratio) } else { format!("{ratio:.2}") };
    let outcome = if ratio <= target { "reached" } else { "MISSED" };
    println!("  => {what}: {}, to reach {}: {outcome}", shown(ratio), shown(target));
}

/// What lies at this share of the way through, shortest first.
fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)]
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn machine() -> String {
    let information = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let found = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        found.trim_start_matches([':', ' ', '\t']).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let versions = "import mlflow, platform, sklearn\n\
                    print('MLflow', mlflow.__version__, 'scikit-learn', sklearn.__version__, end=', ')\n\
                    print('Python', platform.python_version(), end='')";
    let (processor, memory) = (information("/proc/cpuinfo", "model name"), information("/proc/meminfo", "MemTotal"));
    format!("{cores} cores of {processor}, {memory}, {}", python(versions, &[]))
}

fn load_average() -> String {
    let averages = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    averages.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
