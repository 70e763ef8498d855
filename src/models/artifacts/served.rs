//! Artifacts that a tracking server serves: listed and downloaded over its REST API.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::Url;
use serde::Deserialize;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use super::manifest::{CachedFile, MLMODEL};
use super::{FetchError, no_model};
use crate::message::Fault;
use crate::models::faults::{not_found, unavailable};
use crate::models::registry::{LargeNumber, RestClient};

/// Requests that are under way at once.
const CONCURRENCY: usize = 8;

/// Depth of directories beyond which a listing is taken for a server's mistake.
const DEEPEST: usize = 64;

/// Path below which a server serves artifacts.
const ENDPOINT: &str = "/api/2.0/mlflow-artifacts/artifacts";

/// Directory of artifacts on a tracking server.
#[derive(Debug)]
pub(super) struct ServedArtifacts<'a> {
    server: &'a RestClient,
    /// The server's address of all artifacts.
    endpoint: Url,
    /// The directory below that address.
    root: String,
}

impl<'a> ServedArtifacts<'a> {
    /// Finds the directory that an artifact URI means, if it is one that the tracking server serves (or another server
    /// that the URI names).
    pub(super) fn at(server: &'a RestClient, artifact_uri: &str) -> Option<Self> {
        let (endpoint, root) = if let Some(rest) = artifact_uri.strip_prefix("mlflow-artifacts:") {
            let mut endpoint = server.address().clone();
            let root = match rest.strip_prefix("//") {
                // `mlflow-artifacts:///path` names no host either.
                Some(rest) if !rest.starts_with('/') => {
                    let (host, root) = rest.split_once('/')?;
                    let named = Url::parse(&format!("{}://{host}", endpoint.scheme())).ok()?;
                    endpoint.set_host(named.host_str()).ok()?;
                    endpoint.set_port(named.port()).ok()?;
                    if endpoint.origin() != server.address().origin() {
                        endpoint.set_username("").ok()?;
                        endpoint.set_password(None).ok()?;
                    }
                    root
                }
                _ => rest,
            };
            let path = format!("{}{ENDPOINT}", endpoint.path().trim_end_matches('/'));
            endpoint.set_path(&path);
            (endpoint, root.to_owned())
        } else if artifact_uri.starts_with("http") {
            let (base, root) = artifact_uri.split_once(ENDPOINT)?;
            (Url::parse(&format!("{base}{ENDPOINT}")).ok()?, root.to_owned())
        } else {
            return None;
        };
        Some(Self { server, endpoint, root: root.trim_matches('/').to_owned() })
    }

    /// Downloads everything into an existing directory, and returns its files.
    pub(super) async fn download(&self, into: &Path) -> Result<Vec<CachedFile>, FetchError> {
        // The top directory is listed alone, so that artifacts without a model cost no download.
        let first = self.list(into, "").await?;
        if !first.iter().any(|found| !found.is_dir && found.path == MLMODEL) {
            return Err(no_model(&self.root).into());
        }
        // Listings find more, so listings and downloads share one queue of bounded concurrency.
        let mut pending = VecDeque::from(first);
        let mut under_way = FuturesUnordered::new();
        let mut files = Vec::new();
        loop {
            while under_way.len() < CONCURRENCY
                && let Some(found) = pending.pop_front()
            {
                under_way.push(self.take(into, found));
            }
            let Some(taken) = under_way.next().await else { break };
            let (found, file) = taken?;
            pending.extend(found);
            files.extend(file);
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }

    /// Lists a directory, or downloads a file.
    async fn take(&self, into: &Path, found: ListedFile) -> Result<(Vec<ListedFile>, Option<CachedFile>), FetchError> {
        if found.is_dir {
            return Ok((self.list(into, &found.path).await?, None));
        }
        let bytes = match self.download_file(into, &found).await {
            // A broken connection is no reason to begin with the first file again, so the file is tried once more.
            Err(FetchError::Fault(fault)) if fault.retryable => {
                tracing::debug!(path = found.path, %fault, "a file is downloaded again");
                self.download_file(into, &found).await?
            }
            outcome => outcome?,
        };
        Ok((Vec::new(), Some(CachedFile { path: PathBuf::from(found.path), bytes })))
    }

    /// Lists the content of a directory, and makes that directory.
    async fn list(&self, into: &Path, directory: &str) -> Result<Vec<ListedFile>, FetchError> {
        if directory.split('/').count() > DEEPEST {
            return Err(unavailable(format!("the artifacts at {} are too deep: {directory}", self.root)).into());
        }
        let path = joined(&self.root, directory);
        let request = self.server.get(self.endpoint.clone()).query(&[("path", &path)]);
        let mut listing: Listing = self.server.json(request).await?;
        if !directory.is_empty() {
            fs::create_dir_all(into.join(directory)).await?;
        }
        for found in &mut listing.files {
            if !is_safe(&found.path) {
                let name = &found.path;
                return Err(
                    not_found(format!("the artifacts at {path} have a file of a forbidden name: {name:?}")).into()
                );
            }
            found.path = joined(directory, &found.path);
        }
        Ok(listing.files)
    }

    /// Reads a small file, such as one that lists requirements.
    async fn text(&self, name: &str) -> Result<String, Fault> {
        let server = self.server;
        let answer = server.get(self.url_of(name)).send().await.map_err(|error| server.unreachable(&error))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| server.unreachable(&error))?;
        if !status.is_success() {
            return Err(server.refusal(status, &body));
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Returns the address of a file.
    fn url_of(&self, path: &str) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(self.root.split('/').filter(|part| !part.is_empty())).extend(path.split('/'));
        }
        url
    }

    async fn download_file(&self, into: &Path, file: &ListedFile) -> Result<u64, FetchError> {
        let server = self.server;
        let mut answer =
            server.get(self.url_of(&file.path)).send().await.map_err(|error| server.unreachable(&error))?;
        let status = answer.status();
        if !status.is_success() {
            let body = answer.bytes().await.map_err(|error| server.unreachable(&error))?;
            return Err(server.refusal(status, &body).into());
        }
        let path = into.join(&file.path);
        if let Some(parent) = path.parent().filter(|parent| *parent != into) {
            fs::create_dir_all(parent).await?;
        }
        let mut written = 0;
        let mut to = File::create(&path).await?;
        while let Some(piece) = answer.chunk().await.map_err(|error| server.unreachable(&error))? {
            written += piece.len() as u64;
            to.write_all(&piece).await?;
        }
        to.flush().await?;
        match file.file_size.as_ref().and_then(LargeNumber::value) {
            Some(listed) if listed != written => Err(unavailable(format!(
                "{} in the artifacts at {} has {listed} bytes, of which {written} came",
                file.path, self.root
            ))
            .into()),
            _ => Ok(written),
        }
    }
}

/// Reads a small file of the artifacts at a URI; none when the server does not serve them.
pub(in crate::models) async fn served_file(
    server: &RestClient,
    artifact_uri: &str,
    name: &str,
) -> Option<Result<String, Fault>> {
    Some(ServedArtifacts::at(server, artifact_uri)?.text(name).await)
}

fn joined(directory: &str, name: &str) -> String {
    match (directory, name) {
        ("", name) => name.to_owned(),
        (directory, "") => directory.to_owned(),
        (directory, name) => format!("{directory}/{name}"),
    }
}

/// Tells whether a name stays below the directory that it is listed in, on any system.
fn is_safe(name: &str) -> bool {
    !name.contains(['\\', '\0']) && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[derive(Debug, Deserialize)]
struct Listing {
    /// The files; an empty directory has none, and neither has one that does not exist.
    #[serde(default)]
    files: Vec<ListedFile>,
}

/// File or directory, as listed.
#[derive(Debug, Deserialize)]
struct ListedFile {
    /// The path below the artifacts' own directory; as it is listed, below the directory that is listed.
    path: String,
    #[serde(default)]
    is_dir: bool,
    file_size: Option<LargeNumber>,
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn is_safe_refuses_names_outside_the_directory() {
        for safe in ["MLmodel", "a b", "data/weights.bin", "..a", "a..", "ü", "a:b"] {
            assert!(is_safe(safe), "{safe}");
        }
        for unsafe_name in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../a",
            "a/../b",
            "a/..",
            ".",
            "./a",
            "a/./b",
            "a//b",
            "a/",
            "a\\b",
            "..\\a",
            "a\0b",
        ] {
            assert!(!is_safe(unsafe_name), "{unsafe_name:?}");
        }
    }

    proptest! {
        #[test]
        fn safe_names_stay_below_the_directory(name in "[./\\\\a-c\\PC]{0,12}") {
            if is_safe(&name) {
                let path = Path::new("/root").join(&name);
                prop_assert!(path.starts_with("/root") && path != Path::new("/root"));
                prop_assert!(path.components().all(|part| part != Component::ParentDir));
            }
        }
    }
}
