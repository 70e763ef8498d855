//! Loading a model: from a URI to something that answers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backoff::Step;
use super::host::{Server, ServerSpec, Template, TemplateSpec};
use super::registry::Registry;
use super::uri::{ModelUri, Target};
use crate::invocation::{Backend, Call, Concern, HttpBackend};
use crate::message::{Code, Fault, Headers, Stage};

/// The version of what is served at an address: whoever serves it knows, and we do not.
const EXTERNAL: &str = "external";

/// The version of a directory whose `MLmodel` has no id.
const LOCAL: &str = "local";

/// The version of what is part of Signalbox.
const BUILTIN: &str = "builtin";

/// How long a warm-up call may take; it is a courtesy, not a condition.
const WARM_UP: Duration = Duration::from_secs(30);

/// A version that answers.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Which version it is.
    pub version: Arc<str>,
    /// How it is called.
    pub backend: Backend,
    /// The process that holds it, if that is ours.
    pub host: Option<Server>,
}

/// What loading needs of the world.
#[derive(Debug)]
pub(super) struct Loader {
    /// Which versions there are.
    pub registry: Registry,
    /// How long a model may take to load.
    pub load_timeout: Duration,
    /// Every task that must have ended before we do.
    pub tasks: TaskTracker,
    /// Cancelled when we stop.
    pub closing: CancellationToken,
    /// Where the registry is, for those who ask it themselves.
    pub environment: Vec<(String, String)>,
    /// What hosts are forked from, by interpreter.
    pub templates: Mutex<HashMap<String, Template>>,
}

/// Why a load failed, and which of its steps.
#[derive(Debug)]
pub(super) struct LoadFailure {
    /// What those who wait are told.
    pub fault: Fault,
    /// The step.
    pub step: Step,
}

/// A model whose version is known.
struct Resolved {
    version: Arc<str>,
    /// What MLflow is told to serve.
    source: String,
    /// A request to try it with.
    example: Option<Bytes>,
}

impl Loaded {
    /// Whether its process has ended, or is being stopped.
    pub(super) fn is_gone(&self) -> bool {
        self.host.as_ref().is_some_and(Server::is_gone)
    }
}

/// What needs no loading: an address, or what is built in.
pub(super) fn at_hand(uri: &ModelUri, concurrency: usize) -> Option<Result<Loaded, Fault>> {
    match uri.target() {
        Target::Address { invocations } => {
            let backend = HttpBackend::new(invocations.clone(), Arc::clone(uri.text()), Concern::Theirs, concurrency);
            Some(backend.map(|backend| Loaded {
                version: EXTERNAL.into(),
                backend: Backend::Http(backend),
                host: None,
            }))
        }
        Target::Noop => Some(Ok(Loaded { version: BUILTIN.into(), backend: Backend::Noop, host: None })),
        Target::Registered { .. } | Target::Logged { .. } | Target::Directory { .. } => None,
    }
}

impl Loader {
    /// Finds the version that the URI stands for now, and starts a process that holds it.
    pub(super) async fn load(&self, uri: &ModelUri, python: &str, concurrency: usize) -> Result<Loaded, LoadFailure> {
        let deadline = Instant::now() + self.load_timeout;
        let resolved = self.resolve(uri).await.map_err(|fault| LoadFailure { fault, step: Step::Resolve })?;
        tracing::info!(model = %uri, version = &*resolved.version, python, "model is being loaded");
        let spec = ServerSpec {
            shown: Arc::clone(uri.text()),
            model: resolved.source,
            env_manager: "local",
            concurrency,
            deadline,
            load_timeout: self.load_timeout,
        };
        let started = Server::start(&self.template(python), &spec).await;
        let (host, backend) = started.map_err(|fault| LoadFailure { fault, step: Step::Start })?;
        if let Some(example) = resolved.example {
            warm_up(&backend, example, deadline).await;
        }
        Ok(Loaded { version: resolved.version, backend: Backend::Http(backend), host: Some(host) })
    }

    fn template(&self, python: &str) -> Template {
        let mut templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        let template = templates.entry(python.to_owned()).or_insert_with(|| {
            let environment = self.environment.clone();
            let spec = TemplateSpec { python: python.to_owned(), environment, ..Default::default() };
            Template::new(spec, self.tasks.clone(), &self.closing)
        });
        template.clone()
    }

    async fn resolve(&self, uri: &ModelUri) -> Result<Resolved, Fault> {
        match uri.target() {
            target @ (Target::Registered { .. } | Target::Logged { .. }) => {
                let found = self.registry.resolve(target).await?;
                Ok(Resolved { version: found.version, source: found.uri, example: None })
            }
            Target::Directory { path } => resolve_directory(path).await,
            Target::Address { .. } | Target::Noop => {
                // `at_hand` has them; asked all the same, we say so instead of guessing.
                Err(Fault::permanent(Code::InternalError, Stage::Load, format!("{uri} needs no loading")))
            }
        }
    }
}

async fn resolve_directory(path: &Path) -> Result<Resolved, Fault> {
    let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let mlmodel = tokio::fs::read_to_string(path.join("MLmodel")).await.map_err(|error| {
        let message = format!(
            "no model can be read in {}: MLmodel: {error}; name the directory that holds MLmodel",
            path.display()
        );
        Fault::permanent(Code::ResourceDoesNotExist, Stage::Load, message)
    })?;
    let example = tokio::fs::read(path.join("serving_input_example.json")).await.ok().map(Bytes::from);
    Ok(Resolved { version: directory_version(&mlmodel).into(), source: path.display().to_string(), example })
}

/// The id that MLflow gave the model when it was saved.
fn directory_version(mlmodel: &str) -> &str {
    let value = |key: &str| {
        let mut values = mlmodel.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        values
            .next()
            .map(|value| value.trim().trim_matches(['\'', '"']))
            .filter(|value| !value.is_empty() && *value != "null")
    };
    value("model_id").or_else(|| value("model_uuid")).unwrap_or(LOCAL)
}

/// One call, so that the first request does not pay for what a model does only once.
async fn warm_up(backend: &HttpBackend, example: Bytes, deadline: Instant) {
    let timeout = WARM_UP.min(deadline.saturating_duration_since(Instant::now()));
    let headers = Headers::default();
    let call = Call { content_type: "application/json", payload: example, headers: &headers, timeout };
    if let Err(failure) = backend.invoke(call).await {
        tracing::debug!(fault = %failure.fault, "the warm-up call with the model's own example failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_the_id_it_was_saved_with() {
        assert_eq!(directory_version("flavors:\n  x: {model_id: a}\nmodel_id: m-1\nmodel_uuid: u\n"), "m-1");
        assert_eq!(directory_version("model_id: null\nmodel_uuid: 'u'\n"), "u");
        assert_eq!(directory_version("flavors: {}\n"), "local");
    }

    #[tokio::test]
    async fn a_directory_without_a_model_is_a_404() {
        let directory = tempfile::tempdir().unwrap();
        let fault = resolve_directory(directory.path()).await.err().unwrap();
        assert_eq!((fault.code, fault.stage), (Code::ResourceDoesNotExist, Stage::Load));
        assert!(
            fault.message.contains("MLmodel") && fault.message.contains(directory.path().to_str().unwrap()),
            "{fault}"
        );
    }
}
