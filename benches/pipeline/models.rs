//! Registers copies of a small scikit-learn text model, each of its own in a real MLflow, and sends requests to them.

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Caller, Hosting, Kafka, Mlflow, Setup, is_alive, python};

/// Script that logs and registers the quickstart's fast model as `model-1`, and registers copies of that as `model-2`
/// and so on: each is a version of its own, with files that it shares with the others in the registry alone. All have
/// the alias `champion`.
const REGISTER: &str = "
import importlib.util, sys, warnings
script, tracking_uri, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
found = importlib.util.spec_from_file_location('quickstart', script)
quickstart = importlib.util.module_from_spec(found)
found.loader.exec_module(quickstart)
import mlflow
warnings.filterwarnings('ignore')
mlflow.set_tracking_uri(tracking_uri)
client = mlflow.MlflowClient()
if first == 1:
    train, example = quickstart.python_models()['sentiment-model-fast']
    quickstart.register(client, 'model-1', train(), example, {'label': 'string', 'score': 'double'})
logged = client.get_model_version('model-1', '1')
for name in (f'model-{number}' for number in range(max(first, 2), last + 1)):
    client.create_registered_model(name)
    client.create_model_version(
        name, logged.source, logged.run_id, model_id=logged.source.removeprefix('models:/'), await_creation_for=None,
        tags={'signalbox.batch': 'rows'},
    )
    client.set_registered_model_alias(name, 'champion', '1')
";
const QUICKSTART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/quickstart/models.py");

/// Returns the registry that all parts share, with this many copies at least.
pub(crate) fn registry(count: usize) -> &'static Mlflow {
    static REGISTRY: OnceLock<Mlflow> = OnceLock::new();
    static REGISTERED: Mutex<usize> = Mutex::new(0);
    let mlflow = REGISTRY.get_or_init(Mlflow::empty);
    let mut registered = REGISTERED.lock().unwrap();
    if *registered < count {
        let (first, last) = ((*registered + 1).to_string(), count.to_string());
        python(REGISTER, &[QUICKSTART, &mlflow.tracking_uri(), &first, &last]);
        *registered = count;
    }
    mlflow
}

/// Makes the payload that the models are called with.
pub(crate) fn payload() -> Value {
    json!({"dataframe_split": {"columns": ["text"], "data": [["This is a great product!"]]}})
}

/// Puts a Signalbox that hosts models over a real Kafka.
pub(crate) fn over_kafka(mut hosting: Hosting) -> Hosting {
    hosting.kafka = format!("\n{}", Setup::new(Kafka::shared()).kafka_section());
    hosting
}

/// Configures a Signalbox with this many of the models.
pub(crate) fn hosting(mlflow: &Mlflow, count: usize) -> Hosting {
    (1..=count).fold(over_kafka(Hosting::of(mlflow)), |hosting, number| {
        hosting.endpoint(&format!("model-{number}"), &format!("models:/model-{number}@champion"))
    })
}

/// Sends a request, and returns the time until its reply. Panics when the reply is no prediction.
pub(crate) async fn ask(caller: &Caller, number: usize) -> Duration {
    let answer = caller.ask(&format!("model-{number}"), &payload()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.took
}

/// Unloads a model, and waits until its process has gone.
pub(crate) async fn unload(caller: &Caller, number: usize) {
    let id = format!("model-{number}/1");
    let pids = caller.model(&id).await.unwrap().pids;
    caller.tell(&id, "unload").await;
    while pids.iter().any(|pid| is_alive(*pid)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
