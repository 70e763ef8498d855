//! Covers models whose answers depend on the other rows of a call: unless the model's owner says otherwise, no caller
//! gets to see that.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use futures_util::stream::{self, StreamExt};

use super::*;
use crate::support::fresh_directory;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/company.py");

/// Number of requests that each model is asked, by as many callers at once; with `SIGNALBOX_TEST_LONG` ten times as
/// many.
const REQUESTS: usize = 50;
const CALLERS: usize = 12;

/// Number of requests that come first and show nothing: each has a row of its own, and lacks nothing. Ten times as many
/// in the long version.
const CALM: usize = 15;

/// The models, which the tests share: it takes a while to save them.
static MODELS: LazyLock<(PathBuf, Vec<Kind>)> = LazyLock::new(|| {
    let directory = fresh_directory("company");
    let models = save(&directory);
    (directory, models)
});

const AMOUNTS: &[&str] = &["null", "null", "0.5", "46.84", "20.0", "-3.25", "1e6"];
const CITIES: &[&str] = &["Oslo", "Rome", "Łódź", "Oslo", "Paris", "nowhere"];

#[derive(Debug, Deserialize)]
struct Kind {
    name: String,
    kind: String,
}

fn save(directory: &Path) -> Vec<Kind> {
    let output = Command::new(Mlflow::python())
        .args([SCRIPT, directory.to_str().unwrap()])
        .envs(mlflow_environment())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&std::fs::read(directory.join("models.json")).unwrap()).unwrap()
}

fn calm_request(number: usize) -> String {
    format!(
        r#"{{"dataframe_split": {{"columns": ["amount", "city", "count"], "data": [[{number}.5, "Oslo", {}]]}}}}"#,
        number % 7
    )
}

/// Makes a request with one row, or now and then with more; many requests are equal.
fn request(dice: &mut Dice) -> String {
    let rows: Vec<_> = (0..1 + dice.below(8) / 6)
        .map(|_| {
            let (amount, city) = (AMOUNTS[dice.below(AMOUNTS.len())], CITIES[dice.below(CITIES.len())]);
            format!("[{amount}, \"{city}\", {}]", dice.below(5))
        })
        .collect();
    format!(r#"{{"dataframe_split": {{"columns": ["amount", "city", "count"], "data": [{}]}}}}"#, rows.join(", "))
}

async fn ask(caller: &Caller, endpoint: &str, request: &str) -> (u16, String) {
    said(&caller.send(endpoint, "application/json", request.as_bytes().to_vec()).await.unwrap())
}

/// Compares one model's answers to these requests, which callers ask at once, with the right ones, and lists what is
/// wrong.
async fn differences(caller: &Caller, model: &Kind, requests: &[String]) -> Vec<String> {
    let name = &model.name;
    let answers: Vec<_> = stream::iter(requests)
        .map(|request| async move { (request, ask(caller, &format!("together-{name}"), request).await) })
        .buffer_unordered(CALLERS)
        .collect()
        .await;
    if model.kind == "stateful" {
        let (calls, all) = (answers.iter().map(|(_, answer)| &answer.1).collect::<HashSet<_>>().len(), answers.len());
        return (calls < all).then(|| format!("{name}: {calls} calls for {all} requests")).into_iter().collect();
    }
    let mut alone: HashMap<&str, (u16, String)> = HashMap::new();
    let mut wrong = Vec::new();
    for (request, (status, answer)) in &answers {
        if !alone.contains_key(request.as_str()) {
            alone.insert(request, ask(caller, &format!("alone-{name}"), request).await);
        }
        let (status_alone, answer_alone) = &alone[request.as_str()];
        let is_same = match model.kind.as_str() {
            "independent" => is_same_but_for_rounding(answer.as_bytes(), answer_alone.as_bytes()),
            _ => answer == answer_alone,
        };
        if status != status_alone || !is_same {
            wrong.push(format!("{name}: {request}: {answer}, alone {answer_alone}"));
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run installs it"]
async fn answers_do_not_depend_on_other_callers() {
    let (directory, models) = &*MODELS;
    assert!(models.iter().filter(|model| model.kind != "independent").count() >= 40);
    let mut hosting = Hosting::of_directories();
    for Kind { name, .. } in models {
        let uri = directory.join(name).display().to_string();
        hosting = hosting.endpoint_with(&format!("alone-{name}"), &uri, "60s", ", batch: off");
        hosting = hosting.endpoint(&format!("together-{name}"), &uri);
    }
    let signalbox = hosting.start();
    let caller = Caller::of(&signalbox);
    let mut dice = Dice::new(23);
    let calm: Vec<_> = (0..CALM * length()).map(calm_request).collect();
    let (mut asked, mut all_wrong, mut worst, mut misjudged) = (0, Vec::new(), Vec::new(), Vec::new());
    for model in models {
        let requests: Vec<_> = (0..REQUESTS * length()).map(|_| request(&mut dice)).collect();
        // The model is loaded before so many callers come at once.
        ask(&caller, &format!("alone-{}", model.name), &requests[0]).await;
        let mut wrong = differences(&caller, model, &calm).await;
        wrong.extend(differences(&caller, model, &requests).await);
        asked += calm.len() + requests.len();
        if let Some(first) = wrong.first() {
            worst.push(format!("{} wrong, such as {first}", wrong.len()));
        }
        all_wrong.extend(wrong);
        let status = caller.model(&directory.join(&model.name).display().to_string()).await.unwrap();
        let labels = format!("{{endpoint=\"together-{}\",route=\"only\"}}", model.name);
        let rows = metric(&caller, "rows_sum", &labels).await / metric(&caller, "rows_count", &labels).await;
        let is_as_it_should = match model.kind.as_str() {
            "independent" => status.batched_by.as_deref() == Some("model") && status.singly.is_none() && rows > 1.5,
            _ => status.batched_by.is_none() && status.singly.is_some(),
        };
        if !is_as_it_should {
            misjudged.push(format!("{rows} rows a call: {status:?}"));
        }
    }
    println!("{asked} requests to {} models, {} wrong\n{}", models.len(), all_wrong.len(), worst.join("\n"));
    assert!(all_wrong.is_empty(), "{} of {asked} wrong:\n{}", all_wrong.len(), worst.join("\n"));
    assert!(misjudged.is_empty(), "{}", misjudged.join("\n"));
}

/// Covers an owner's false promise: Signalbox tests it with rows of a new kind before they are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run installs it"]
async fn false_promise_of_row_independence_is_detected() {
    let (directory, models) = &*MODELS;
    let dependent: Vec<_> = models.iter().filter(|model| model.kind == "dependent").collect();
    let mut hosting = Hosting::of_directories();
    for Kind { name, .. } in &dependent {
        let uri = directory.join(name).display().to_string();
        hosting = hosting.endpoint_with(&format!("alone-{name}"), &uri, "60s", ", batch: off");
        hosting = hosting.endpoint_with(&format!("together-{name}"), &uri, "60s", ", batch: {max_wait: 5ms}");
    }
    let signalbox = hosting.start();
    let caller = Caller::of(&signalbox);
    let mut dice = Dice::new(29);
    let (mut found, mut all, mut summary) = (0, 0, Vec::new());
    for model in &dependent {
        let requests: Vec<_> = (0..200).map(|_| request(&mut dice)).collect();
        ask(&caller, &format!("alone-{}", model.name), &requests[0]).await;
        let wrong = differences(&caller, model, &requests).await.len();
        let status = caller.model(&directory.join(&model.name).display().to_string()).await.unwrap();
        found += usize::from(status.singly.is_some());
        all += wrong;
        summary.push(format!("{}: {wrong} wrong, {:?}, {:?}", model.name, status.batched_by, status.singly));
    }
    println!("{found} of {} found out, {all} wrong\n{}", dependent.len(), summary.join("\n"));
    // Some models depend on a call's other rows only where nobody would look.
    assert!(found * 10 >= dependent.len() * 9, "{found} of {}", dependent.len());
    assert!(all <= dependent.len() * 4, "{all} wrong");
}
