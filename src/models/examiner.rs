//! Examination of the registry and of models, for `signalbox doctor`: what a URI stands for now, and what the model asks
//! for. No model is loaded or downloaded.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::fs;

use super::artifacts::served_file;
use super::background::Background;
use super::faults::with_cure;
use super::host::{ENVIRONMENT_FILES, EnvironmentFiles, TemplateSpec};
use super::registry::{Registry, RegistryAddresses, RegistryError};
use super::resolved_model::{ArtifactLocation, ResolvedModel};
use super::templates::Templates;
use super::uri::{ModelTarget, ModelUri};
use crate::config::{self, environment};
use crate::message::Fault;

/// Asks about models, and loads none.
pub(crate) struct Examiner {
    registry: Registry,
    background: Background,
    /// Address of the registry, without credentials.
    address: String,
}

/// Answer of a tracking server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerReport {
    /// Time that the server has, if it says.
    pub(crate) time: Option<SystemTime>,
}

/// A model that a URI stands for.
pub(crate) struct ExaminedModel {
    /// Name of the version, such as `sentiment-model-fast/3`.
    pub(crate) name: String,
    /// Files that define its environment; none where they cannot be read without a download.
    pub(crate) files: Option<EnvironmentFiles>,
}

impl Examiner {
    /// Makes an examiner of the registry that the configuration and the environment name. Nothing is asked yet.
    ///
    /// # Errors
    /// When the registry's address, or the settings for its client, cannot be used.
    pub(crate) fn new(models: &config::Models, registry: &config::Registry) -> Result<Self, RegistryError> {
        let addresses = RegistryAddresses::read(registry.tracking_uri.as_deref(), &environment)?;
        let background = Background::default();
        // The process of MLflow's client needs none of the libraries of models.
        let spec = TemplateSpec { environment: addresses.environment(), ..TemplateSpec::default() };
        let templates = Templates::new(spec, background.clone());
        let registry = Registry::new(addresses, &environment, templates.get(&models.python))?;
        let address = registry.identity();
        Ok(Self { registry, background, address })
    }

    /// Returns the address of the registry, without credentials.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Asks the tracking server for something small; none where MLflow's own client has to ask.
    pub(crate) async fn server(&self) -> Option<Result<ServerReport, Fault>> {
        let server = self.registry.registry_server()?;
        Some(server.time().await.map(|time| ServerReport { time }))
    }

    /// Finds what a URI stands for now; none where nothing is loaded for it.
    ///
    /// # Errors
    /// The fault that the first request for it would get.
    pub(crate) async fn model(&self, uri: &ModelUri) -> Result<Option<ExaminedModel>, Fault> {
        let resolved = match uri.target() {
            ModelTarget::Address { .. } | ModelTarget::Noop => return Ok(None),
            ModelTarget::Directory { path } => ResolvedModel::in_directory(path).await?,
            target => ResolvedModel::from(self.registry.resolve(target).await.map_err(with_cure)?),
        };
        let files = match &resolved.location {
            ArtifactLocation::Directory(path) => Some(files_in(path).await),
            ArtifactLocation::Registry(entry) => match directory_of(&entry.artifact_uri) {
                Some(path) => Some(files_in(&path).await),
                None if entry.own_way => None,
                None => self.served_files(&entry.artifact_uri).await,
            },
        };
        Ok(Some(ExaminedModel { name: resolved.name.to_string(), files }))
    }

    /// Reads the files that define an environment from a tracking server; none when it does not serve them.
    async fn served_files(&self, artifact_uri: &str) -> Option<EnvironmentFiles> {
        let server = self.registry.tracking_server()?;
        let mut files = EnvironmentFiles::new();
        for name in ENVIRONMENT_FILES {
            // A model need not have each of them.
            if let Ok(text) = served_file(server, artifact_uri, name).await? {
                files.insert(name.to_owned(), text);
            }
        }
        Some(files)
    }

    /// Ends the processes that were started.
    pub(crate) async fn end(self) {
        self.background.closing.cancel();
        self.background.tasks.close();
        self.background.tasks.wait().await;
    }
}

/// Returns the directory of this machine that an artifact URI means.
fn directory_of(artifact_uri: &str) -> Option<PathBuf> {
    let path = artifact_uri.strip_prefix("file://").unwrap_or(artifact_uri);
    path.starts_with('/').then(|| PathBuf::from(path))
}

async fn files_in(directory: &Path) -> EnvironmentFiles {
    let mut files = EnvironmentFiles::new();
    for name in ENVIRONMENT_FILES {
        // A model need not have each of them.
        if let Ok(text) = fs::read_to_string(directory.join(name)).await {
            files.insert(name.to_owned(), text);
        }
    }
    files
}
