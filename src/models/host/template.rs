//! Keeps the template (fork server) of one interpreter running, and forks every other process of that interpreter from
//! it.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::child::Child;
use super::process::TemplateProcess;
use crate::invocation::Backoff;

/// Delays before a template that has failed to start is started again.
const RESTARTS: Backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(60) };

/// The configuration of a template.
#[derive(Debug, Clone, Default)]
pub(crate) struct TemplateSpec {
    /// The interpreter.
    pub(crate) python: String,
    /// The libraries that are imported beside MLflow, where they are installed.
    pub(crate) libraries: Vec<String>,
    /// The modules that are never imported before the fork.
    pub(crate) exclude: Vec<String>,
    /// Additional environment variables of the template and its children.
    pub(crate) environment: Vec<(String, String)>,
    /// The bytes of its own that a host may fill with data. An allocation beyond them raises `MemoryError` in the
    /// model.
    pub(crate) data_limit: Option<u64>,
}

/// The task of a child.
#[derive(Debug, Clone)]
pub(crate) enum Task {
    /// Holds a model (`host.py`).
    Model,
    /// Asks MLflow's own client (`mlflow_client.py`).
    Clerk,
    /// Runs a program that the template is given with the task: once in the template, so that children share what it
    /// imports, and its `main` in each child.
    Program {
        /// The name of the program.
        name: &'static str,
        /// The Python source of the program.
        source: &'static str,
    },
    /// Becomes `python -m mlflow`. Such a child answers no questions.
    Serve {
        /// The arguments after `python -m mlflow`.
        arguments: Vec<String>,
        /// The environment variables beside the template's own.
        environment: Vec<(String, String)>,
    },
}

/// The template, the process that has imported what models need, and forks. The process is started when it is first
/// needed, and again after it has ended. Dropping the template ends the process and all its children.
#[derive(Debug)]
pub(crate) struct Template {
    spec: TemplateSpec,
    tasks: TaskTracker,
    stop: CancellationToken,
    state: Mutex<TemplateState>,
    _stop_with_us: DropGuard,
}

#[derive(Debug, Default)]
struct TemplateState {
    process: Option<Arc<TemplateProcess>>,
    /// The number of runs in a row that ended without having been of any use.
    failures: u32,
    /// The error of the last such run, and the moment until which it is returned instead of another start.
    failed: Option<(TemplateError, Instant)>,
}

/// The reason why nothing can be forked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// The interpreter does not exist.
    #[error(
        "there is no Python at {python} (models.python, or the route's `python`); make one (`python3 -m venv .venv && \
         .venv/bin/pip install mlflow`), or name one that has mlflow and the model's libraries"
    )]
    NoInterpreter {
        /// The interpreter.
        python: String,
    },
    /// The interpreter has no MLflow.
    #[error(
        "{python} (models.python, or the route's `python`) has no mlflow; install it (`{python} -m pip install mlflow`), \
         or name an interpreter that has it and the model's libraries"
    )]
    NoMlflow {
        /// The interpreter.
        python: String,
    },
    /// The template does not start, or has ended.
    #[error("{python} (models.python, or the route's `python`) {reason}")]
    Failed {
        /// The interpreter.
        python: String,
        /// The rest of the message: what is wrong with the interpreter.
        reason: String,
    },
    /// Signalbox is stopping.
    #[error("Signalbox is stopping")]
    Stopping,
}

impl Template {
    /// Makes a template without starting anything yet. A task in `tasks` supervises the process, which ends when
    /// `closing` is cancelled.
    pub(crate) fn new(spec: TemplateSpec, tasks: TaskTracker, closing: &CancellationToken) -> Arc<Self> {
        let stop = closing.child_token();
        let stop_with_us = stop.clone().drop_guard();
        Arc::new(Self { spec, tasks, stop, state: Mutex::default(), _stop_with_us: stop_with_us })
    }

    /// Returns the interpreter.
    pub(crate) fn python(&self) -> &str {
        &self.spec.python
    }

    /// Waits until the template has imported everything. A call is optional: the first fork imports as much.
    pub(crate) async fn warm(&self) -> Result<(), TemplateError> {
        let process = self.process().await?;
        match process.warm().await {
            Err(_) if process.has_just_ended() => self.process().await?.warm().await,
            result => result,
        }
    }

    /// Forks a child. Only a child that becomes a server may be forked before everything is imported.
    pub(crate) async fn fork(&self, task: &Task) -> Result<Child, TemplateError> {
        let process = self.process().await?;
        match process.fork(task).await {
            Err(_) if process.has_just_ended() => self.process().await?.fork(task).await,
            result => result,
        }
    }

    /// Has the template import the modules that a child had to import, so that the next child need not.
    pub(crate) async fn preload(&self, modules: &[String]) {
        let process = self.state.lock().await.process.clone();
        if let Some(process) = process
            && !modules.is_empty()
        {
            process.preload(modules);
        }
    }

    /// Returns the process id while the process runs.
    #[cfg(test)]
    pub(crate) async fn pid(&self) -> Option<u32> {
        self.state.lock().await.process.as_ref().filter(|process| !process.is_gone()).map(|process| process.pid())
    }

    /// Returns the running process, or starts one.
    async fn process(&self) -> Result<Arc<TemplateProcess>, TemplateError> {
        let mut state = self.state.lock().await;
        if self.stop.is_cancelled() {
            return Err(TemplateError::Stopping);
        }
        // A running process serves all.
        if let Some(process) = &state.process {
            if !process.is_gone() {
                return Ok(Arc::clone(process));
            }
            let failure = process.failure();
            state.process = None;
            state.record_end(failure);
        }
        // After a failure, a start is not tried again before its delay is over.
        if let Some((error, until)) = &state.failed
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        match TemplateProcess::start(&self.spec, &self.tasks, &self.stop) {
            Ok(process) => {
                state.process = Some(Arc::clone(&process));
                Ok(process)
            }
            Err(error) => {
                let error = TemplateError::not_started(&self.spec.python, &error);
                state.record_end(Some(error.clone()));
                Err(error)
            }
        }
    }
}

impl TemplateState {
    /// Records the end of a run; a run without a `failure` had been of use.
    fn record_end(&mut self, failure: Option<TemplateError>) {
        match failure {
            None => (self.failures, self.failed) = (0, None),
            Some(error) => {
                self.failures = self.failures.saturating_add(1);
                self.failed = Some((error, Instant::now() + RESTARTS.pause(self.failures)));
            }
        }
    }
}

impl TemplateError {
    fn not_started(python: &str, error: &std::io::Error) -> Self {
        let python = python.to_owned();
        match error.kind() {
            ErrorKind::NotFound => Self::NoInterpreter { python },
            _ => Self::Failed { python, reason: format!("cannot be started: {error}") },
        }
    }
}
