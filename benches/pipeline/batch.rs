//! Measures rows a second through real models with requests of one row and of eight, joined and not, beside a bare
//! Python loop.

use std::sync::Once;
use std::time::Instant;

use tokio::runtime::Runtime;

use super::backlog::{Backlog, signalbox};
use super::models::{over_kafka, payload, registry};
use super::served::Served;
use super::statistics::{at, median, milliseconds};
use super::support::{Caller, Hosting, Kafka, Mlflow, Setup, python};
use super::table::{Reach, Row};

/// Requests that wait in the topic before Signalbox starts; fewer where each is a call of its own, or has many rows.
const REQUESTS: usize = 40_000;
const SINGLE_REQUESTS: usize = 3_000;
const EIGHTFOLD_REQUESTS: usize = 10_000;
/// Number of turns of the two sides, so that a noisy minute hits both.
const TURNS: usize = 2;
/// Calls of `mlflow models serve`, one by one; as many before them are not counted.
const SERVED_CALLS: usize = 300;
/// Requests sent one at a time, with batches and without in turn.
const CALLS: usize = 300;

const REACH_SERVED: Reach = Reach::AtLeast(40.0);
const REACH: Reach = Reach::AtLeast(0.7);

/// Script that measures rows a second of `predict` with frames of 64 rows, and with one row.
const BARE: &str = "
import sys, time, warnings
import mlflow, pandas as pd
warnings.filterwarnings('ignore')
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
ROWS = {
    'text': lambda n: f'This product {n} is great',
    'a b c d e f g h': lambda n: [n * (7 + column) % 100 / 100 for column in range(8)],
}
columns = sys.argv[3]
for rows, times in ((64, 200), (1, 400)):
    frames = [
        pd.DataFrame([ROWS[columns](n * rows + m) for m in range(rows)], columns=columns.split()) for n in range(times)
    ]
    for frame in frames[:50]:
        model.predict(frame)
    begun = time.perf_counter()
    for frame in frames:
        model.predict(frame)
    print(rows * times / (time.perf_counter() - begun))
";

/// Script that registers a random forest over a table of numbers.
const REGISTER: &str = "
import sys
import mlflow, numpy as np, pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from sklearn.ensemble import RandomForestClassifier
mlflow.set_tracking_uri(sys.argv[1])
numbers = pd.DataFrame(np.random.default_rng(20).random((2000, 8)), columns=list('abcdefgh'))
forest = RandomForestClassifier(n_estimators=50, random_state=20).fit(numbers, numbers['a'] + numbers['b'] > numbers['c'])
mlflow.sklearn.log_model(forest, name='model', registered_model_name='forest', pip_requirements=['mlflow'],
    signature=ModelSignature(inputs=Schema([ColSpec('double', column) for column in numbers])),
    skops_trusted_types=['sklearn.tree._tree.Tree'])
";

pub(crate) const TEXT: &str = "models:/model-1@champion";
/// URI of the random forest, once it is registered.
pub(crate) const FOREST: &str = "models:/forest/1";

/// Holds rows a second: of the bare loop with 64 rows a frame and with one, and of Signalbox with one row a request and
/// eight.
struct Rates {
    frames: f64,
    rows: f64,
    one: f64,
    eight: f64,
}

pub(super) fn run() -> Vec<Row> {
    let mlflow = registry(1);
    let tracking_uri = mlflow.tracking_uri();
    register_forest(&tracking_uri);
    let rate = |model, keys, rows, backlog| rate(&tracking_uri, model, keys, rows, backlog);
    let rates = |model, columns, one, eight| {
        let turns: [_; TURNS] = std::array::from_fn(|_| {
            let bare = python(BARE, &[&tracking_uri, model, columns]);
            let bare: Vec<f64> = bare.lines().map(|line| line.parse().unwrap()).collect();
            let one = rate(model, "", 1, Backlog::with(REQUESTS, one));
            let eight = rate(model, "", 8, Backlog::with(EIGHTFOLD_REQUESTS, eight));
            Rates { frames: bare[0], rows: bare[1], one, eight }
        });
        let middle = |value: fn(&Rates) -> f64| median(turns.iter().map(value));
        Rates {
            frames: middle(|it| it.frames),
            rows: middle(|it| it.rows),
            one: middle(|it| it.one),
            eight: middle(|it| it.eight),
        }
    };
    let text = rates(TEXT, "text", texts::<1>, texts::<8>);
    let single = rate(TEXT, ", batch: off", 1, Backlog::with(SINGLE_REQUESTS, texts::<1>));
    let forest = rates(FOREST, "a b c d e f g h", numbers::<1>, numbers::<8>);

    println!("\n{:<66} {:>9} {:>9}", "requests that wait in Kafka, rows/s", "rows/s", "ratio");
    let row = |name: &str, rate: f64, beside: f64| println!("{name:<66} {rate:>9.0} {:>9.2}", rate / beside);
    for (name, rates) in [("text model", &text), ("random forest", &forest)] {
        let row = |what: &str, rate: f64| row(&format!("{name}: {what}"), rate, rates.frames);
        row("a Python loop that calls predict, 64 rows a frame", rates.frames);
        row("a Python loop that calls predict, 1 row a frame", rates.rows);
        row("signalbox, 1 row a request", rates.one);
        row("signalbox, 8 rows a request", rates.eight);
    }
    row("text model: signalbox, 1 row a request, batch: off", single, text.frames);
    let served = Runtime::new().unwrap().block_on(one_by_one(mlflow));
    row("text model: mlflow models serve, one call after the other", served, text.frames);
    Runtime::new().unwrap().block_on(one_at_a_time(mlflow));

    let beside =
        |what, against, [ours, theirs]: [f64; 2], reach| Row { what, against, ours, theirs, unit: "rows/s", reach };
    let loops = "a bare loop that calls predict on 64 rows";
    vec![
        beside("rows through a text model, 1 a request", loops, [text.one, text.frames], REACH),
        beside("the same, 8 a request", loops, [text.eight, text.frames], REACH),
        beside("rows through a random forest, 1 a request", loops, [forest.one, forest.frames], REACH),
        beside("the same, 8 a request", loops, [forest.eight, forest.frames], REACH),
        beside(
            "rows through a text model, 1 a request",
            "one-by-one calls of mlflow models serve",
            [text.one, served],
            REACH_SERVED,
        ),
    ]
}

pub(crate) fn register_forest(tracking_uri: &str) {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| drop(python(REGISTER, &[tracking_uri])));
}

/// Measures rows a second of Signalbox.
pub(crate) fn rate(tracking_uri: &str, model: &str, keys: &str, rows: usize, backlog: Backlog) -> f64 {
    let endpoint = format!("\n  - {{name: only, routes: [{{model_uri: \"{model}\", alias: only{keys}}}]}}\n");
    let start = |setup: &Setup<'_>| signalbox(&setup.config(&endpoint, "", tracking_uri));
    let begun = Instant::now();
    let rate = backlog.measure(Kafka::shared(), start).per_second * rows as f64;
    println!("{:>6.1} s: {model}{keys}, {rows} rows a request: {rate:.0} rows/s", begun.elapsed().as_secs_f64());
    rate
}

pub(crate) fn texts<const ROWS: usize>(n: usize) -> Vec<u8> {
    let text = |row| format!("\"This product {} is great\"", n * ROWS + row);
    of_texts(&std::array::from_fn::<_, ROWS, _>(text))
}

pub(crate) fn of_texts(texts: &[String]) -> Vec<u8> {
    let rows: Vec<_> = texts.iter().map(|text| format!("[{text}]")).collect();
    split(r#""text""#, &rows)
}

pub(crate) fn numbers<const ROWS: usize>(n: usize) -> Vec<u8> {
    let cell = |row, column| format!("{:?}", ((n * ROWS + row) * (7 + column) % 100) as f64 / 100.0);
    of_numbers(&std::array::from_fn::<[String; 8], ROWS, _>(|row| std::array::from_fn(|column| cell(row, column))))
}

pub(crate) fn of_numbers(rows: &[[String; 8]]) -> Vec<u8> {
    let columns = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|column| format!("\"{column}\"")).join(", ");
    let rows: Vec<_> = rows.iter().map(|cells| format!("[{}]", cells.join(", "))).collect();
    split(&columns, &rows)
}

fn split(columns: &str, rows: &[String]) -> Vec<u8> {
    format!(r#"{{"dataframe_split": {{"columns": [{columns}], "data": [{}]}}}}"#, rows.join(", ")).into_bytes()
}

/// Measures calls a second of `mlflow models serve`, each after the answer to the one before.
async fn one_by_one(mlflow: &Mlflow) -> f64 {
    let (served, _) = Served::start(mlflow, 1).await;
    for _ in 0..SERVED_CALLS {
        served.ask().await;
    }
    let begun = Instant::now();
    for _ in 0..SERVED_CALLS {
        served.ask().await;
    }
    SERVED_CALLS as f64 / begun.elapsed().as_secs_f64()
}

/// Measures the latency of a single request with batches and without, when no other waits.
async fn one_at_a_time(mlflow: &Mlflow) {
    let uri = "models:/model-1@champion";
    let hosting = over_kafka(Hosting::of(mlflow));
    let signalbox = hosting.endpoint("joined", uri).endpoint_with("single", uri, "60s", ", batch: off").start();
    let caller = Caller::of(&signalbox);
    let mut took = [Vec::new(), Vec::new()];
    for call in 0..CALLS + 20 {
        for (endpoint, took) in ["joined", "single"].iter().zip(&mut took) {
            let answer = caller.ask(endpoint, &payload()).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            if call >= 20 {
                took.push(answer.took);
            }
        }
    }
    println!("\n{:<66} {:>9} {:>9}", "one request at a time over HTTP, ms", "p50", "p99");
    for (name, took) in ["signalbox", "signalbox, batch: off"].iter().zip(&mut took) {
        took.sort_unstable();
        println!("{name:<66} {:>9.2} {:>9.2}", milliseconds(at(took, 0.5)), milliseconds(at(took, 0.99)));
    }
}
