//! Versions that URIs were resolved to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::registry::RegistryEntry;
use crate::message::{Code, Fault, Stage};

/// Version of a directory whose `MLmodel` has no id.
const LOCAL: &str = "local";

/// Location of a version's artifacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ArtifactLocation {
    /// An artifact store, as the registry says.
    Registry(RegistryEntry),
    /// A directory of this machine.
    Directory(PathBuf),
}

/// Version that a URI was resolved to.
#[derive(Debug)]
pub(super) struct ResolvedModel {
    /// The name by which operators know it.
    pub(super) name: Arc<str>,
    /// The version as replies state it.
    pub(super) version: Arc<str>,
    /// The location of its artifacts.
    pub(super) location: ArtifactLocation,
    /// True if its registry has the version tagged `signalbox.batch: rows`.
    pub(super) is_tagged: bool,
}

impl From<RegistryEntry> for ResolvedModel {
    fn from(mut entry: RegistryEntry) -> Self {
        // The tag is not part of the location: a version remains the same when it gets the tag, or loses it.
        let is_tagged = std::mem::take(&mut entry.is_tagged);
        Self {
            name: entry.name.as_str().into(),
            version: Arc::clone(&entry.registration.version),
            is_tagged,
            location: ArtifactLocation::Registry(entry),
        }
    }
}

impl ResolvedModel {
    /// Reads the model in a directory.
    pub(super) async fn in_directory(path: &Path) -> Result<Self, Fault> {
        let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
        let mlmodel = tokio::fs::read_to_string(path.join("MLmodel")).await.map_err(|error| {
            let message = format!(
                "no model can be read in {}: MLmodel: {error}; name the directory that holds MLmodel",
                path.display()
            );
            Fault::permanent(Code::ResourceDoesNotExist, Stage::Load, message)
        })?;
        Ok(Self {
            name: path.display().to_string().into(),
            version: id_in(&mlmodel).into(),
            location: ArtifactLocation::Directory(path),
            is_tagged: false,
        })
    }
}

/// Finds the id that MLflow gave the model when it was saved.
fn id_in(mlmodel: &str) -> &str {
    let value = |key: &str| {
        let mut values = mlmodel.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        values
            .next()
            .map(|value| value.trim().trim_matches(['\'', '"']))
            .filter(|value| !value.is_empty() && *value != "null")
    };
    value("model_id").or_else(|| value("model_uuid")).unwrap_or(LOCAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_version_is_the_saved_model_id() {
        assert_eq!(id_in("flavors:\n  x: {model_id: a}\nmodel_id: m-1\nmodel_uuid: u\n"), "m-1");
        assert_eq!(id_in("model_id: null\nmodel_uuid: 'u'\n"), "u");
        assert_eq!(id_in("flavors: {}\n"), "local");
    }

    #[tokio::test]
    async fn directory_is_not_found_when_it_has_no_model() {
        let directory = tempfile::tempdir().unwrap();
        let fault = ResolvedModel::in_directory(directory.path()).await.unwrap_err();
        assert_eq!((fault.code, fault.stage), (Code::ResourceDoesNotExist, Stage::Load));
        assert!(
            fault.message.contains("MLmodel") && fault.message.contains(directory.path().to_str().unwrap()),
            "{fault}"
        );
    }
}
