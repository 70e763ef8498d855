//! Requests that go together are answered as if each had gone alone.

mod oracle;
mod poison;

use std::collections::HashMap;

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{Answer, Caller, Dice, Hosting, Mlflow, Signalbox, zoo};

/// How often the rows of each payload are dealt to requests, and how many of these a model is asked at once, twice. With
/// `SIGNALBOX_TEST_LONG` ten times as many.
const SPLITS: usize = 3;
const REQUESTS: usize = 120;
const ROUNDS: usize = 2;

/// One model of the zoo, and what it is asked; see `payloads.py`.
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn together_each_gets_the_answer_that_it_gets_alone() {
    let animals: Vec<Animal> = serde_json::from_slice(&std::fs::read(zoo()).unwrap()).unwrap();
    let mut hosting = Hosting::of(Mlflow::shared());
    for Animal { name, .. } in &animals {
        let uri = format!("models:/{name}/1");
        hosting = hosting.endpoint_with(&format!("alone-{name}"), &uri, "60s", ", batch: off");
        hosting = hosting.endpoint(&format!("together-{name}"), &uri);
    }
    let signalbox = hosting.start();
    let caller = Caller::of(&signalbox);
    let mut dice = Dice::new(11);
    let (mut asked, mut differences) = (0, Vec::new());
    for animal in &animals {
        let mut requests: Vec<Payload> = animal.requests(&mut dice);
        shuffle(&mut requests, &mut dice);
        requests.truncate(REQUESTS * length());
        let (alone, together) = (format!("alone-{}", animal.name), format!("together-{}", animal.name));
        let mut expected: HashMap<_, Answer> = HashMap::new();
        for request in &requests {
            if !expected.contains_key(&request.asks()) {
                expected.insert(request.asks(), request.ask(&caller, &alone).await);
            }
        }
        for _ in 0..ROUNDS {
            let mut order: Vec<&Payload> = requests.iter().collect();
            shuffle(&mut order, &mut dice);
            let answers = join_all(order.iter().map(|request| request.ask(&caller, &together))).await;
            for (request, answer) in order.iter().zip(answers) {
                let expected = &expected[&request.asks()];
                if said(&answer) != said(expected) {
                    let (what, text) = (&request.what, request.text.as_deref().unwrap());
                    let (alone, together) = (said(expected), said(&answer));
                    differences.push(format!("{}, {what}: {text}\n  {alone:?}\n  {together:?}", animal.name));
                }
                asked += 1;
            }
        }
    }
    let mut summary = Vec::new();
    for Animal { name, .. } in &animals {
        let labels = format!("{{endpoint=\"together-{name}\",route=\"only\"}}");
        let (rows, calls) = (metric(&caller, "rows_sum", &labels).await, metric(&caller, "rows_count", &labels).await);
        let singly = caller.model(&format!("{name}/1")).await.unwrap().singly;
        summary.push(format!("{name}: {calls} calls of {:.1} rows, {singly:?}", rows / calls.max(1.0)));
    }
    println!("{asked} requests to {} models\n{}", animals.len(), summary.join("\n"));
    let shown = differences.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{} of {asked} differ:\n{shown}", differences.len());
    let joined = summary.iter().filter(|line| line.ends_with("None") && !line.contains(" 1.0 rows")).count();
    assert!(joined * 2 > animals.len() || animals.len() < 4, "only {joined} models were called with batches");
}

async fn metric(caller: &Caller, name: &str, labels: &str) -> f64 {
    caller.metric(&format!("signalbox_batch_{name}{labels}")).await
}

/// What matters of an answer: the bytes of the predictions, or the fault without its correlation id.
fn said(answer: &Answer) -> (u16, String) {
    match answer.status {
        200 => (200, answer.text()),
        status => (status, answer.fault().1),
    }
}

impl Animal {
    /// Its payloads, as far as they are text, and each of those again in parts.
    fn requests(&self, dice: &mut Dice) -> Vec<Payload> {
        let texts = self.payloads.iter().filter(|payload| payload.text.is_some());
        let (long, mut requests): (Vec<_>, Vec<_>) =
            texts.cloned().partition(|payload| payload.what == "two hundred rows");
        for payload in requests.clone().iter().chain(&long) {
            for _ in 0..SPLITS * length() {
                let parts = payload.parts(dice).into_iter().take(12);
                requests.extend(parts.map(|text| Payload { text: Some(text), ..payload.clone() }));
            }
        }
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

    /// Its rows, dealt to several payloads of the same kind, some of which get several.
    fn parts(&self, dice: &mut Dice) -> Vec<String> {
        let text = self.text.as_deref().unwrap();
        if self.content_type == "text/csv" {
            let Some((header, lines)) = text.split_once('\n') else { return Vec::new() };
            let lines: Vec<&str> = lines.lines().collect();
            return dealt(&lines, dice).iter().map(|lines| format!("{header}\n{}\n", lines.join("\n"))).collect();
        }
        let Ok(document) = serde_json::from_str::<Value>(text) else { return Vec::new() };
        for pointer in ["/dataframe_split/data", "/dataframe_records", "/inputs", "/instances"] {
            match document.pointer(pointer) {
                Some(Value::Array(rows)) => {
                    let part = |rows: &Vec<&Value>| {
                        let mut part = document.clone();
                        *part.pointer_mut(pointer).unwrap() = json!(rows);
                        if let Some(index) = part.pointer_mut("/dataframe_split/index") {
                            *index = json!((0..rows.len()).collect::<Vec<_>>());
                        }
                        part.to_string()
                    };
                    return dealt(&rows.iter().collect::<Vec<_>>(), dice).iter().map(part).collect();
                }
                Some(Value::Object(columns)) if columns.values().all(Value::is_array) => {
                    let rows = columns.values().map(|column| column.as_array().unwrap().len()).min().unwrap_or(0);
                    let part = |rows: &Vec<usize>| {
                        let pick = |column: &Value| rows.iter().map(|row| column[*row].clone()).collect::<Value>();
                        let columns = columns.iter().map(|(name, column)| (name.clone(), pick(column)));
                        json!({"inputs": columns.collect::<Value>()}).to_string()
                    };
                    return dealt(&(0..rows).collect::<Vec<_>>(), dice).iter().map(part).collect();
                }
                _ => {}
            }
        }
        Vec::new()
    }
}

fn length() -> usize {
    if std::env::var_os("SIGNALBOX_TEST_LONG").is_some() { 10 } else { 1 }
}

fn shuffle<T>(items: &mut [T], dice: &mut Dice) {
    (1..items.len()).rev().for_each(|last| items.swap(last, dice.below(last + 1)));
}

fn dealt<T: Copy>(rows: &[T], dice: &mut Dice) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    let mut left = rows;
    while !left.is_empty() {
        let (part, rest) = left.split_at((1 + dice.below(3)).min(left.len()));
        parts.push(part.to_vec());
        left = rest;
    }
    parts
}
