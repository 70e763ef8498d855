//! Real registries: a tracking server, a database, a directory of files.

use std::io::{BufRead, BufReader};
use std::process::Child;

use super::*;
use crate::models::{ModelTarget, ModelUri, VersionPick};

/// Script that ends the server with this process, whose end closes its standard input.
const GUARD: &str = include_str!("../../../cli/quickstart/guard.py");

/// Script that registers versions 1 to 3 of `a model`: 1 and 2 in stage Production, in the wrong order, and 2 is
/// `champion`. Prints the id of the model that 1 was made of.
const REGISTER: &str = r#"
import os, sys
os.environ.update(MLFLOW_ALLOW_FILE_STORE="true", GIT_PYTHON_REFRESH="quiet", MLFLOW_DISABLE_TELEMETRY="true")
import mlflow
from sklearn.linear_model import LinearRegression
mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
if len(sys.argv) > 2:
    mlflow.set_experiment(experiment_id=client.create_experiment("tests", artifact_location=sys.argv[2]))
model = LinearRegression().fit([[0], [1]], [0, 1])
for version in range(3):
    logged = mlflow.sklearn.log_model(
        model, name="model", input_example=[[2]], pip_requirements=["scikit-learn"], registered_model_name="a model",
        skops_trusted_types=None, serialization_format="pickle",
    )
    if version == 0:
        first = logged.model_id
        print(first)
client.transition_model_version_stage("a model", "2", "Production")
client.transition_model_version_stage("a model", "1", "Production")
client.set_registered_model_alias("a model", "champion", "2")
client.set_model_version_tag("a model", "2", "signalbox.batch", "rows")
client.set_logged_model_tags(first, {"signalbox.batch": "rows"})
"#;

struct TrackingServer {
    guard: Child,
    address: String,
}

impl TrackingServer {
    /// Starts a tracking server on a database in this directory.
    fn start(directory: &Path, more: &[&str]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        drop(listener);
        let path = format!("{}:{}", python().parent().unwrap().display(), crate::config::environment("PATH").unwrap());
        let mut guard = Command::new(python())
            .args(["-I", "-c", GUARD])
            .arg(python())
            .args(["-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", &port])
            .args(["--backend-store-uri", "sqlite:///mlflow.db"])
            .args(more)
            .env("PATH", path)
            .env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
            .env("MLFLOW_DISABLE_TELEMETRY", "true")
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(guard.stderr.take().unwrap()).lines().map_while(Result::ok);
        let is_up = said.by_ref().any(|line| line.contains("Uvicorn running on"));
        assert!(is_up, "the tracking server ended");
        std::thread::spawn(move || said.for_each(drop));
        Self { guard, address: format!("http://127.0.0.1:{port}") }
    }
}

impl Drop for TrackingServer {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn python() -> PathBuf {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/services/mlflow/venv/bin/python");
    crate::config::environment("SIGNALBOX_TEST_PYTHON").map_or_else(usual, PathBuf::from)
}

/// Fills a registry, and returns the id of a logged model.
fn register(directory: &Path, tracking_uri: &str, artifacts: Option<&str>) -> String {
    let mut command = Command::new(python());
    command.args(["-c", REGISTER, tracking_uri]).args(artifacts).current_dir(directory);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().find(|line| line.starts_with("m-")).unwrap().to_owned()
}

/// Builds the registry there, with its task tracker and the token that ends its processes.
fn real_registry(tracking_uri: &str) -> (Registry, TaskTracker, CancellationToken) {
    let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
    let spec = TemplateSpec { python: python().display().to_string(), ..Default::default() };
    let template = Template::new(spec, tasks.clone(), &closing);
    let env = |_: &str| None;
    let addresses = RegistryAddresses::read(Some(tracking_uri), &env).unwrap();
    (Registry::new(addresses, &env, template).unwrap(), tasks, closing)
}

async fn resolve(registry: &Registry, uri: &str) -> Result<RegistryEntry, Fault> {
    registry.resolve(ModelUri::parse(uri).unwrap().target()).await
}

/// Checks the properties that hold for every registry.
async fn check(tracking_uri: &str, model_id: &str) {
    let (registry, tasks, closing) = real_registry(tracking_uri);
    let cache = tempfile::tempdir().unwrap();
    let artifacts = open(&cache, 1 << 30);
    for (uri, version) in [
        ("models:/a model/1", "1"),
        ("models:/a model/production", "2"),
        ("models:/a model/None", "3"),
        ("models:/a model/latest", "3"),
        ("models:/a model@champion", "2"),
    ] {
        let RegistryEntry { uri: named, registration, is_tagged, .. } = resolve(&registry, uri).await.unwrap();
        assert_eq!((&*registration.version, named), (version, format!("models:/a model/{version}")), "{uri}");
        let Provenance { source, created, .. } = &registration.provenance;
        assert!(source.is_some() && created.is_some(), "{uri}: {registration:?}");
        assert_eq!(is_tagged, version == "2", "{uri}");
        let parsed = ModelUri::parse(uri).unwrap();
        let ModelTarget::Registered { pick, .. } = parsed.target() else { panic!("{uri}") };
        let snapshot = registry.current("a model", &[pick.clone()].into()).await.unwrap();
        assert_eq!(snapshot.get(pick), Some(&registration), "{uri}");
    }
    let snapshot = registry.current("a model", &[VersionPick::Version(99)].into()).await.unwrap();
    assert_eq!(snapshot.get(&VersionPick::Version(99)), None);
    for (uri, name) in [("models:/a model/1".to_owned(), "a model/1"), (format!("models:/{model_id}"), model_id)] {
        let resolved = resolve(&registry, &uri).await.unwrap();
        assert_eq!((&*resolved.name, resolved.is_tagged), (name, name == model_id));
        let cached = artifacts.fetch(&registry, &resolved).await.unwrap();
        for file in ["MLmodel", "model.pkl", "serving_input_example.json"] {
            assert!(cached.directory.join(file).exists(), "{uri}: {file}");
        }
        fs::write(cached.directory.join("model.pkl"), "cut off").unwrap();
        drop(cached);
        let cached = artifacts.fetch(&registry, &resolved).await.unwrap();
        assert!(fs::metadata(cached.directory.join("model.pkl")).unwrap().len() > 100);
    }
    for (uri, says) in [
        ("models:/nope/Production", "nope"),
        ("models:/a model/Archived", "no version in stage Archived"),
        ("models:/a model@Champion", "not found"),
        ("models:/a model/99", "not found"),
        ("models:/m-00000000000000000000000000000000", "not found"),
    ] {
        let fault = resolve(&registry, uri).await.unwrap_err();
        assert_eq!((fault.code, fault.retryable), (Code::ResourceDoesNotExist, false), "{uri}: {fault}");
        assert!(fault.message.contains(says), "{uri}: {fault}");
    }
    let snapshot = registry.current("nope", &[VersionPick::Latest].into()).await.unwrap();
    assert_eq!(snapshot.get(&VersionPick::Latest), None);
    closing.cancel();
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn registry_works_with_served_artifacts() {
    let directory = tempfile::tempdir().unwrap();
    let server = TrackingServer::start(directory.path(), &["--artifacts-destination", "./artifacts"]);
    let model_id = register(directory.path(), &server.address, None);
    check(&server.address, &model_id).await;
    measure(&server.address).await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn registry_works_with_artifacts_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    let server = TrackingServer::start(directory.path(), &["--no-serve-artifacts"]);
    let model_id = register(directory.path(), &server.address, root.to_str());
    let (registry, ..) = real_registry(&server.address);
    let artifact_uri = resolve(&registry, "models:/a model/1").await.unwrap().artifact_uri;
    assert!(artifact_uri.contains(root.to_str().unwrap()), "{artifact_uri}");
    check(&server.address, &model_id).await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn registry_works_with_a_database() {
    let directory = tempfile::tempdir().unwrap();
    let uri = format!("sqlite:///{}/mlflow.db", directory.path().display());
    check(&uri, &register(directory.path(), &uri, None)).await;
    measure(&uri).await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn registry_works_with_a_directory_of_files() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("my runs");
    let model_id = register(directory.path(), root.to_str().unwrap(), None);
    check(root.to_str().unwrap(), &model_id).await;
    check(reqwest::Url::from_file_path(&root).unwrap().as_str(), &model_id).await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn missing_store_is_not_created() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nowhere");
    for uri in
        [format!("sqlite:///{}", path.display()), path.display().to_string(), format!("file://{}", path.display())]
    {
        let (registry, ..) = real_registry(&uri);
        let fault = resolve(&registry, "models:/a model/1").await.unwrap_err();
        assert_eq!((fault.code, fault.retryable), (Code::TemporarilyUnavailable, true));
        assert!(fault.message.contains("there is no") && fault.message.contains(path.to_str().unwrap()), "{fault}");
        assert!(!path.exists());
    }
}

/// Measures the time from a small model's URI to its files on disk: most of it is the server's own.
async fn measure(tracking_uri: &str) {
    let (registry, ..) = real_registry(tracking_uri);
    for uri in ["models:/a model/1", "models:/a model/Production", "models:/a model@champion"] {
        let (mut resolving, mut fetching, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..20 {
            let cache = tempfile::tempdir().unwrap();
            let artifacts = open(&cache, 1 << 30);
            let begun = std::time::Instant::now();
            let resolved = resolve(&registry, uri).await.unwrap();
            resolving.push(begun.elapsed());
            let begun = std::time::Instant::now();
            drop(artifacts.fetch(&registry, &resolved).await.unwrap());
            fetching.push(begun.elapsed());
            let begun = std::time::Instant::now();
            drop(artifacts.fetch(&registry, &resolved).await.unwrap());
            again.push(begun.elapsed());
        }
        for times in [&mut resolving, &mut fetching, &mut again] {
            times.sort();
        }
        println!(
            "{uri}: p50 resolve {:.1?}, fetch {:.1?}, from the cache {:.2?}",
            resolving[10], fetching[10], again[10]
        );
    }
}
