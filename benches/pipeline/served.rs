//! Runs the contender `mlflow models serve`, started as its users start it.

use std::time::{Duration, Instant};

use crate::models::payload;
use crate::support::{Mlflow, Process, eventually, free_port, fresh_directory, mlflow_environment};

/// Owns a running `mlflow models serve` of one of the copies.
pub(crate) struct Served {
    pub(crate) process: Process,
    /// The model URI under which others can reach the server.
    pub(crate) url: String,
    client: reqwest::Client,
}

impl Served {
    /// Starts the server, and returns the time from the start to its first answer.
    pub(crate) async fn start(mlflow: &Mlflow, number: usize) -> (Self, Duration) {
        let (port, directory) = (free_port().to_string(), fresh_directory("served"));
        let mut environment = mlflow_environment();
        environment.push(("MLFLOW_TRACKING_URI", mlflow.tracking_uri().into()));
        let uri = format!("models:/model-{number}@champion");
        let python = Mlflow::python();
        let command =
            [python.to_str().unwrap(), "-m", "mlflow", "models", "serve", "-m", &uri, "--env-manager", "local"];
        let command = command.into_iter().chain(["--host", "127.0.0.1", "--port", &port]);
        let process = Process::start("served", &directory, &environment, command);
        let begun = Instant::now();
        let served = Self { process, client: reqwest::Client::new(), url: format!("http://127.0.0.1:{port}") };
        let answered = async || served.try_ask().await;
        eventually("an answer of mlflow models serve", Duration::from_secs(180), answered).await;
        (served, begun.elapsed())
    }

    /// Calls the model once, and returns the time that took.
    pub(crate) async fn ask(&self) -> Duration {
        self.try_ask().await.expect("a server that has answered answers again")
    }

    async fn try_ask(&self) -> Option<Duration> {
        let begun = Instant::now();
        let answer = self.client.post(format!("{}/invocations", self.url)).json(&payload()).send().await.ok()?;
        let is_success = answer.status().is_success();
        answer.bytes().await.ok()?;
        is_success.then(|| begun.elapsed())
    }
}
