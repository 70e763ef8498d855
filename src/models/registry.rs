//! MLflow's Model Registry, over its REST API: which version a URI stands for now.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::uri::{Pick, redacted};
use crate::invocation::{http_client, root_cause};
use crate::message::{Code, Fault, Stage};

/// How long the registry may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the registry may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A model's example of a request; larger ones are not worth a warm-up call.
const LARGEST_EXAMPLE: u64 = 1 << 20;

/// MLflow's Model Registry.
#[derive(Debug)]
pub(super) struct Registry {
    client: Client,
    tracking_uri: String,
    access: Access,
}

/// What a model URI stands for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    /// The version's number, or the id of a logged model.
    pub version: Arc<str>,
    /// The URI that always means this version.
    pub uri: String,
}

/// Why the registry at a tracking URI cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Not an address.
    #[error("the tracking URI `{0}` ({1}) is not an address: {2}")]
    NotAnAddress(String, &'static str, String),
    /// One of MLflow's other kinds of tracking URI.
    #[error(
        "the tracking URI `{0}` ({1}) is not served over HTTP. Start a tracking server on that store (mlflow server \
         --backend-store-uri …), and give its http(s):// address"
    )]
    NotHttp(String, &'static str),
    /// No HTTP client can be made.
    #[error("no HTTP client for the registry can be made: {0}")]
    Client(String),
}

/// How the registry is told who is asking.
enum Access {
    Open,
    Basic { username: String, password: Option<String> },
    Bearer(String),
}

impl Registry {
    /// The registry at the configured tracking URI, else at `MLFLOW_TRACKING_URI`, else on this machine's port 5001.
    /// Nothing is asked yet. `env` reads an environment variable.
    pub(super) fn new(configured: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, RegistryError> {
        let (text, origin) = match (configured, env("MLFLOW_TRACKING_URI").filter(|text| !text.is_empty())) {
            (Some(text), _) => (text.to_owned(), "registry.tracking_uri"),
            (None, Some(text)) => (text, "MLFLOW_TRACKING_URI"),
            (None, None) => ("http://127.0.0.1:5001".to_owned(), "the default of registry.tracking_uri"),
        };
        let shown = redacted(&text).into_owned();
        let url = match Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => url,
            Ok(_) => return Err(RegistryError::NotHttp(shown, origin)),
            // MLflow takes a text without a scheme for a directory.
            Err(_) if !text.contains("://") => return Err(RegistryError::NotHttp(shown, origin)),
            Err(error) => return Err(RegistryError::NotAnAddress(shown, origin, error.to_string())),
        };
        let client = http_client(&url).connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT).build();
        let client = client.map_err(|error| RegistryError::Client(root_cause(&error)))?;
        Ok(Self { client, tracking_uri: text.trim_end_matches('/').to_owned(), access: Access::from_env(env) })
    }

    /// The tracking URI as MLflow is given it, with the password it may hold.
    pub(super) fn tracking_uri(&self) -> &str {
        &self.tracking_uri
    }

    /// The version of a registered model that is picked now.
    pub(super) async fn resolve(&self, name: &str, pick: &Pick) -> Result<Resolved, Fault> {
        let found = match pick {
            Pick::Version(number) => {
                let query = [("name", name), ("version", &number.to_string())];
                self.get::<OneVersion>("model-versions/get", &query).await?.model_version
            }
            Pick::Alias(alias) => {
                let query = [("name", name), ("alias", alias)];
                self.get::<OneVersion>("registered-models/alias", &query).await?.model_version
            }
            Pick::Stage(stage) => self.highest(&[("name", name), ("stages", stage)]).await?,
            Pick::Latest => self.highest(&[("name", name)]).await?,
        };
        let version = found.ok_or_else(|| {
            not_found(match pick {
                Pick::Stage(stage) => {
                    format!("model {name} has no version in stage {stage}; move one there, or name a version")
                }
                _ => format!("model {name} has no version"),
            })
        })?;
        check_ready(&format!("version {} of model {name}", version.version), version.status.as_deref(), "READY")?;
        Ok(Resolved { uri: format!("models:/{name}/{}", version.version), version: version.version.into() })
    }

    /// The logged model with this id.
    pub(super) async fn resolve_logged(&self, model_id: &str) -> Result<Resolved, Fault> {
        let answer: OneLogged = self.get(&format!("logged-models/{model_id}"), &[]).await?;
        let status = answer.model.and_then(|model| model.info).and_then(|info| info.status);
        check_ready(&format!("logged model {model_id}"), status.as_deref(), "LOGGED_MODEL_READY")?;
        Ok(Resolved { uri: format!("models:/{model_id}"), version: model_id.into() })
    }

    /// The request that a version's author logged as an example, if there is one that is not too large.
    pub(super) async fn serving_example(&self, name: &str, version: &str) -> Option<Bytes> {
        let url = format!("{}/model-versions/get-artifact", self.tracking_uri);
        let query = [("name", name), ("version", version), ("path", "serving_input_example.json")];
        let answer =
            self.access.add_to(self.client.get(url).query(&query)).send().await.ok()?.error_for_status().ok()?;
        if answer.content_length().is_none_or(|length| length > LARGEST_EXAMPLE) {
            return None;
        }
        answer.bytes().await.ok()
    }

    /// The highest version among those listed. Several versions may share a stage, and the one that was moved there
    /// last is not the one that counts.
    async fn highest(&self, query: &[(&str, &str)]) -> Result<Option<ModelVersion>, Fault> {
        let answer: ManyVersions = self.get("registered-models/get-latest-versions", query).await?;
        Ok(answer.model_versions.into_iter().max_by_key(|found| found.version.parse::<u64>().unwrap_or(0)))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Fault> {
        let url = format!("{}/api/2.0/mlflow/{path}", self.tracking_uri);
        let request = self.access.add_to(self.client.get(url).query(query));
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| self.unreachable(&error))?;
        if !status.is_success() {
            return Err(self.refusal(status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| self.no_registry(&format!("its answer cannot be read: {error}")))
    }

    /// The fault for an error answer.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> Fault {
        let error: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
        let said = error.message.unwrap_or_default();
        let shown = self.shown();
        match (status.as_u16(), error.error_code.as_deref()) {
            // An alias that does not exist is a 400 to MLflow.
            (404, Some(_)) | (400, _) => not_found(said),
            (404, None) => self.no_registry("it does not know MLflow's API"),
            (401, _) => unavailable(format!(
                "the registry at {shown} asks who is calling (401); set MLFLOW_TRACKING_USERNAME and \
                 MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )),
            (403, _) => {
                // A refused Host header is explained in plain text only.
                let text = std::str::from_utf8(body).unwrap_or_default();
                let reason = if said.is_empty() { text } else { &said };
                unavailable(format!("the registry at {shown} does not let Signalbox in (403): {}", first_line(reason)))
            }
            _ => unavailable(format!("the registry at {shown} failed ({status}): {}", first_line(&said))),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Fault {
        unavailable(format!(
            "the registry at {} cannot be reached: {}; is the MLflow tracking server running, and is \
             registry.tracking_uri (or MLFLOW_TRACKING_URI) right?",
            self.shown(),
            root_cause(error)
        ))
    }

    fn no_registry(&self, why: &str) -> Fault {
        unavailable(format!(
            "what answers at {} is no MLflow tracking server: {why}; check registry.tracking_uri (or \
             MLFLOW_TRACKING_URI)",
            self.shown()
        ))
    }

    fn shown(&self) -> std::borrow::Cow<'_, str> {
        redacted(&self.tracking_uri)
    }
}

impl Access {
    /// As MLflow's own client reads it: a username and password win over a token.
    fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let given = |name| env(name).filter(|value| !value.is_empty());
        if let Some(username) = given("MLFLOW_TRACKING_USERNAME") {
            return Self::Basic { username, password: given("MLFLOW_TRACKING_PASSWORD") };
        }
        given("MLFLOW_TRACKING_TOKEN").map_or(Self::Open, Self::Bearer)
    }

    fn add_to(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Open => request,
            Self::Basic { username, password } => request.basic_auth(username, password.as_deref()),
            Self::Bearer(token) => request.bearer_auth(token),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Open => "Open",
            Self::Basic { .. } => "Basic",
            Self::Bearer(_) => "Bearer",
        })
    }
}

/// A version that is still being registered may be ready soon; one that could not be registered never will be.
/// Older servers do not say.
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

fn not_found(message: String) -> Fault {
    Fault::permanent(Code::ResourceDoesNotExist, Stage::Load, message)
}

fn unavailable(message: String) -> Fault {
    Fault::passing(Code::TemporarilyUnavailable, Stage::Load, message)
}

fn first_line(text: &str) -> &str {
    let line = text.trim().lines().next().unwrap_or_default();
    if line.starts_with('<') { "" } else { &line[..line.floor_char_boundary(300)] }
}

// MLflow leaves out whatever is empty, so every field is optional: a stage without versions is `{}`.

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    error_code: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ModelVersion {
    version: String,
    status: Option<String>,
}

#[derive(Debug, Deserialize)]
struct OneVersion {
    model_version: Option<ModelVersion>,
}

#[derive(Debug, Deserialize)]
struct ManyVersions {
    #[serde(default)]
    model_versions: Vec<ModelVersion>,
}

#[derive(Debug, Deserialize)]
struct OneLogged {
    model: Option<Logged>,
}

#[derive(Debug, Deserialize)]
struct Logged {
    info: Option<LoggedInfo>,
}

#[derive(Debug, Deserialize)]
struct LoggedInfo {
    status: Option<String>,
}

#[cfg(test)]
mod tests;
