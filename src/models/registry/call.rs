//! Calls of a registry, and their answers: the same over REST and through MLflow's client, whose process answers in
//! REST's terms.
//!
//! MLflow leaves out empty fields, so every field is optional: a stage without versions is `{}`.

use serde::{Deserialize, Serialize};

use super::registration::{Provenance, Registration};

/// One call of a registry.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub(super) enum RegistryCall<'a> {
    /// Asks for this version of a model: [`VersionAnswer`].
    Version { name: &'a str, version: &'a str },
    /// Asks for the version with this alias: [`VersionAnswer`].
    Alias { name: &'a str, alias: &'a str },
    /// Asks for the highest version in this stage, or one for each stage: [`VersionsAnswer`].
    Latest { name: &'a str, stage: Option<&'a str> },
    /// Asks for the URI of a version's artifacts: [`DownloadUriAnswer`].
    DownloadUri { name: &'a str, version: &'a str },
    /// Asks for a model with its stages and aliases: [`ModelAnswer`].
    Model { name: &'a str },
    /// Asks for a logged model: [`LoggedAnswer`].
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

#[derive(Debug, Clone, Deserialize)]
pub(super) struct ModelVersion {
    pub version: String,
    pub status: Option<String>,
    pub current_stage: Option<String>,
    pub source: Option<String>,
    pub run_id: Option<String>,
    pub creation_timestamp: Option<Timestamp>,
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// Unix milliseconds; protobuf's own JSON has 64-bit numbers as text.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Timestamp {
    Number(u64),
    Text(String),
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Tag {
    pub key: String,
    pub value: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct VersionAnswer {
    pub model_version: Option<ModelVersion>,
}

#[derive(Debug, Deserialize)]
pub(super) struct VersionsAnswer {
    #[serde(default)]
    pub model_versions: Vec<ModelVersion>,
}

#[derive(Debug, Deserialize)]
pub(super) struct DownloadUriAnswer {
    pub artifact_uri: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ModelAnswer {
    pub registered_model: Option<RegisteredModel>,
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
pub(super) struct LoggedAnswer {
    pub model: Option<LoggedModel>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LoggedModel {
    pub info: Option<LoggedInfo>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LoggedInfo {
    pub status: Option<String>,
    pub artifact_uri: Option<String>,
    #[serde(default)]
    pub tags: Vec<Tag>,
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
        let created = found.creation_timestamp.as_ref().and_then(|timestamp| match timestamp {
            Timestamp::Number(number) => Some(*number),
            Timestamp::Text(text) => text.parse().ok(),
        });
        let provenance = Provenance { source: said(&found.source), run_id: said(&found.run_id), created };
        Self { version: found.version.as_str().into(), provenance }
    }
}
