//! The quickstart's MLflow tracking server, and the two models in its registry.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::guarded::{self, GuardedProcess};
use super::progress::ProgressStep;
use crate::cli::failure::Failure;
use crate::config::Config;
use crate::message::Code;
use crate::models::{Examiner, ModelUri};

const SERVER: &str = include_str!("server.py");
const MODELS: &str = include_str!("models.py");
/// The server's database, which is there once a server has run.
const DATABASE: &str = "mlflow.db";
/// The server's output.
const LOG: &str = "logs/mlflow.log";
/// Longest time until the server answers its first request; after it the quickstart ends with an error.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Pause between two questions whether the server answers.
const QUESTIONS: Duration = Duration::from_millis(50);
/// Longest wait for the answer to one of them.
const PATIENCE: Duration = Duration::from_secs(5);

/// A tracking server, which lives as long as this.
pub(super) struct Tracking<'a> {
    python: &'a Path,
    home: &'a Path,
    port: u16,
    server: GuardedProcess,
    /// True if no server has run here before, so that there can be no models.
    is_new: bool,
}

impl<'a> Tracking<'a> {
    /// Starts the server on `port` with its files under `home`.
    ///
    /// # Errors
    /// When its program cannot be written or started.
    pub(super) fn start(python: &'a Path, home: &'a Path, port: u16) -> Result<Self, Failure> {
        let is_new = !home.join(DATABASE).exists();
        let script = home.join("server.py");
        std::fs::write(&script, SERVER).map_err(|error| Failure::cannot_write(&script, &error))?;
        let mut command = guarded::command(python, [script.as_os_str()]);
        command.args(["--workers=1", "--host=127.0.0.1"]).arg(format!("--port={port}"));
        command.arg(format!("--backend-store-uri=sqlite:///{DATABASE}")).arg("--artifacts-destination=./artifacts");
        // Without the execution of jobs, the server has seven processes and 1.8 GB less.
        command.env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false").current_dir(home);
        let server = GuardedProcess::start(&mut command, &home.join(LOG))
            .map_err(|error| Failure::unavailable(format!("MLflow cannot be started: {error}")))?;
        Ok(Self { python, home, port, server, is_new })
    }

    /// Waits until the server answers, and trains and registers the models of `config` unless its registry has them.
    ///
    /// # Errors
    /// When the server ends or does not answer in time, or the models cannot be made.
    pub(super) async fn bring_up(&mut self, config: &Config) -> Result<(), Failure> {
        let (python, home, uri) = (self.python, self.home, uri(self.port));
        if self.is_new {
            // The script has MLflow to import as well before it needs the server.
            tokio::try_join!(self.answers(), register_models(python, home, &uri))?;
            return Ok(());
        }
        self.answers().await?;
        let step = ProgressStep::begin("looking for the models in the registry");
        match registered_models(config).await? {
            Some(names) => step.done(in_registry(&names)),
            None => {
                drop(step);
                register_models(python, home, &uri).await?;
            }
        }
        Ok(())
    }

    async fn answers(&mut self) -> Result<(), Failure> {
        let step = ProgressStep::begin("starting MLflow");
        let log = self.home.join(LOG);
        let answered = async {
            while !answers(self.port).await {
                sleep(QUESTIONS).await;
            }
        };
        tokio::select! {
            // A server that has failed is reported at once.
            status = self.server.ended() => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                return Err(Failure::unavailable(format!("MLflow ended with {status}: see {}", log.display())));
            }
            answered = timeout(READY_WITHIN, answered) => answered.map_err(|_| {
                let seconds = READY_WITHIN.as_secs();
                Failure::unavailable(format!("MLflow does not answer after {seconds} s: see {}", log.display()))
            })?,
        }
        step.done(format!("MLflow at {}", uri(self.port)));
        Ok(())
    }

    /// Ends the server, and waits until it is gone.
    pub(super) async fn end(self) {
        let _step = ProgressStep::begin("stopping MLflow");
        self.server.end().await;
    }
}

/// Returns the address of the server on that port.
pub(super) fn uri(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Returns the versions that the routes' models stand for, or `None` if one of them is not registered.
async fn registered_models(config: &Config) -> Result<Option<Vec<String>>, Failure> {
    let examiner = Examiner::new(&config.models, &config.registry).map_err(Failure::unavailable)?;
    let mut names = Vec::new();
    for route in config.model_endpoints.iter().flat_map(|endpoint| &endpoint.routes) {
        let uri = ModelUri::parse(&route.model_uri).map_err(Failure::software)?;
        match examiner.model(&uri).await {
            Ok(model) => names.extend(model.map(|model| model.name.replace('/', " version "))),
            Err(fault) if fault.code == Code::ResourceDoesNotExist => return Ok(None),
            Err(fault) => return Err(Failure::unavailable(fault.message)),
        }
    }
    Ok(Some(names))
}

/// Trains and registers the models that the registry does not have yet, once the server answers.
async fn register_models(python: &Path, home: &Path, tracking_uri: &str) -> Result<(), Failure> {
    let step = ProgressStep::begin("training the models, and registering them");
    let script = home.join("models.py");
    std::fs::write(&script, MODELS).map_err(|error| Failure::cannot_write(&script, &error))?;
    let log = home.join("logs/models.log");
    let mut command = guarded::command(python, [script.as_os_str()]);
    command.args(["--tracking-uri", tracking_uri]).current_dir(home);
    let mut registered = Vec::new();
    let outcome = guarded::run(&mut command, &log, |line| {
        step.remark(line);
        // The script prints each version that it has registered or found, in one of these two forms.
        let words: Vec<_> = line.split(' ').collect();
        if let ["registered", name, "version", version] | [name, "version", version, "is", "registered", "already"] =
            words[..]
        {
            registered.push(format!("{name} version {version}"));
        }
    });
    if !outcome.await.is_ok_and(|status| status.success()) {
        let said = std::fs::read(&log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let reason = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        return Err(Failure::unavailable(format!("the models cannot be trained: {reason} (see {})", log.display())));
    }
    step.done(in_registry(&registered));
    Ok(())
}

fn in_registry(names: &[String]) -> String {
    format!("models in the registry: {}", names.join(", "))
}

async fn answers(port: u16) -> bool {
    let ask = async {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        connection.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
        let mut answer = Vec::new();
        connection.take(4096).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(PATIENCE, ask).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.split(|byte| *byte == b' ').nth(1) == Some(b"200")))
}
