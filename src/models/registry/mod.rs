//! MLflow's Model Registry: the version that a URI stands for now, and the location of its artifacts.
//!
//! A tracking server is asked over its REST API. Every other kind of tracking URI is read by MLflow's own client, in a
//! process of its own, so that all stores that work in the user's MLflow work here.

mod access;
mod address;
mod call;
mod error;
mod picked_versions;
mod python_client;
mod registration;
mod rest;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::de::DeserializeOwned;

use super::host::Template;
use super::uri::{ModelTarget, VersionPick};
use crate::message::{Code, Fault, Stage};
use call::{
    DownloadUriAnswer, LoggedAnswer, ModelAnswer, ModelVersion, RegisteredModel, RegistryCall, VersionAnswer,
    VersionsAnswer, highest, says_by_row,
};
use python_client::PythonClient;

pub(super) use address::RegistryAddresses;
pub use error::RegistryError;
pub(super) use error::{not_found, unavailable};
pub(super) use picked_versions::PickedVersions;
pub(super) use registration::{Provenance, Registration};
pub(super) use rest::RestClient;

/// MLflow's Model Registry.
#[derive(Debug)]
pub(super) struct Registry {
    addresses: RegistryAddresses,
    tracking: Store,
    registry: Store,
    client: PythonClient,
}

/// Entry of one version in the registry: the version that a model URI stands for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RegistryEntry {
    /// The name in messages: `sentiment-model-fast/3`, or a logged model's id.
    pub name: String,
    /// The registration, which tells two versions of one number apart.
    pub registration: Registration,
    /// The URI that always means this version: `models:/sentiment-model-fast/3`.
    pub uri: String,
    /// The URI of its artifacts.
    pub artifact_uri: String,
    /// True if its registry hands out artifacts in a way that only MLflow's client knows, and only by `uri`.
    pub own_way: bool,
    /// True if the version is tagged `signalbox.batch: rows`.
    pub is_tagged: bool,
}

/// Way of asking one of MLflow's stores.
#[derive(Debug)]
enum Store {
    RestClient(RestClient),
    Client,
}

impl Registry {
    /// Builds the registry at these addresses. Nothing is asked yet. `env` reads an environment variable, from which
    /// the credentials come. The processes of MLflow's client are forked from the template.
    pub(super) fn new(
        addresses: RegistryAddresses,
        env: &dyn Fn(&str) -> Option<String>,
        template: Template,
    ) -> Result<Self, RegistryError> {
        let store = |server: &Option<reqwest::Url>| -> Result<Store, RegistryError> {
            server.as_ref().map_or(Ok(Store::Client), |server| Ok(Store::RestClient(RestClient::new(server, env)?)))
        };
        Ok(Self {
            tracking: store(&addresses.tracking.server)?,
            registry: store(&addresses.registry().server)?,
            client: PythonClient::new(template, addresses.clone()),
            addresses,
        })
    }

    /// Resolves the version that a model URI stands for now.
    pub(super) async fn resolve(&self, target: &ModelTarget) -> Result<RegistryEntry, Fault> {
        match target {
            ModelTarget::Registered { name, pick } => self.resolve_registered(name, pick).await,
            ModelTarget::Logged { model_id } => self.resolve_logged(model_id).await,
            ModelTarget::Directory { .. } | ModelTarget::Address { .. } | ModelTarget::Noop => {
                Err(Fault::permanent(Code::InternalError, Stage::Load, "no registry knows this model"))
            }
        }
    }

    /// Looks up the versions that these picks of a registered model stand for now: none, when it was deleted.
    pub(super) async fn current(&self, name: &str, picks: &HashSet<VersionPick>) -> Result<PickedVersions, Fault> {
        let is_named = |pick: &VersionPick| matches!(pick, VersionPick::Version(_));
        // Picks by number need no look at the model itself.
        let model = if picks.iter().all(is_named) {
            RegisteredModel::default()
        } else {
            match self.ask::<ModelAnswer>(&self.registry, RegistryCall::Model { name }).await {
                Ok(answer) => answer.registered_model.unwrap_or_default(),
                Err(fault) if fault.code == Code::ResourceDoesNotExist => RegisteredModel::default(),
                Err(fault) => return Err(fault),
            }
        };
        // The model lists only the highest version of each stage, so others are looked up, each number once.
        let (mut snapshot, mut asked) = (PickedVersions::default(), HashMap::new());
        for pick in picks {
            let Some(number) = model.number(pick) else { continue };
            let mut found = model.registration(&number).or_else(|| asked.get(&number).cloned());
            if found.is_none() {
                found = self.registration(name, &number).await?;
            }
            if let Some(found) = found {
                asked.insert(number, found.clone());
                snapshot.put(pick.clone(), found);
            }
        }
        Ok(snapshot)
    }

    /// Returns the identity of this registry, the same whoever is asking.
    pub(super) fn identity(&self) -> String {
        self.addresses.registry().without_credentials()
    }

    /// Returns the tracking server, if it is one that Signalbox can ask itself.
    pub(super) fn tracking_server(&self) -> Option<&RestClient> {
        match &self.tracking {
            Store::RestClient(rest) => Some(rest),
            Store::Client => None,
        }
    }

    /// Downloads the artifacts at this URI by a process of MLflow's client. Dropped, the download stops.
    pub(super) async fn download_by_client(&self, uri: &str, directory: &Path) -> Result<(), Fault> {
        self.client.download(uri, directory).await
    }

    async fn resolve_registered(&self, name: &str, pick: &VersionPick) -> Result<RegistryEntry, Fault> {
        // The two calls run one after the other: should the version be registered again in between, its files are newer
        // than the registration they are taken for, and following the registry finds that out; the other way about
        // nobody would.
        let found = self.version(name, pick).await?;
        let (registration, is_tagged) = (Registration::from(&found), says_by_row(&found.tags));
        let version = &registration.version;
        let artifact_uri = self.artifact_uri(name, version).await?;
        Ok(RegistryEntry {
            name: format!("{name}/{version}"),
            uri: format!("models:/{name}/{version}"),
            registration,
            artifact_uri,
            own_way: self.addresses.registry().has_own_way(),
            is_tagged,
        })
    }

    async fn resolve_logged(&self, model_id: &str) -> Result<RegistryEntry, Fault> {
        let answer: LoggedAnswer = self.ask(&self.tracking, RegistryCall::Logged { model_id }).await?;
        let info = answer.model.and_then(|model| model.info);
        let is_tagged = info.as_ref().is_some_and(|info| says_by_row(&info.tags));
        let (status, artifact_uri) = info.map_or((None, None), |info| (info.status, info.artifact_uri));
        check_ready(&format!("logged model {model_id}"), status.as_deref(), "LOGGED_MODEL_READY")?;
        Ok(RegistryEntry {
            name: model_id.to_owned(),
            registration: Registration { version: model_id.into(), provenance: Provenance::default() },
            uri: format!("models:/{model_id}"),
            artifact_uri: artifact_uri.ok_or_else(|| nowhere(model_id))?,
            own_way: self.addresses.tracking.has_own_way(),
            is_tagged,
        })
    }

    /// Looks up the picked version, if it is ready.
    async fn version(&self, name: &str, pick: &VersionPick) -> Result<ModelVersion, Fault> {
        let found = match pick {
            VersionPick::Version(number) => {
                let call = RegistryCall::Version { name, version: &number.to_string() };
                self.ask::<VersionAnswer>(&self.registry, call).await?.model_version
            }
            VersionPick::Alias(alias) => {
                let found = self.ask::<VersionAnswer>(&self.registry, RegistryCall::Alias { name, alias }).await;
                // MLflow's message does not say which model has no such alias.
                let named = |fault: Fault| match fault.code {
                    Code::ResourceDoesNotExist => not_found(format!("models:/{name}@{alias}: {}", fault.message)),
                    _ => fault,
                };
                found.map_err(named)?.model_version
            }
            VersionPick::Stage(stage) => self.highest(name, Some(stage)).await?,
            VersionPick::Latest => self.highest(name, None).await?,
        };
        let found = found.ok_or_else(|| {
            not_found(match pick {
                VersionPick::Stage(stage) => {
                    format!("model {name} has no version in stage {stage}; move one there, or name a version")
                }
                _ => format!("model {name} has no version"),
            })
        })?;
        check_ready(&format!("version {} of model {name}", found.version), found.status.as_deref(), "READY")?;
        Ok(found)
    }

    /// Looks up the registration of a version, ready or not; none when there is none with that number.
    async fn registration(&self, name: &str, version: &str) -> Result<Option<Registration>, Fault> {
        match self.ask::<VersionAnswer>(&self.registry, RegistryCall::Version { name, version }).await {
            Ok(answer) => Ok(answer.model_version.as_ref().map(Registration::from)),
            Err(fault) if fault.code == Code::ResourceDoesNotExist => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn highest(&self, name: &str, stage: Option<&str>) -> Result<Option<ModelVersion>, Fault> {
        let answer: VersionsAnswer = self.ask(&self.registry, RegistryCall::Latest { name, stage }).await?;
        Ok(highest(&answer.model_versions).cloned())
    }

    async fn artifact_uri(&self, name: &str, version: &str) -> Result<String, Fault> {
        let answer: DownloadUriAnswer = self.ask(&self.registry, RegistryCall::DownloadUri { name, version }).await?;
        answer.artifact_uri.ok_or_else(|| nowhere(&format!("version {version} of model {name}")))
    }

    async fn ask<T: DeserializeOwned>(&self, store: &Store, call: RegistryCall<'_>) -> Result<T, Fault> {
        match store {
            Store::RestClient(rest) => rest.ask(call).await,
            Store::Client => self.client.ask(call).await,
        }
    }
}

/// Checks the status of a version: one that is still being registered may be ready soon; one that could not be
/// registered never will be. Older servers state no status.
fn check_ready(what: &str, status: Option<&str>, ready: &str) -> Result<(), Fault> {
    match status {
        None => Ok(()),
        Some(status) if status == ready => Ok(()),
        Some(status) if status.contains("FAILED") => {
            Err(not_found(format!("{what} could not be registered ({status})")))
        }
        Some(status) => Err(unavailable(format!("{what} is not ready ({status})"))),
    }
}

fn nowhere(what: &str) -> Fault {
    not_found(format!("the registry does not say where the artifacts of {what} are"))
}

#[cfg(test)]
mod tests;
