//! Examination of an interpreter, for `signalbox doctor`: a process that says what it is and has, and ends.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::output::truncated;
use super::process::REQUIREMENTS;
use super::template::TemplateError;

/// Program that examines an interpreter, after the one that compares requirements.
const EXAMINE: &str = include_str!("python/interpreter.py");

/// Longest time for the interpreter to import MLflow.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Texts of a model's files by name, as far as they define its environment.
pub(crate) type EnvironmentFiles = BTreeMap<String, String>;

/// Names of the files that define the environment of a model.
pub(crate) const ENVIRONMENT_FILES: [&str; 2] = ["requirements.txt", "python_env.yaml"];

/// Version of an interpreter, and the libraries that it has.
#[derive(Debug, Deserialize)]
pub(crate) struct Interpreter {
    /// The version of Python.
    pub(crate) python: String,
    mlflow: Option<String>,
    /// The version of Flask, with whose request conditions are evaluated.
    pub(crate) flask: Option<String>,
    /// Requirements of each model that the interpreter does not meet.
    pub(crate) unmet: Vec<Vec<String>>,
}

impl Interpreter {
    /// Starts the interpreter, has it import MLflow and compare the requirements of models, and waits for its end.
    ///
    /// # Errors
    /// When there is no such interpreter, or it has no MLflow or cannot import it.
    pub(crate) async fn examine(python: &str, models: &[EnvironmentFiles]) -> Result<Self, TemplateError> {
        let failed = |reason: String| TemplateError::Failed { python: python.to_owned(), reason };
        let mut command = Command::new(python);
        command.args(["-c", &format!("{REQUIREMENTS}\n{EXAMINE}")]).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => TemplateError::NoInterpreter { python: python.to_owned() },
            _ => failed(format!("cannot be started: {error}")),
        })?;
        let question = serde_json::to_vec(models).map_err(|error| failed(error.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that reads nothing says so by its answer.
            let _ = stdin.write_all(&question).await;
        }
        let output = timeout(TIMEOUT, child.wait_with_output()).await;
        let output = output
            .map_err(|_| failed(format!("has not imported mlflow within {} s", TIMEOUT.as_secs())))?
            .map_err(|error| failed(format!("cannot be asked: {error}")))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let Some(interpreter) = said.lines().last().and_then(|line| serde_json::from_str::<Self>(line).ok()) else {
            let complaint = String::from_utf8_lossy(&output.stderr);
            return Err(match complaint.lines().rfind(|line| !line.trim().is_empty()) {
                Some(reason) => failed(format!("is no Python that can be used: {}", truncated(reason))),
                None => failed("is no Python that can be used".to_owned()),
            });
        };
        match interpreter.mlflow {
            None => Err(TemplateError::NoMlflow { python: python.to_owned() }),
            Some(_) => Ok(interpreter),
        }
    }

    /// Returns the version of MLflow.
    pub(crate) fn mlflow(&self) -> &str {
        self.mlflow.as_deref().unwrap_or_default()
    }
}
