//! Measures conditions that Python evaluates, without a broker and a model: one request at a time, many at once, and a
//! body of 1 MB. The other side is one Python process that does nothing else: it makes a Flask request and evaluates the
//! same expression; of the large body it only reads the JSON.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use signalbox::config;
use signalbox::evaluators::Evaluators;
use signalbox::message::Request;
use signalbox::models::Models;
use signalbox::routing::{LoadReading, RoutingTable};
use signalbox::telemetry::{Metrics, Readiness};

use crate::routing::{request, route, table};
use crate::statistics::median;
use crate::table::{Reach, Row};

const EXPRESSION: &str = "re.search('specific', request.json['dataframe_split']['data'][0][0])";
/// The same for a process that has no module `re` by name.
const BARE_EXPRESSION: &str = "__import__('re').search('specific', request.json['dataframe_split']['data'][0][0])";
const ONE_BY_ONE: usize = 4_000;
const LARGE: usize = 50;
const CALLERS: usize = 256;
const LOAD: Duration = Duration::from_secs(3);
/// Number of turns of the two sides, so that a noisy minute hits both.
const TURNS: usize = 5;

/// A table with one condition for Python, and the evaluators that it needs.
struct Evaluation {
    table: Arc<RoutingTable>,
    evaluators: Evaluators,
    models: Models,
}

pub(crate) fn run() -> Vec<Row> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let python = config::environment("SIGNALBOX_TEST_PYTHON").expect("SIGNALBOX_TEST_PYTHON names an interpreter");
    let (small, large) = (request(1 << 10), request(1 << 20));
    let directory = tempfile::tempdir().unwrap();
    let [small_file, large_file] = [("small", &small), ("large", &large)].map(|(name, request)| {
        let path = directory.path().join(name);
        std::fs::write(&path, request.payload.as_deref().unwrap()).unwrap();
        path
    });
    let (mut ours, mut theirs): ([Vec<f64>; 3], [Vec<f64>; 3]) = Default::default();
    runtime.block_on(async {
        let evaluation = Evaluation::start(&python);
        evaluation.load(&small, Duration::from_millis(500)).await;
        for _ in 0..TURNS {
            let one = 1e6 * evaluation.seconds(&small, ONE_BY_ONE).await;
            let (under_load, large) =
                (evaluation.load(&small, LOAD).await, 1e3 * evaluation.seconds(&large, LARGE).await);
            let bare = bare(&python, &small_file, &large_file);
            println!("one {one:.0} µs, {under_load:.0}/s, 1 MB {large:.2} ms; Python alone {bare:?}");
            [one, under_load, large].into_iter().zip(&mut ours).for_each(|(figure, all)| all.push(figure));
            bare.into_iter().zip(&mut theirs).for_each(|(figure, all)| all.push(figure));
        }
        evaluation.evaluators.shutdown().await;
        evaluation.models.shutdown().await;
    });
    let ([one, under_load, large], [bare, bare_rate, loads]) = (ours.map(median), theirs.map(median));
    let row = |what, against, ours, theirs, unit, reach| Row { what, against, ours, theirs, unit, reach };
    let alone = "one Python process that does nothing else";
    vec![
        row("a condition that Python evaluates, 1 KB, one at a time", alone, one, bare, "µs", Reach::Open),
        row("such decisions, 256 requests at once", alone, under_load, bare_rate, "/s", Reach::Open),
        row("the same condition, 1 MB", "json.loads of the body", large, loads, "ms", Reach::AtMost(1.0)),
    ]
}

impl Evaluation {
    fn start(python: &str) -> Self {
        let (metrics, readiness) = (Metrics::new().unwrap(), Readiness::default());
        let template = config::Template { libraries: Vec::new(), exclude: Vec::new() };
        let models = config::Models { python: python.to_owned(), template, ..Default::default() };
        let models = Models::start(&models, &config::Registry::default(), &metrics).unwrap();
        let conditions = config::Conditions { timeout: Duration::from_secs(5), ..Default::default() };
        let evaluators = Evaluators::start(&conditions, &models, python, &metrics, &readiness);
        let table = Arc::new(table(vec![route("fast", None), route("accurate", Some(EXPRESSION))]));
        Self { table, evaluators, models }
    }

    /// Decides one request after the other, and returns the median of the seconds of a decision.
    async fn seconds(&self, request: &Arc<Request>, times: usize) -> f64 {
        let (table, evaluators, request) = (Arc::clone(&self.table), self.evaluators.clone(), Arc::clone(request));
        // A task of its own, since requests are decided in such.
        let deciding = tokio::spawn(async move {
            let mut seconds = Vec::with_capacity(times);
            for _ in 0..times {
                let begun = Instant::now();
                decide(&table, &evaluators, &request).await;
                seconds.push(begun.elapsed().as_secs_f64());
            }
            seconds
        });
        median(deciding.await.unwrap())
    }

    /// Decides many requests at once for this time, and returns the number of decisions in a second.
    async fn load(&self, request: &Arc<Request>, time: Duration) -> f64 {
        let begun = Instant::now();
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (table, evaluators) = (Arc::clone(&self.table), self.evaluators.clone());
                let request = Arc::clone(request);
                tokio::spawn(async move {
                    let mut decided = 0;
                    while begun.elapsed() < time {
                        decide(&table, &evaluators, &request).await;
                        decided += 1;
                    }
                    decided
                })
            })
            .collect();
        let mut decided = 0;
        for caller in callers {
            decided += caller.await.unwrap();
        }
        f64::from(decided) / begun.elapsed().as_secs_f64()
    }
}

async fn decide(table: &RoutingTable, evaluators: &Evaluators, request: &Arc<Request>) {
    let endpoint = table.endpoint(request).unwrap();
    let question = endpoint.question_about(request).unwrap().unwrap();
    let answers = Arc::new(evaluators.ask(question, request).await);
    let decision = endpoint.decide_by_load(request, Some(&answers), |_| LoadReading::default());
    assert_eq!(decision.unwrap().route, 1);
}

/// Has one Python process evaluate the same: microseconds, evaluations in a second, and milliseconds of the large body.
fn bare(python: &str, small: &Path, large: &Path) -> [f64; 3] {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/pipeline/evaluation.py");
    let said = Command::new(python).args([program, BARE_EXPRESSION]).args([small, large]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let figures: Vec<f64> =
        String::from_utf8_lossy(&said.stdout).split_whitespace().map(|figure| figure.parse().unwrap()).collect();
    figures.try_into().unwrap()
}
