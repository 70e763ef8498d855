//! Covers a model that is deleted and registered again under the same number: the new one answers, and never the old
//! one's files.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Caller, Hosting, Mlflow, eventually, fresh_directory, mlflow_environment};

const LIMIT: Duration = Duration::from_secs(60);
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/reborn.py");
const ENDPOINTS: [(&str, &str); 3] = [
    ("numbered", "models:/reborn-model/1"),
    ("alias", "models:/reborn-model@champion"),
    ("latest", "models:/reborn-model/latest"),
];

/// Holds a registry, and the place of its files.
struct Store<'a> {
    tracking_uri: String,
    directory: &'a Path,
}

impl Store<'_> {
    /// Runs the script that registers the model again.
    async fn reborn(&self, arguments: &[&str]) {
        let mut command = Command::new(Mlflow::python());
        command.args([SCRIPT, "--tracking-uri", &self.tracking_uri]).args(arguments).current_dir(self.directory);
        command.envs(mlflow_environment());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn row() -> Value {
    json!({"dataframe_records": [{"seconds": 0.0}]})
}

/// Waits until every endpoint answers this number; each answer until then is of the one before, and none is a fault.
async fn all_answer(caller: &Caller, before: u32, number: u32) {
    for (endpoint, uri) in ENDPOINTS {
        eventually(&format!("{number} by {uri}"), LIMIT, async || {
            let answer = caller.ask(endpoint, &row()).await;
            assert_eq!(answer.version(), "1");
            let predictions = answer.predictions();
            assert!(predictions == json!([before]) || predictions == json!([number]), "{uri}: {predictions}");
            (predictions == json!([number])).then_some(())
        })
        .await;
    }
    eventually("the end of the one before", LIMIT, async || {
        let page = caller.models().await;
        let loaded: Vec<_> = page.models.iter().filter(|model| model.state == "loaded").collect();
        let pending = page.following.iter().any(|following| following.pending.is_some());
        (loaded.len() == 1 && loaded[0].serves.len() == ENDPOINTS.len() && !pending).then_some(())
    })
    .await;
}

async fn the_new_one_answers(store: Store<'_>) {
    store.reborn(&["--answers", "1"]).await;
    let hosting = Hosting::of_registry(&store.tracking_uri).registry("refresh: 200ms");
    let hosting = ENDPOINTS.into_iter().fold(hosting, |hosting, (name, uri)| hosting.endpoint(name, uri));
    let signalbox = hosting.start();
    let caller = Caller::of(&signalbox);
    all_answer(&caller, 1, 1).await;
    let first = caller.model("reborn-model/1").await.unwrap();

    // The new model comes from another source; and then with other files in the same place.
    store.reborn(&["--answers", "2"]).await;
    all_answer(&caller, 1, 2).await;
    store.reborn(&["--answers", "3", "--in-place"]).await;
    all_answer(&caller, 2, 3).await;
    let third = caller.models().await.models.into_iter().find(|model| model.state == "loaded").unwrap();
    assert!(third.created > first.created && third.source != first.source, "{first:?} {third:?}");
    drop(signalbox);

    // The instance's cache keeps files of all of them.
    let signalbox = hosting.start();
    all_answer(&Caller::of(&signalbox), 3, 3).await;
    drop(signalbox);
    store.reborn(&["--answers", "4", "--in-place"]).await;
    let signalbox = hosting.start();
    let caller = Caller::of(&signalbox);
    all_answer(&caller, 4, 4).await;

    // The model is deleted only: an instance that has answered goes on, and its log says so. An instance that has never
    // seen the model does not find it.
    store.reborn(&[]).await;
    eventually("word of the deletion", LIMIT, async || {
        for (endpoint, _) in ENDPOINTS {
            assert_eq!(caller.ask(endpoint, &row()).await.predictions(), json!([4]));
        }
        let page = caller.models().await;
        let numbered = page.following.iter().find(|following| following.model_uri == ENDPOINTS[0].1)?;
        numbered
            .pending
            .as_ref()?
            .reason
            .as_ref()
            .filter(|reason| reason.contains("names no version any more"))
            .cloned()
    })
    .await;
    drop(signalbox);
    let signalbox = hosting.start();
    let (code, message) = Caller::of(&signalbox).ask("numbered", &row()).await.fault();
    assert_eq!(code, "RESOURCE_DOES_NOT_EXIST", "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn reregistered_model_answers_anew_over_rest() {
    let mlflow = Mlflow::empty();
    the_new_one_answers(Store { tracking_uri: mlflow.tracking_uri(), directory: mlflow.directory() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn reregistered_model_answers_anew_over_mlflow_client() {
    let directory = fresh_directory("store");
    let tracking_uri = format!("sqlite:///{}/mlflow.db", directory.display());
    the_new_one_answers(Store { tracking_uri, directory: &directory }).await;
}
