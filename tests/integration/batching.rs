//! Covers requests that go together: each is answered as if it had gone alone.

mod company;
mod http;
mod oracle;
mod poison;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use signalbox::invocation::body::is_same_but_for_rounding;

use crate::support::{Answer, Caller, Dice, Hosting, Mlflow, Signalbox, mlflow_environment, zoo};

/// Number of requests that a model is asked at once; with `SIGNALBOX_TEST_LONG` ten times as many.
const REQUESTS: usize = 60;
/// Number of further requests, which are a payload's rows in other combinations; ten times as many in the long version.
const COMBINED: usize = 120;

/// Models whose answers are not one for each row, or number the rows: nobody could say that their requests may go
/// together.
const NOT_BY_ROW: [&str; 6] = [
    "returns-a-dict",
    "returns-a-frame",
    "returns-a-scalar",
    "returns-what-is-missing",
    "returns-what-json-has-not",
    "takes-a-chat",
];

/// Describes one model of the zoo, and its payloads; see `payloads.py`.
#[derive(Debug, Deserialize)]
struct Animal {
    name: String,
    payloads: Vec<Payload>,
}

#[derive(Debug, Clone, Deserialize)]
struct Payload {
    what: String,
    content_type: String,
    text: Option<String>,
    answered: Option<bool>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn batched_requests_get_same_answers_as_single_ones() {
    let animals: Vec<Animal> = serde_json::from_slice(&std::fs::read(zoo()).unwrap()).unwrap();
    let mut hosting = Hosting::of(Mlflow::shared());
    for Animal { name, .. } in &animals {
        let uri = format!("models:/{name}/1");
        hosting = hosting.endpoint_with(&format!("alone-{name}"), &uri, "60s", ", batch: off");
        let keys = if NOT_BY_ROW.contains(&name.as_str()) { "" } else { ", batch: on" };
        hosting = hosting.endpoint_with(&format!("together-{name}"), &uri, "60s", keys);
    }
    let signalbox = hosting.start();
    let caller = Caller::of(&signalbox);
    let mut dice = Dice::new(11);
    let (mut asked, mut differences) = (0, Vec::new());
    for animal in &animals {
        let requests: Vec<Payload> = animal.requests(&mut dice);
        let (alone, together) = (format!("alone-{}", animal.name), format!("together-{}", animal.name));
        let mut expected: HashMap<_, Answer> = HashMap::new();
        for request in &requests {
            if let Entry::Vacant(unknown) = expected.entry(request.asks()) {
                unknown.insert(request.ask(&caller, &alone).await);
            }
        }
        let answers = join_all(requests.iter().map(|request| request.ask(&caller, &together))).await;
        for (request, answer) in requests.iter().zip(answers) {
            let expected = &expected[&request.asks()];
            let ((status, body), (status_alone, alone)) = (said(&answer), said(expected));
            if status != status_alone || !is_same_but_for_rounding(body.as_bytes(), alone.as_bytes()) {
                let (what, text) = (&request.what, request.text.as_deref().unwrap());
                let (alone, together) = (said(expected), said(&answer));
                differences.push(format!("{}, {what}: {text}\n  {alone:?}\n  {together:?}", animal.name));
            }
            asked += 1;
        }
    }
    let mut summary = Vec::new();
    for Animal { name, .. } in &animals {
        let labels = format!("{{endpoint=\"together-{name}\",route=\"only\"}}");
        let (rows, calls) = (metric(&caller, "rows_sum", &labels).await, metric(&caller, "rows_count", &labels).await);
        let model = caller.model(&format!("{name}/1")).await.unwrap();
        let (by, singly, size) = (model.batched_by.as_deref().unwrap_or("nobody"), model.singly, rows / calls.max(1.0));
        summary.push(format!("{name}: {calls} calls of {size:.1} rows, batched by {by}, {singly:?}"));
    }
    println!("{asked} requests to {} models\n{}", animals.len(), summary.join("\n"));
    let shown = differences.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{} of {asked} differ:\n{shown}", differences.len());
    let joined = |by: &str| summary.iter().filter(|it| it.contains(by) && !it.contains(" 1.0 rows")).count();
    let (known, vouched) = (joined("batched by model"), joined("batched by route"));
    assert!(known >= 12 && vouched >= 6 || animals.len() < 20, "{known} and {vouched} models were called with batches");
}

async fn metric(caller: &Caller, name: &str, labels: &str) -> f64 {
    caller.metric(&format!("signalbox_batch_{name}{labels}")).await
}

/// Returns the part of an answer that matters: the bytes of the predictions, or the fault without its correlation id.
fn said(answer: &Answer) -> (u16, String) {
    match answer.status {
        200 => (200, answer.text()),
        status => (status, answer.fault().1),
    }
}

impl Animal {
    /// Collects some of the model's payloads, as far as they are text, and of their parts; and many that combine the
    /// rows of one.
    fn requests(&self, dice: &mut Dice) -> Vec<Payload> {
        let mut requests: Vec<_> = self.payloads.iter().filter(|payload| payload.text.is_some()).cloned().collect();
        let whole: Vec<_> =
            requests.iter().filter(|it| it.answered == Some(true) && it.rows().len() > 1).cloned().collect();
        for payload in requests.clone() {
            let parts = payload.rows().chunks(2).map(|rows| payload.with(rows)).collect::<Vec<_>>();
            requests.extend(parts.into_iter().take(8));
        }
        shuffle(&mut requests, dice);
        requests.truncate(REQUESTS * length());
        if !whole.is_empty() {
            let payload = &whole[dice.below(whole.len())];
            let rows = payload.rows();
            for _ in 0..COMBINED * length() {
                let some: Vec<_> = (0..1 + dice.below(3)).map(|_| rows[dice.below(rows.len())].clone()).collect();
                requests.push(payload.with(&some));
            }
        }
        shuffle(&mut requests, dice);
        requests
    }
}

impl Payload {
    fn asks(&self) -> (&str, &str) {
        (&self.content_type, self.text.as_deref().unwrap())
    }

    async fn ask(&self, caller: &Caller, endpoint: &str) -> Answer {
        caller.send(endpoint, &self.content_type, self.text.clone().unwrap().into_bytes()).await.unwrap()
    }

    /// Splits the payload into its rows, each as a payload with that row alone; returns none when the payload is not
    /// one of rows.
    fn rows(&self) -> Vec<Row> {
        let text = self.text.as_deref().unwrap();
        if self.content_type == "text/csv" {
            return text.lines().skip(1).map(|line| Row::Line(line.to_owned())).collect();
        }
        let Some(document) = serde_json::from_str::<Value>(text).ok().filter(Value::is_object) else {
            return Vec::new();
        };
        match PLACES.iter().find_map(|place| document.pointer(place)) {
            Some(Value::Array(rows)) => rows.iter().cloned().map(Row::Value).collect(),
            Some(Value::Object(columns)) if columns.values().all(Value::is_array) => {
                let length = columns.values().map(|column| column.as_array().unwrap().len()).min().unwrap_or(0);
                let row = |row| columns.values().map(|column| column[row].clone()).collect();
                (0..length).map(|index| Row::Value(row(index))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Builds the same payload with other rows.
    fn with(&self, rows: &[Row]) -> Self {
        let text = self.text.as_deref().unwrap();
        let values: Vec<&Value> =
            rows.iter().filter_map(|row| if let Row::Value(value) = row { Some(value) } else { None }).collect();
        let text = if values.is_empty() {
            let lines: Vec<&str> = rows
                .iter()
                .filter_map(|row| if let Row::Line(line) = row { Some(line.as_str()) } else { None })
                .collect();
            format!("{}\n{}\n", text.lines().next().unwrap_or_default(), lines.join("\n"))
        } else {
            let mut document: Value = serde_json::from_str(text).unwrap();
            let place = PLACES.iter().find(|place| document.pointer(place).is_some()).unwrap();
            match document.pointer_mut(place).unwrap() {
                Value::Object(columns) => {
                    for (index, column) in columns.values_mut().enumerate() {
                        *column = values.iter().map(|row| row[index].clone()).collect();
                    }
                }
                all => *all = json!(values),
            }
            if let Some(index) = document.pointer_mut("/dataframe_split/index") {
                *index = json!((0..rows.len()).collect::<Vec<_>>());
            }
            document.to_string()
        };
        Self { text: Some(text), ..self.clone() }
    }
}

#[derive(Debug, Clone)]
enum Row {
    Value(Value),
    Line(String),
}

/// Places of the rows in MLflow's formats.
const PLACES: [&str; 4] = ["/dataframe_split/data", "/dataframe_records", "/inputs", "/instances"];

fn length() -> usize {
    if std::env::var_os("SIGNALBOX_TEST_LONG").is_some() { 10 } else { 1 }
}

fn shuffle<T>(items: &mut [T], dice: &mut Dice) {
    (1..items.len()).rev().for_each(|last| items.swap(last, dice.below(last + 1)));
}
