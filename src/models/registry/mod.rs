//! MLflow's Model Registry: the version that a URI stands for now, and the location of its artifacts.
//!
//! A tracking server is asked over its REST API. Every other kind of tracking URI is read by MLflow's own client, in a
//! process of its own, so that all stores that work in the user's MLflow work here.

mod access;
mod address;
mod call;
mod error;
mod python_client;
mod registration;
mod rest;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::faults::{not_found, unavailable};
use super::host::Template;
use super::uri::{ModelTarget, VersionPick};
use crate::message::{Code, Fault, Stage};
use address::StoreAddress;
use call::{ModelVersion, RegisteredModel, RegistryAnswer, RegistryCall, highest, says_by_row};
use python_client::PythonClient;

pub(super) use address::RegistryAddresses;
pub use address::{TrackingOrigin, tracking_uri};
pub(super) use call::LargeNumber;
pub use error::RegistryError;
pub(super) use registration::{Provenance, Registration};
pub(super) use rest::RestClient;

/// MLflow's Model Registry.
#[derive(Debug)]
pub(super) struct Registry {
    addresses: RegistryAddresses,
    /// The tracking server, if it is one that Signalbox can ask itself.
    tracking: Option<RestClient>,
    /// The server of registered models, likewise.
    registry: Option<RestClient>,
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

/// Versions that picks of a registered model stood for when the registry was asked, whether they are ready or not: those
/// that resolving the same picks would find.
pub(super) type PickedVersions = HashMap<VersionPick, Registration>;

impl Registry {
    /// Builds the registry at these addresses. Nothing is asked yet. `env` reads an environment variable, from which
    /// the credentials come. The processes of MLflow's client are forked from the template.
    pub(super) fn new(
        addresses: RegistryAddresses,
        env: &dyn Fn(&str) -> Option<String>,
        template: Arc<Template>,
    ) -> Result<Self, RegistryError> {
        let client = |address: &StoreAddress| address.server.as_ref().map(|url| RestClient::new(url, env)).transpose();
        Ok(Self {
            tracking: client(&addresses.tracking)?,
            registry: client(addresses.registry())?,
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
            match self.ask(self.registry.as_ref(), RegistryCall::Model { name }).await {
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
                snapshot.insert(pick.clone(), found);
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
        self.tracking.as_ref()
    }

    /// Returns the server of registered models, if it is one that Signalbox can ask itself.
    pub(super) fn registry_server(&self) -> Option<&RestClient> {
        self.registry.as_ref()
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
        let answer = self.ask(self.registry.as_ref(), RegistryCall::DownloadUri { name, version }).await?;
        let artifact_uri = answer.artifact_uri.ok_or_else(|| nowhere(&format!("version {version} of model {name}")))?;
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
        let answer = self.ask(self.tracking.as_ref(), RegistryCall::Logged { model_id }).await?;
        let info = answer.model.and_then(|model| model.info).unwrap_or_default();
        check_ready(&format!("logged model {model_id}"), info.status.as_deref(), "LOGGED_MODEL_READY")?;
        Ok(RegistryEntry {
            name: model_id.to_owned(),
            registration: Registration { version: model_id.into(), provenance: Provenance::default() },
            uri: format!("models:/{model_id}"),
            artifact_uri: info.artifact_uri.ok_or_else(|| nowhere(model_id))?,
            own_way: self.addresses.tracking.has_own_way(),
            is_tagged: says_by_row(&info.tags),
        })
    }

    /// Looks up the picked version, if it is ready.
    async fn version(&self, name: &str, pick: &VersionPick) -> Result<ModelVersion, Fault> {
        let number;
        let call = match pick {
            VersionPick::Version(version) => {
                number = version.to_string();
                RegistryCall::Version { name, version: &number }
            }
            VersionPick::Alias(alias) => RegistryCall::Alias { name, alias },
            VersionPick::Stage(stage) => RegistryCall::Latest { name, stage: Some(stage) },
            VersionPick::Latest => RegistryCall::Latest { name, stage: None },
        };
        let answer = self.ask(self.registry.as_ref(), call).await.map_err(|fault| match pick {
            // MLflow's message does not say which model has no such alias.
            VersionPick::Alias(alias) if fault.code == Code::ResourceDoesNotExist => {
                not_found(format!("models:/{name}@{alias}: {}", fault.message))
            }
            _ => fault,
        })?;
        let found = answer.model_version.or_else(|| highest(&answer.model_versions).cloned());
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
        match self.ask(self.registry.as_ref(), RegistryCall::Version { name, version }).await {
            Ok(answer) => Ok(answer.model_version.as_ref().map(Registration::from)),
            Err(fault) if fault.code == Code::ResourceDoesNotExist => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Asks a server, or by MLflow's own client where there is none that can be asked.
    async fn ask(&self, server: Option<&RestClient>, call: RegistryCall<'_>) -> Result<RegistryAnswer, Fault> {
        match server {
            Some(server) => server.ask(call).await,
            None => self.client.ask(call).await,
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
