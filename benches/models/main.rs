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
//! - `residency`: twenty models and room for ten. Signalbox decides what stays, beside strict LRU over a Signalbox
//!   without a limit: for each miss it has the least recently used model unloaded over HTTP, waits until the process has
//!   gone, and only then asks. And beside one that keeps all twenty. All three begin with all models loaded once and
//!   their files in the cache. First requests come at a steady rate, and an answer's latency is what it takes. Then a
//!   few callers keep the machine fully busy, where latency tells how much work there is in all: a load costs as much
//!   of a processor as five calls of so small a model.
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

mod batch;
mod cold;
mod memory;
mod phases;
mod residency;

use std::time::Duration;

use serde_json::{Value, json};

use batch::batch;
use cold::{COLD, cold};
use residency::{MODELS, residency};
use support::{Caller, Hosting, Mlflow, is_alive, python};

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

#[tokio::main]
async fn main() {
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = parts.iter().find(|part| !["batch", "cold", "residency"].contains(&part.as_str())) {
        panic!("there is no part {unknown}: batch, cold or residency");
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|it| it == part);

    println!("{}, load average {}", machine(), load_average());
    let mlflow = Mlflow::empty();
    let count = if wanted("cold") {
        COLD + 1
    } else if wanted("residency") {
        MODELS
    } else {
        1
    };
    python(REGISTER, &[QUICKSTART, &mlflow.tracking_uri(), &count.to_string()]);
    if wanted("batch") {
        batch(&mlflow).await;
    }
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

/// Has a model unloaded, and waits until its process has gone.
async fn unload(caller: &Caller, number: usize) {
    let id = format!("model-{number}/1");
    let pids = caller.model(&id).await.unwrap().pids;
    caller.tell(&id, "unload").await;
    while pids.iter().any(|pid| is_alive(*pid)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

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
