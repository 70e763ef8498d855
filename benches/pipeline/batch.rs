//! Rows a second through a real model with requests of one row each, joined and not, beside a bare Python loop; and what
//! it costs when some of them are poisoned.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::runtime::Runtime;

use super::models::{payload, registry};
use super::served::Served;
use super::statistics::{at, milliseconds};
use super::support::{Caller, Kafka, Mlflow, Setup, Signalbox, python, wait_until};
use super::table::{Reach, Row};

/// Requests that wait in the topic before Signalbox starts; fewer where each is a call of its own.
const REQUESTS: usize = 40_000;
const SINGLE_REQUESTS: usize = 4_000;
/// How many of them are poisoned: one in so many.
const ONE_IN: usize = 100;
/// One by one, of `mlflow models serve`; as many before are not counted.
const SERVED_CALLS: usize = 300;
/// Requests one at a time, with batches and without in turn.
const CALLS: usize = 400;

const REACH_SERVED: Reach = Reach::AtLeast(40.0);
const REACH: Reach = Reach::AtLeast(0.7);
const REACH_POISONED: Reach = Reach::AtLeast(2.0 / 3.0);

/// Rows a second of `predict` with frames of 64 rows, and with one row.
const BARE: &str = "
import sys, time, warnings
import mlflow, pandas as pd
warnings.filterwarnings('ignore')
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model('models:/model-1@champion')
for rows, times in ((64, 300), (1, 600)):
    frames = [pd.DataFrame({'text': [f'This product {n} {m} is great' for m in range(rows)]}) for n in range(times)]
    for frame in frames[:50]:
        model.predict(frame)
    begun = time.perf_counter()
    for frame in frames:
        model.predict(frame)
    print(rows * times / (time.perf_counter() - begun))
";

/// A model that minds what one of its rows says, beside one that minds what is missing.
const PICKY: &str = "
import sys, mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
mlflow.set_tracking_uri(sys.argv[1])
class Picky(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        if any(text.startswith('poison') for text in model_input['text']):
            raise ValueError('poisoned')
        return list(model_input['text'])
mlflow.pyfunc.log_model(name='model', python_model=Picky(), registered_model_name='picky',
    signature=ModelSignature(inputs=Schema([ColSpec('string', 'text')])), pip_requirements=['mlflow'])
";

pub(super) fn run() -> Vec<Row> {
    let (kafka, mlflow) = (Kafka::shared(), registry(1));
    python(PICKY, &[&mlflow.tracking_uri()]);
    let bare = python(BARE, &[&mlflow.tracking_uri()]);
    let bare: Vec<f64> = bare.lines().map(|line| line.parse().unwrap()).collect();
    let tracking_uri = mlflow.tracking_uri();
    let (fast, picky) = ("models:/model-1@champion", "models:/picky/1");
    let fine = |n: usize| format!("\"This product {n} is great\"");
    let missing = |n: usize| if n % ONE_IN == 7 { "null".to_owned() } else { fine(n) };
    let poisoned = |n: usize| if n % ONE_IN == 7 { format!("\"poison {n}\"") } else { fine(n) };
    let run = |model, keys, count, text: &dyn Fn(usize) -> String| rate(kafka, &tracking_uri, model, keys, count, text);
    let joined = run(fast, "", REQUESTS, &fine);
    let single = run(fast, ", batch: off", SINGLE_REQUESTS, &fine);
    let lacking = run(fast, "", REQUESTS, &missing);
    let plain = run(picky, "", REQUESTS, &fine);
    let poison = run(picky, "", REQUESTS, &poisoned);

    println!("\n{:<66} {:>9} {:>9}", "requests of one row over Kafka, rows/s", "rows/s", "ratio");
    let row = |name: &str, rate: f64, beside: f64| println!("{name:<66} {rate:>9.0} {:>9.2}", rate / beside);
    row("a Python loop that calls predict, 64 rows a frame", bare[0], bare[0]);
    row("a Python loop that calls predict, 1 row a frame", bare[1], bare[0]);
    row("signalbox", joined, bare[0]);
    row("signalbox, batch: off", single, bare[0]);
    row("signalbox, 1 % of the rows lack their text", lacking, joined);
    row("signalbox, a model that minds what a row says", plain, bare[0]);
    row("signalbox, the same, and 1 % of the rows say it", poison, plain);
    let served = Runtime::new().unwrap().block_on(one_by_one(mlflow));
    row("mlflow models serve, one call after the other", served, bare[0]);
    Runtime::new().unwrap().block_on(one_at_a_time(mlflow));

    let unit = "rows/s";
    vec![
        Row {
            what: "rows through a real model, one a request",
            against: "a bare loop that calls predict on 64 rows",
            ours: joined,
            theirs: bare[0],
            unit,
            reach: REACH,
        },
        Row {
            what: "the same",
            against: "one-by-one calls of mlflow models serve",
            ours: joined,
            theirs: served,
            unit,
            reach: REACH_SERVED,
        },
        Row {
            what: "the same, 1 % of the rows lack their text",
            against: "the same, none does",
            ours: lacking,
            theirs: joined,
            unit,
            reach: REACH_POISONED,
        },
        Row {
            what: "rows through a model that minds 1 % of them",
            against: "the same, it minds none",
            ours: poison,
            theirs: plain,
            unit,
            reach: REACH_POISONED,
        },
    ]
}

/// Rows a second, from the first tenth of the replies to the last.
fn rate(
    kafka: &Kafka,
    tracking_uri: &str,
    model: &str,
    keys: &str,
    count: usize,
    text: &dyn Fn(usize) -> String,
) -> f64 {
    let setup = Setup::new(kafka);
    for n in 0..count {
        let payload = format!(r#"{{"dataframe_split": {{"columns": ["text"], "data": [[{}]]}}}}"#, text(n));
        kafka.send(&setup.requests, Some(&n.to_string()), &[], payload.as_bytes());
        if n % 10_000 == 0 {
            kafka.flush();
        }
    }
    kafka.flush();
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let replies = || -> usize {
        let end = |partition| consumer.fetch_watermarks(&setup.replies, partition, Duration::from_secs(10)).unwrap().1;
        usize::try_from((0..4).map(end).sum::<i64>()).unwrap()
    };
    let endpoint = format!("\n  - {{name: only, routes: [{{model_uri: \"{model}\", alias: only{keys}}}]}}\n");
    let _signalbox = Signalbox::start(&setup.config(&endpoint, "", tracking_uri));
    let at = |share: usize| {
        let reached = || Some(replies()).filter(|replies| *replies >= share);
        (wait_until("the replies", Duration::from_secs(600), reached), Instant::now())
    };
    let ((first, begun), (last, ended)) = (at(count / 10), at(count));
    (last - first) as f64 / ended.duration_since(begun).as_secs_f64()
}

/// Calls a second of `mlflow models serve`, each after the answer to the one before.
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

/// Whether there is a difference when nobody else waits.
async fn one_at_a_time(mlflow: &Mlflow) {
    let uri = "models:/model-1@champion";
    let hosting = super::support::Hosting::of(mlflow);
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
