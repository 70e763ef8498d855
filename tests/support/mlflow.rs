//! Runs MLflow itself: a tracking server with a model registry, and the models that tests call.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Process, free_port, fresh_directory, installed};

const REGISTER: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/quickstart/models.py"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/models.py"),
];

/// Owns a tracking server whose registry has, each with a version 1 in stage Production: `sentiment-model-fast` and
/// `sentiment-model-accurate` (both with the alias `champion`), `raises-model`, and `slow-model`, which sleeps for the
/// sum of its column `seconds`.
pub(crate) struct Mlflow {
    directory: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Mlflow {
    /// Returns the server that all tests share which neither stop it nor move its stages and aliases.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Mlflow> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts a server of one's own, which takes some twenty seconds.
    pub(crate) fn start() -> Self {
        let mlflow = Self::empty();
        for script in REGISTER {
            mlflow.register(script, &[]);
        }
        mlflow
    }

    /// Starts a server of one's own with an empty registry.
    pub(crate) fn empty() -> Self {
        let mut mlflow = Self { directory: fresh_directory("mlflow"), port: free_port(), process: None };
        mlflow.start_again();
        mlflow
    }

    /// Runs a script that registers models.
    pub(crate) fn register(&self, script: &str, arguments: &[&str]) {
        let registering = Command::new(Self::python())
            .args([script, "--tracking-uri", &self.tracking_uri()])
            .args(arguments)
            .envs(mlflow_environment())
            .output()
            .unwrap();
        assert!(registering.status.success(), "{script}: {}", String::from_utf8_lossy(&registering.stderr));
    }

    /// Calls the registry's REST interface, such as `registered-models/alias`, and returns the answer, which must be a
    /// success.
    pub(crate) async fn call_registry(&self, method: reqwest::Method, path: &str, body: Value) -> Value {
        let url = format!("{}/api/2.0/mlflow/{path}", self.tracking_uri());
        let answer = reqwest::Client::new().request(method, url).json(&body).send().await.unwrap();
        let status = answer.status();
        let answer = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// Lets an alias of a registered model lead to a version.
    pub(crate) async fn move_alias(&self, name: &str, alias: &str, version: &str) {
        let body = json!({"name": name, "alias": alias, "version": version});
        self.call_registry(reqwest::Method::POST, "registered-models/alias", body).await;
    }

    /// Returns the directory of the server's files.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the interpreter that has MLflow and scikit-learn.
    pub(crate) fn python() -> PathBuf {
        installed("SIGNALBOX_TEST_PYTHON", "mlflow/venv/bin/python")
    }

    /// Returns the value of `registry.tracking_uri`.
    pub(crate) fn tracking_uri(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Stops the server; its models are kept.
    pub(crate) fn stop(&mut self) {
        self.process.take().expect("the tracking server runs").terminate();
    }

    /// Starts the server again after [`Self::stop`], on its port and with its models.
    pub(crate) fn start_again(&mut self) {
        assert!(self.process.is_none(), "the tracking server runs already");
        let python = Self::python();
        let port = self.port.to_string();
        let command = [
            python.to_str().unwrap(),
            "-m",
            "mlflow",
            "server",
            "--workers",
            "1",
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--backend-store-uri",
            "sqlite:///mlflow.db",
            "--artifacts-destination",
            "./artifacts",
        ]; // fmt: skip
        let mut process = Process::start("mlflow", &self.directory, &mlflow_environment(), command);
        process.wait_for("answer of the tracking server", Duration::from_secs(120), |_| {
            is_healthy(self.port).then_some(())
        });
        self.process = Some(process);
    }
}

/// Runs a Python script in the environment that has a Kafka client of its own, and returns what it printed.
pub(crate) fn python(script: &str, arguments: &[&str]) -> String {
    let output = Command::new(Mlflow::python()).args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Sets the variables for MLflow: its command looks uvicorn up on the path; its job runners and its telemetry are of no
/// use here.
pub(crate) fn mlflow_environment() -> Vec<(&'static str, OsString)> {
    let python = Mlflow::python();
    let mut path = OsString::from(python.parent().unwrap());
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    vec![
        ("PATH", path),
        ("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false".into()),
        ("MLFLOW_DISABLE_TELEMETRY", "true".into()),
    ]
}

fn is_healthy(port: u16) -> bool {
    let answer = || -> std::io::Result<String> {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        connection.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    };
    answer().is_ok_and(|answer| answer.split_whitespace().nth(1) == Some("200"))
}
