//! Calls of a registry, and their answers: the same over REST and through MLflow's client, whose process answers in
//! REST's terms.
//!
//! MLflow leaves out empty fields, so every field is optional: a stage without versions is `{}`.

use serde::{Deserialize, Serialize};

use super::registration::{Provenance, Registration};
use crate::models::uri::VersionPick;

/// One call of a registry.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub(super) enum RegistryCall<'a> {
    /// Asks for this version of a model: `model_version`.
    Version { name: &'a str, version: &'a str },
    /// Asks for the version with this alias: `model_version`.
    Alias { name: &'a str, alias: &'a str },
    /// Asks for the highest version in this stage, or one for each stage: `model_versions`.
    Latest { name: &'a str, stage: Option<&'a str> },
    /// Asks for the URI of a version's artifacts: `artifact_uri`.
    DownloadUri { name: &'a str, version: &'a str },
    /// Asks for a model with its stages and aliases: `registered_model`.
    Model { name: &'a str },
    /// Asks for a logged model: `model`.
    Logged { model_id: &'a str },
}

impl<'a> RegistryCall<'a> {
    /// Returns the path below `/api/2.0/mlflow/`, a last segment of it that may need quoting, and the query.
    pub(super) fn rest(self) -> (&'static str, Option<&'a str>, Vec<(&'static str, &'a str)>) {
        match self {
            Self::Version { name, version } => ("model-versions/get", None, vec![("name", name), ("version", version)]),
            Self::Alias { name, alias } => ("registered-models/alias", None, vec![("name", name), ("alias", alias)]),
            Self::Latest { name, stage } => {
                let mut query = vec![("name", name)];
                query.extend(stage.map(|stage| ("stages", stage)));
                ("registered-models/get-latest-versions", None, query)
            }
            Self::DownloadUri { name, version } => {
                ("model-versions/get-download-uri", None, vec![("name", name), ("version", version)])
            }
            Self::Model { name } => ("registered-models/get", None, vec![("name", name)]),
            Self::Logged { model_id } => ("logged-models", Some(model_id), Vec::new()),
        }
    }
}

/// Answer of a registry: the field that the call asks for, unless the registry has nothing there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RegistryAnswer {
    pub model_version: Option<ModelVersion>,
    pub model_versions: Vec<ModelVersion>,
    pub artifact_uri: Option<String>,
    pub registered_model: Option<RegisteredModel>,
    pub model: Option<LoggedModel>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct ModelVersion {
    pub version: String,
    pub status: Option<String>,
    pub current_stage: Option<String>,
    pub source: Option<String>,
    pub run_id: Option<String>,
    /// The time of its registration, in Unix milliseconds.
    pub creation_timestamp: Option<LargeNumber>,
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// Number of 64 bits. The JSON form of protocol buffers has these as texts; MLflow makes them numbers.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(in crate::models) enum LargeNumber {
    Number(u64),
    Text(String),
}

impl LargeNumber {
    pub(in crate::models) fn value(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Tag {
    pub key: String,
    pub value: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RegisteredModel {
    pub latest_versions: Vec<ModelVersion>,
    pub aliases: Vec<ModelAlias>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ModelAlias {
    pub alias: String,
    pub version: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct LoggedModel {
    pub info: Option<LoggedInfo>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LoggedInfo {
    pub status: Option<String>,
    pub artifact_uri: Option<String>,
    pub tags: Vec<Tag>,
}

impl RegisteredModel {
    /// Returns the number of the picked version. A number in the pick itself is taken at its word.
    pub(super) fn number(&self, pick: &VersionPick) -> Option<String> {
        let highest_where = |holds: &dyn Fn(&str) -> bool| {
            let versions = self.latest_versions.iter();
            highest(versions.filter(|found| holds(found.current_stage.as_deref().unwrap_or_default())))
                .map(|found| found.version.clone())
        };
        match pick {
            VersionPick::Version(version) => Some(version.to_string()),
            VersionPick::Latest => highest_where(&|_| true),
            VersionPick::Stage(stage) => highest_where(&|found| found.eq_ignore_ascii_case(stage)),
            VersionPick::Alias(alias) => {
                self.aliases.iter().find(|known| known.alias == *alias).map(|known| known.version.clone())
            }
        }
    }

    /// Returns the registration of a version that the model lists; it lists only the highest of each stage.
    pub(super) fn registration(&self, number: &str) -> Option<Registration> {
        self.latest_versions.iter().find(|found| found.version == number).map(Registration::from)
    }
}

/// Tells whether the owner's tags say that the model answers each row as if it were alone.
pub(super) fn says_by_row(tags: &[Tag]) -> bool {
    tags.iter()
        .any(|tag| tag.key == "signalbox.batch" && tag.value.as_deref().is_some_and(|value| value.trim() == "rows"))
}

/// Finds the version with the highest number. Several may share a stage, and the one that was moved there last is not
/// the one that counts.
pub(super) fn highest<'a>(versions: impl IntoIterator<Item = &'a ModelVersion>) -> Option<&'a ModelVersion> {
    versions.into_iter().max_by_key(|found| found.version.parse::<u64>().unwrap_or(0))
}

impl From<&ModelVersion> for Registration {
    fn from(found: &ModelVersion) -> Self {
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let created = found.creation_timestamp.as_ref().and_then(LargeNumber::value);
        let provenance = Provenance { source: said(&found.source), run_id: said(&found.run_id), created };
        Self { version: found.version.as_str().into(), provenance }
    }
}
