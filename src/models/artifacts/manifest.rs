//! Manifest of a cached version: its files, which prove that it is whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::models::registry::{Provenance, RegistryEntry};

/// Name of the file that is written last, so that a directory without it is no version.
pub(super) const MANIFEST: &str = "manifest.json";

/// Name of the directory beside the manifest that holds the model.
pub(super) const MODEL: &str = "model";

/// Name of the file without which a directory is no model.
pub(super) const MLMODEL: &str = "MLmodel";

/// FNV-1a hash of nothing.
const FNV_BEGIN: u64 = 0xcbf2_9ce4_8422_2325;

/// Identity of a cached version, and its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub identity: VersionIdentity,
    pub files: Vec<CachedFile>,
}

/// Identity of a version: two with the same are the same version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VersionIdentity {
    /// The registry's address, without credentials.
    pub registry: String,
    /// The version's name: `sentiment-model-fast/3`, or a logged model's id.
    pub version: String,
    /// The URI of its artifacts. A model that was deleted and registered again starts anew at version 1, with other
    /// artifacts.
    pub artifact_uri: String,
    /// The provenance. Other artifacts may also lie where those of the deleted version were. Entries that were cached
    /// before this was noted have none, so they are fetched again.
    #[serde(default)]
    pub provenance: Provenance,
}

/// File of a cached model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CachedFile {
    /// The path below the model's directory.
    pub path: PathBuf,
    pub bytes: u64,
}

impl VersionIdentity {
    pub(super) fn new(registry: String, resolved: &RegistryEntry) -> Self {
        Self {
            registry,
            version: resolved.name.clone(),
            artifact_uri: resolved.artifact_uri.clone(),
            provenance: resolved.registration.provenance.clone(),
        }
    }

    /// Returns the name of the version's directory: readable, the same wherever and whenever it is made, and its own.
    /// Should two versions share a hash all the same, the manifest tells them apart.
    pub(super) fn directory_name(&self) -> String {
        let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        let readable: String =
            self.version.chars().take(80).map(|character| if is_plain(character) { character } else { '-' }).collect();
        let mut hash = FNV_BEGIN;
        for part in [&self.registry, &self.version, &self.artifact_uri] {
            hash = fnv(fnv(hash, part.as_bytes()), &[0]);
        }
        let Provenance { source, run_id, created } = &self.provenance;
        let created = created.map(|created| created.to_string());
        for (mark, part) in [(1, source), (2, run_id), (3, &created)] {
            if let Some(part) = part {
                hash = fnv(fnv(hash, &[mark]), part.as_bytes());
            }
        }
        format!("{}-{:016x}", readable.trim_start_matches('.'), hash)
    }
}

impl Manifest {
    /// Reads the manifest in the directory of a cached version.
    pub(super) fn read(entry: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(entry.join(MANIFEST))?)?)
    }

    pub(super) fn write(&self, entry: &Path) -> io::Result<()> {
        fs::write(entry.join(MANIFEST), serde_json::to_vec_pretty(self)?)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Describes the first file that is not as it was written, if there is one.
    pub(super) fn damage(&self, entry: &Path) -> Option<String> {
        let model = entry.join(MODEL);
        self.files.iter().find_map(|file| {
            let path = file.path.display();
            match fs::metadata(model.join(&file.path)) {
                Ok(found) if !found.is_file() => Some(format!("{path} is no file")),
                Ok(found) if found.len() == file.bytes => None,
                Ok(found) => Some(format!("{path} has {} of {} bytes", found.len(), file.bytes)),
                Err(error) => Some(format!("{path}: {error}")),
            }
        })
    }
}

/// Lists every file below a directory.
pub(super) fn files_below(directory: &Path) -> io::Result<Vec<CachedFile>> {
    let mut files = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(below) = pending.pop() {
        for found in fs::read_dir(directory.join(&below))? {
            let found = found?;
            let path = below.join(found.file_name());
            let metadata = fs::metadata(found.path())?;
            if metadata.is_dir() {
                pending.push(path);
            } else {
                files.push(CachedFile { path, bytes: metadata.len() });
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

/// Continues an FNV-1a hash: short, and stable for ever, which directory names need.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(registry: &str, version: &str, artifact_uri: &str) -> VersionIdentity {
        let provenance = Provenance::default();
        VersionIdentity {
            registry: registry.into(),
            version: version.into(),
            artifact_uri: artifact_uri.into(),
            provenance,
        }
    }

    #[test]
    fn directory_name_is_stable() {
        let name = identity("http://h", "my model/3", "s3://b/m").directory_name();
        assert_eq!(name, "my-model-3-fcd22d70aa242f8e");
        assert_ne!(name, identity("http://h", "my model/3", "s3://b/n").directory_name());
        assert_ne!(name, identity("http://i", "my model/3", "s3://b/m").directory_name());
    }

    #[test]
    fn directory_name_differs_with_provenance() {
        let text = |text: &str| Some(text.to_owned());
        let made = [
            Provenance::default(),
            Provenance { source: text("s3://b/m"), ..Provenance::default() },
            Provenance { run_id: text("s3://b/m"), ..Provenance::default() },
            Provenance { created: Some(1), ..Provenance::default() },
            Provenance { created: Some(2), ..Provenance::default() },
            Provenance { source: text("s3://b/m"), run_id: text("r"), created: Some(2) },
        ];
        let names = made.clone().map(|provenance| VersionIdentity { provenance, ..identity("r", "a/1", "s3://b/m") });
        let names: std::collections::HashSet<_> = names.iter().map(VersionIdentity::directory_name).collect();
        assert_eq!(names.len(), made.len());
    }

    /// A manifest from before provenance was noted still counts towards the limit, and is pruned in its turn.
    #[test]
    fn manifest_reads_without_provenance() {
        let written = r#"{"identity": {"registry": "r", "version": "a/1", "artifact_uri": "s3://b"}, "files": []}"#;
        let manifest: Manifest = serde_json::from_str(written).unwrap();
        assert_eq!(manifest.identity, identity("r", "a/1", "s3://b"));
    }

    #[test]
    fn damage_is_described_when_a_file_changed() {
        let entry = tempfile::tempdir().unwrap();
        let entry = entry.path();
        fs::create_dir_all(entry.join(MODEL).join("data")).unwrap();
        fs::write(entry.join(MODEL).join(MLMODEL), "flavors: {}").unwrap();
        fs::write(entry.join(MODEL).join("data/weights"), [7; 100]).unwrap();
        let files = files_below(&entry.join(MODEL)).unwrap();
        let manifest = Manifest { identity: identity("a", "b", "c"), files };
        manifest.write(entry).unwrap();
        assert_eq!((Manifest::read(entry).unwrap(), manifest.bytes()), (manifest.clone(), 111));
        assert_eq!(manifest.damage(entry), None);
        fs::write(entry.join(MODEL).join("data/weights"), [7; 99]).unwrap();
        assert_eq!(manifest.damage(entry).unwrap(), "data/weights has 99 of 100 bytes");
        fs::remove_file(entry.join(MODEL).join("data/weights")).unwrap();
        assert!(manifest.damage(entry).unwrap().contains("data/weights"));
        fs::write(entry.join(MANIFEST), "{\"identity\":").unwrap();
        assert!(Manifest::read(entry).is_err());
    }

    proptest! {
        #[test]
        fn directory_name_is_one_safe_segment(version in "\\PC{0,100}") {
            let name = identity("", &version, "").directory_name();
            prop_assert!(name.len() < 120 && !name.starts_with('.') && !name.contains('/') && name.is_ascii());
        }
    }
}
