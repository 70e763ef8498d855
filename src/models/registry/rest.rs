//! Client of a tracking server's REST API.

use std::time::{Duration, SystemTime};

use reqwest::header::DATE;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::access::Access;
use super::call::{RegistryAnswer, RegistryCall};
use super::error::RegistryError;
use crate::invocation::{http_client, root_cause};
use crate::message::Fault;
use crate::models::faults::{not_found, unavailable};
use crate::models::uri::redacted;

/// Longest time that the server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest time that the server may take to answer a call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that a download may stand still, unless `MLFLOW_HTTP_REQUEST_TIMEOUT` (in seconds) says otherwise: a
/// server that keeps its artifacts elsewhere fetches a file as a whole before it sends the first byte.
const STALLED: Duration = Duration::from_secs(120);

/// Time after which an idle connection is closed. Tracking servers (uvicorn) close a connection that nobody has used
/// for five seconds, and a request that is sent at that moment is lost; so Signalbox closes it before.
const IDLE: Duration = Duration::from_secs(4);

/// Client of a tracking server, with the connections to it.
#[derive(Debug, Clone)]
pub(in crate::models) struct RestClient {
    client: Client,
    address: Url,
    access: Access,
}

impl RestClient {
    /// Builds the client of the server at this address. Nothing is connected yet.
    pub(super) fn new(address: &Url, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, RegistryError> {
        let stalled = env("MLFLOW_HTTP_REQUEST_TIMEOUT").and_then(|seconds| seconds.parse().ok());
        let mut builder = http_client(address)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(stalled.map_or(STALLED, Duration::from_secs))
            .pool_idle_timeout(IDLE);
        if env("MLFLOW_TRACKING_INSECURE_TLS").is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1") {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        if let Some(path) = env("MLFLOW_TRACKING_SERVER_CERT_PATH").filter(|path| !path.is_empty()) {
            for certificate in certificates(&path)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let client = builder.build().map_err(|error| RegistryError::Client(root_cause(&error)))?;
        Ok(Self { client, address: address.clone(), access: Access::from_env(env) })
    }

    /// Returns the server's address, with the password that may be in it.
    pub(in crate::models) fn address(&self) -> &Url {
        &self.address
    }

    /// Builds a request for this URL. Only the server itself gets the credentials; another host gets none.
    pub(in crate::models) fn get(&self, url: Url) -> RequestBuilder {
        let own = url.origin() == self.address.origin();
        let request = self.client.get(url);
        if own { self.access.add_to(request) } else { request }
    }

    pub(super) async fn ask(&self, call: RegistryCall<'_>) -> Result<RegistryAnswer, Fault> {
        let (path, last, query) = call.rest();
        let mut url = self.address.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "2.0", "mlflow"]).extend(path.split('/')).extend(last);
        }
        self.json(self.get(url).query(&query)).await
    }

    /// Asks for the first registered model, and returns the time that the server has: a proof that it is a registry, and
    /// lets this caller in.
    pub(in crate::models) async fn time(&self) -> Result<Option<SystemTime>, Fault> {
        let mut url = self.address.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "2.0", "mlflow", "registered-models", "search"]);
        }
        let request = self.get(url).query(&[("max_results", "1")]).timeout(TIMEOUT);
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let (status, date) = (answer.status(), answer.headers().get(DATE).cloned());
        let body = answer.bytes().await.map_err(|error| self.unreachable(&error))?;
        if !status.is_success() {
            return Err(self.refusal(status, &body));
        }
        Ok(date.and_then(|date| http_time(date.to_str().ok()?)))
    }

    /// Sends a request, and reads its answer.
    pub(in crate::models) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Fault> {
        let answer = request.timeout(TIMEOUT).send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| self.unreachable(&error))?;
        if !status.is_success() {
            return Err(self.refusal(status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| self.no_registry(&format!("its answer cannot be read: {error}")))
    }

    /// Builds the fault for an error answer.
    pub(in crate::models) fn refusal(&self, status: StatusCode, body: &[u8]) -> Fault {
        let error: RestErrorBody = serde_json::from_slice(body).unwrap_or_default();
        // A proxy before MLflow, or a refused Host header, explains itself in plain text only.
        let said = error.message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
        let shown = self.shown();
        match (status.as_u16(), error.error_code.as_deref()) {
            // MLflow answers 400 for an alias that does not exist.
            (404, Some(_)) | (400, _) => not_found(said),
            (404, None) => self.no_registry("it does not know MLflow's API"),
            (401, _) => unavailable(format!(
                "the registry at {shown} asks who is calling (401); set MLFLOW_TRACKING_USERNAME and \
                 MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )),
            (403, _) => {
                unavailable(format!("the registry at {shown} does not let Signalbox in (403): {}", first_line(&said)))
            }
            _ => unavailable(format!("the registry at {shown} failed ({status}): {}", first_line(&said))),
        }
    }

    /// Builds the fault of a connection that cannot be made, or that broke.
    pub(in crate::models) fn unreachable(&self, error: &reqwest::Error) -> Fault {
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

    fn shown(&self) -> String {
        redacted(self.address.as_str()).trim_end_matches('/').to_owned()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RestErrorBody {
    error_code: Option<String>,
    message: Option<String>,
}

/// Reads the time of a header `Date`, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_time(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_whitespace().skip(1);
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

fn certificates(path: &str) -> Result<Vec<reqwest::Certificate>, RegistryError> {
    let unusable = |why: String| RegistryError::Client(format!("MLFLOW_TRACKING_SERVER_CERT_PATH ({path}): {why}"));
    let text = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    reqwest::Certificate::from_pem_bundle(&text).map_err(|error| unusable(root_cause(&error)))
}

pub(super) fn first_line(text: &str) -> &str {
    let line = text.trim().lines().next().unwrap_or_default();
    if line.starts_with('<') { "" } else { &line[..line.floor_char_boundary(300)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_time_reads_the_date_of_servers() {
        let time = http_time("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(time, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777));
        assert_eq!(http_time("yesterday"), None);
    }
}
