//! Compares models of many kinds with MLflow: each payload gets the answer that `mlflow models serve` gives, value by
//! value, errors included.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::support::{
    Answer, Caller, Hosting, Mlflow, Process, eventually, free_port, fresh_directory, mlflow_environment, zoo,
};

const SERVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/served.py");

/// Describes one model, its payloads, and the port at which MLflow's own server of it listens.
#[derive(Debug, Deserialize)]
struct Animal {
    name: String,
    payloads: Vec<Payload>,
    #[serde(skip)]
    port: u16,
}

/// Describes one payload; see `payloads.py`.
#[derive(Debug, Deserialize)]
struct Payload {
    what: String,
    content_type: String,
    text: Option<String>,
    hex: Option<String>,
    answered: Option<bool>,
}

/// Lists the models, each with a port for MLflow's own server of it.
fn animals() -> Vec<Animal> {
    let mut animals: Vec<Animal> = serde_json::from_slice(&std::fs::read(zoo()).unwrap()).unwrap();
    animals.iter_mut().for_each(|animal| animal.port = free_port());
    animals
}

/// Starts MLflow's own servers of the models, a few at a time; each until a file of its name lies in the second
/// directory.
fn serve(mlflow: &Mlflow, animals: &[Animal], directory: &std::path::Path) -> (Process, PathBuf) {
    let done = directory.join("done");
    std::fs::create_dir(&done).unwrap();
    let (python, tracking_uri) = (Mlflow::python(), mlflow.tracking_uri());
    let command = [python.to_str().unwrap(), SERVE, "--tracking-uri", &tracking_uri, "--done", done.to_str().unwrap()];
    let models = animals.iter().map(|animal| format!("{}:{}", animal.name, animal.port));
    let command = command.into_iter().map(str::to_owned).chain(models);
    // Messages of MLflow's hold sets of words, whose order depends on this.
    let mut environment = mlflow_environment();
    environment.push(("PYTHONHASHSEED", "0".into()));
    (Process::start("served", directory, &environment, command), done)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn models_answer_like_mlflow_models_serve() {
    let mlflow = Mlflow::shared();
    let directory = fresh_directory("zoo");
    let animals = animals();
    let mut hosting = Hosting::of(mlflow);
    for Animal { name, port, .. } in &animals {
        hosting = hosting.endpoint(&format!("own-{name}"), &format!("models:/{name}/1"));
        hosting = hosting.endpoint(&format!("served-{name}"), &format!("http://127.0.0.1:{port}"));
    }
    let signalbox = hosting.start();
    let caller = Caller::of(&signalbox);
    let (served, done) = serve(mlflow, &animals, &directory);

    let mut differences = Vec::new();
    let mut compared = 0;
    for animal in &animals {
        let ping = format!("http://127.0.0.1:{}/ping", animal.port);
        eventually(&format!("MLflow's server of {}", animal.name), Duration::from_secs(120), async || {
            reqwest::get(&ping).await.ok().filter(|answer| answer.status() == 200)
        })
        .await;
        for payload in &animal.payloads {
            let own = payload.ask(&caller, &format!("own-{}", animal.name)).await;
            let mut served = payload.ask(&caller, &format!("served-{}", animal.name)).await;
            // After some errors MLflow's server closes the connection, without a word that it will.
            if served.status == 503 && served.text().contains("broke before it answered") {
                served = payload.ask(&caller, &format!("served-{}", animal.name)).await;
            }
            let difference = difference(&own, &served).or_else(|| payload.mistaken(&served));
            differences.extend(difference.map(|what| format!("{}, {}: {what}", animal.name, payload.what)));
            compared += 1;
        }
        std::fs::write(done.join(&animal.name), "").unwrap();
    }
    println!("{compared} payloads of {} models compared", animals.len());
    let shown = differences.iter().take(60).map(String::as_str).collect::<Vec<_>>().join("\n\n");
    assert!(differences.is_empty(), "{} of {compared} differ:\n{shown}", differences.len());
    drop(served);
}

impl Payload {
    async fn ask(&self, caller: &Caller, endpoint: &str) -> Answer {
        let body = match (&self.text, &self.hex) {
            (Some(text), _) => text.clone().into_bytes(),
            (_, Some(hex)) => from_hex(hex),
            _ => Vec::new(),
        };
        caller.send(endpoint, &self.content_type, body).await.unwrap()
    }

    /// Tells whether the payload is not what it was written to be, which would make the comparison mean little.
    fn mistaken(&self, answer: &Answer) -> Option<String> {
        let answered = answer.status == 200;
        let expected = self.answered?;
        (expected != answered)
            .then(|| format!("should be answered: {expected}, and got {} {}", answer.status, answer.text()))
    }
}

/// Describes the difference of two answers, apart from what belongs to the request: its correlation id and its
/// endpoint.
fn difference(own: &Answer, served: &Answer) -> Option<String> {
    let facts = |answer: &Answer| {
        let headers = ["content-type", "retry-after"].map(|name| answer.header(name).to_owned());
        (answer.status, headers, comparable(answer))
    };
    let (own_text, served_text) = (own.text(), served.text());
    let (own, served) = (facts(own), facts(served));
    let is_same = own == served || blames_better(&own_text, &served_text);
    (!is_same).then(|| format!("\n     own: {own:?}\n  MLflow: {served:?}"))
}

/// Tells whether MLflow's server has failed over the request itself, where a host says whose fault that is.
fn blames_better(own: &str, served: &str) -> bool {
    let is_told = own.contains("BAD_REQUEST") || own.contains("the model's answer cannot be written as JSON");
    is_told && served.contains("(it answered 500): Internal Server Error")
}

/// Parses the body's values, or returns its text where they cannot be read. Python writes three numbers that JSON has
/// no words for.
fn comparable(answer: &Answer) -> Result<Value, String> {
    let text = answer.text();
    let mut value: Value = serde_json::from_str(&with_words_for_numbers(&text)).map_err(|_| text)?;
    if answer.status >= 400
        && let Some(fault) = value.as_object_mut()
    {
        fault.remove("correlation_id");
    }
    Ok(value)
}

/// Puts `NaN`, `Infinity` and `-Infinity` outside of strings into strings that no model of ours answers with.
fn with_words_for_numbers(text: &str) -> String {
    let mut pieces = Vec::new();
    let mut in_string = false;
    for (index, piece) in text.split_inclusive('"').enumerate() {
        let escaped =
            piece.strip_suffix('"').is_some_and(|rest| (rest.len() - rest.trim_end_matches('\\').len()) % 2 == 1);
        if in_string || index > 0 && piece.is_empty() {
            pieces.push(piece.to_owned());
        } else {
            let named = piece.replace("-Infinity", "\u{1}").replace("Infinity", "\"<infinity>\"");
            pieces.push(named.replace('\u{1}', "\"<minus infinity>\"").replace("NaN", "\"<not a number>\""));
        }
        if piece.ends_with('"') && !(in_string && escaped) {
            in_string = !in_string;
        }
    }
    pieces.concat()
}

fn from_hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn comparison_distinguishes_bare_numbers_outside_strings() {
    let text = r#"{"NaN": [NaN, -Infinity, "Infinity \" NaN", Infinity, "\\"], "x": NaN}"#;
    let expected = r#"{"NaN": ["<not a number>", "<minus infinity>", "Infinity \" NaN", "<infinity>", "\\"], "x": "<not a number>"}"#;
    assert_eq!(with_words_for_numbers(text), expected);
}
