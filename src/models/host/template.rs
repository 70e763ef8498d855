//! The template of an interpreter, from which every other process of that interpreter is forked.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::child::Child;
use super::process::TemplateProcess;
use crate::message::{Code, Fault, Stage};

/// After the first failure to start. It doubles with each one after that.
const FIRST_RESTART_DELAY: Duration = Duration::from_secs(2);

/// However often it has failed.
const MAX_RESTART_DELAY: Duration = Duration::from_secs(60);

/// What a template is.
#[derive(Debug, Clone, Default)]
pub(crate) struct TemplateSpec {
    /// The interpreter.
    pub(crate) python: String,
    /// What is imported beside MLflow, where it is installed.
    pub(crate) libraries: Vec<String>,
    /// What is never imported before the fork.
    pub(crate) exclude: Vec<String>,
    /// More of the environment, for it and its children.
    pub(crate) environment: Vec<(String, String)>,
    /// How many bytes of its own a host may fill with data. What goes beyond raises `MemoryError` in the model.
    pub(crate) data_limit: Option<u64>,
}

/// What a child is for.
#[derive(Debug, Clone)]
pub(crate) enum Task {
    /// To hold a model (`host.py`).
    Model,
    /// To be MLflow's client (`mlflow_client.py`).
    Clerk,
    /// To become `python -m mlflow` with these arguments and more of the environment. Nothing can be asked of it.
    Serve {
        /// What follows `python -m mlflow`.
        arguments: Vec<String>,
        /// Beside the template's own.
        environment: Vec<(String, String)>,
    },
}

/// The process that has imported what models need, and forks. It is started when it is first needed, and again when it
/// has ended. Cheap to clone; dropped by all, it ends with all its children.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    inner: Arc<SharedTemplate>,
}

struct SharedTemplate {
    spec: TemplateSpec,
    tasks: TaskTracker,
    stop: CancellationToken,
    state: Mutex<TemplateState>,
    _stop_with_us: DropGuard,
}

#[derive(Default)]
struct TemplateState {
    process: Option<Arc<TemplateProcess>>,
    /// How often in a row it has ended without having been of any use.
    failures: u32,
    /// Why the last one did, and until when that is remembered.
    failed: Option<(TemplateError, Instant)>,
}

/// Why nothing can be forked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// There is no such interpreter.
    #[error(
        "there is no Python at {python} (models.python, or the route's `python`); make one (`python3 -m venv .venv && \
         .venv/bin/pip install mlflow`), or name one that has mlflow and the model's libraries"
    )]
    NoInterpreter {
        /// The interpreter.
        python: String,
    },
    /// It has no MLflow.
    #[error(
        "{python} (models.python, or the route's `python`) has no mlflow; install it (`{python} -m pip install mlflow`), \
         or name an interpreter that has it and the model's libraries"
    )]
    NoMlflow {
        /// The interpreter.
        python: String,
    },
    /// It does not start, or has ended.
    #[error("{python} (models.python, or the route's `python`) {reason}")]
    Failed {
        /// The interpreter.
        python: String,
        /// What was wrong.
        reason: String,
    },
    /// Signalbox is stopping.
    #[error("Signalbox is stopping")]
    Stopping,
}

impl Template {
    /// Nothing is started yet. Its process is watched by a task in `tasks`, and ends when `closing` is cancelled.
    pub(crate) fn new(spec: TemplateSpec, tasks: TaskTracker, closing: &CancellationToken) -> Self {
        let stop = closing.child_token();
        let stop_with_us = stop.clone().drop_guard();
        Self {
            inner: Arc::new(SharedTemplate { spec, tasks, stop, state: Mutex::default(), _stop_with_us: stop_with_us }),
        }
    }

    /// The interpreter.
    pub(crate) fn python(&self) -> &str {
        &self.inner.spec.python
    }

    /// Waits until everything is imported. It need not be called: the first fork does as much.
    pub(crate) async fn warm(&self) -> Result<(), TemplateError> {
        let process = self.process().await?;
        match process.warm().await {
            Err(_) if process.has_just_ended() => self.process().await?.warm().await,
            result => result,
        }
    }

    /// Makes a child. One that is no server has everything imported.
    pub(crate) async fn fork(&self, task: &Task) -> Result<Child, TemplateError> {
        let process = self.process().await?;
        match process.fork(task).await {
            Err(_) if process.has_just_ended() => self.process().await?.fork(task).await,
            result => result,
        }
    }

    /// Tells it which modules a child had to import, so that the next one need not.
    pub(crate) async fn preload(&self, modules: &[String]) {
        let process = self.inner.state.lock().await.process.clone();
        if let Some(process) = process
            && !modules.is_empty()
        {
            process.preload(modules);
        }
    }

    /// Its process id, while it runs.
    #[cfg(test)]
    pub(crate) async fn pid(&self) -> Option<u32> {
        self.inner.state.lock().await.process.as_ref().filter(|process| !process.is_gone()).map(|process| process.pid())
    }

    async fn process(&self) -> Result<Arc<TemplateProcess>, TemplateError> {
        let inner = &*self.inner;
        let mut state = inner.state.lock().await;
        if inner.stop.is_cancelled() {
            return Err(TemplateError::Stopping);
        }
        if let Some(process) = &state.process {
            if !process.is_gone() {
                return Ok(Arc::clone(process));
            }
            let failure = process.failure();
            state.process = None;
            state.record_end(failure);
        }
        if let Some((error, until)) = &state.failed
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        match TemplateProcess::start(&inner.spec, &inner.tasks, &inner.stop) {
            Ok(process) => {
                state.process = Some(Arc::clone(&process));
                Ok(process)
            }
            Err(error) => {
                let error = TemplateError::not_started(&inner.spec.python, &error);
                state.record_end(Some(error.clone()));
                Err(error)
            }
        }
    }
}

impl TemplateState {
    /// It ended, for this reason unless it had been of use.
    fn record_end(&mut self, failure: Option<TemplateError>) {
        match failure {
            None => (self.failures, self.failed) = (0, None),
            Some(error) => {
                let delay = (FIRST_RESTART_DELAY * (1 << self.failures.min(10))).min(MAX_RESTART_DELAY);
                self.failures = self.failures.saturating_add(1);
                self.failed = Some((error, Instant::now() + delay));
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

    /// The fault of a model that cannot be loaded because of it.
    pub(crate) fn fault(&self, shown: &str) -> Fault {
        let message = format!("{shown} cannot be loaded: {self}");
        Fault::passing(Code::TemporarilyUnavailable, Stage::Load, message)
    }
}

impl fmt::Debug for SharedTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Template").field("spec", &self.spec).finish_non_exhaustive()
    }
}
