//! The quickstart's MLflow tracking server, and the two models in its registry.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use super::guarded::{self, GuardedProcess};
use super::progress::ProgressStep;
use crate::cli::failure::Failure;

const MODELS: &str = include_str!("models.py");
/// Longest time until the server answers its first request; after it the quickstart ends with an error.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Starts the server on `port` with its files under `home`, and waits until it answers. The server lives as long as the
/// returned process.
///
/// # Errors
/// When the server cannot be started, ends, or does not answer in time.
pub(super) fn start(python: &Path, home: &Path, port: u16) -> Result<GuardedProcess, Failure> {
    let step = ProgressStep::begin("starting MLflow");
    let log = home.join("logs/mlflow.log");
    let mut command = guarded::command(python, ["-m", "mlflow", "server", "--workers=1", "--host=127.0.0.1"]);
    command.arg(format!("--port={port}"));
    command.args(["--backend-store-uri=sqlite:///mlflow.db", "--artifacts-destination=./artifacts"]);
    // Without the execution of jobs, the server has eight processes and 1.8 GB less.
    command.env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false").current_dir(home);
    let mut server = GuardedProcess::start(&mut command, &log)
        .map_err(|error| Failure::unavailable(format!("MLflow cannot be started: {error}")))?;

    let began = Instant::now();
    // The process is looked at between two questions, so a server that has failed is reported at once.
    while !answers(port) {
        if let Ok(Some(status)) = server.ended() {
            return Err(Failure::unavailable(format!("MLflow ended with {status}: see {}", log.display())));
        }
        if began.elapsed() > READY_WITHIN {
            let seconds = READY_WITHIN.as_secs();
            return Err(Failure::unavailable(format!(
                "MLflow does not answer after {seconds} s: see {}",
                log.display()
            )));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    step.done(format!("MLflow at http://127.0.0.1:{port}"));
    Ok(server)
}

/// Trains and registers the models that the registry does not have yet.
///
/// # Errors
/// When the script cannot be written, or fails.
pub(super) fn register_models(python: &Path, home: &Path, tracking_uri: &str) -> Result<(), Failure> {
    let step = ProgressStep::begin("looking for the models in the registry");
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
    if !outcome.is_ok_and(|status| status.success()) {
        let said = std::fs::read(&log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let reason = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        return Err(Failure::unavailable(format!("the models cannot be trained: {reason} (see {})", log.display())));
    }
    step.done(format!("models in the registry: {}", registered.join(", ")));
    Ok(())
}

fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        connection.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = Vec::new();
        connection.take(4096).read_to_end(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split(|byte| *byte == b' ').nth(1) == Some(b"200"))
}
