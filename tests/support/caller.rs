//! Calls Signalbox over HTTP: its models, and its pages about them.

use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;
use serde_json::Value;

use super::signalbox::{self, Signalbox};

/// Holds a client with connections of its own. A clone is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    client: reqwest::Client,
    url: String,
}

/// Holds the answer to one call.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The time from the request to the last byte of the answer.
    pub(crate) took: Duration,
}

/// Mirrors `GET /models`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ModelsPage {
    pub(crate) memory: MemoryStatus,
    pub(crate) models: Vec<ModelStatus>,
    pub(crate) following: Vec<Following>,
}

/// The memory of all hosts together, in bytes.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct MemoryStatus {
    pub(crate) limit: Option<u64>,
    pub(crate) used: u64,
}

/// Describes one version of a model.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ModelStatus {
    pub(crate) id: String,
    pub(crate) source: Option<String>,
    pub(crate) created: Option<u64>,
    pub(crate) state: String,
    pub(crate) memory: Option<u64>,
    pub(crate) pids: Vec<u32>,
    pub(crate) threads: Option<usize>,
    pub(crate) calls: u64,
    pub(crate) loads: u64,
    pub(crate) evictions: u64,
    pub(crate) reason: Option<String>,
    pub(crate) serves: Vec<String>,
    pub(crate) unmet: Vec<String>,
    pub(crate) batched_by: Option<String>,
    pub(crate) singly: Option<String>,
}

/// Describes a URI that may come to stand for another version.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Following {
    pub(crate) model_uri: String,
    pub(crate) version: Option<String>,
    pub(crate) pending: Option<Pending>,
}

/// Names the version that the URI stands for in the registry, but not here, and why not.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Pending {
    pub(crate) version: Option<String>,
    pub(crate) reason: Option<String>,
}

impl Caller {
    /// Makes a caller of this Signalbox, as it runs now.
    pub(crate) fn of(signalbox: &Signalbox) -> Self {
        Self { client: reqwest::Client::new(), url: signalbox.url().to_owned() }
    }

    /// Makes a caller of the Signalbox whose log this is, if the log says by now where it listens.
    pub(crate) fn in_log(log: &str) -> Option<Self> {
        let (url, _) = signalbox::addresses(log)?;
        Some(Self { client: reqwest::Client::new(), url })
    }

    /// Calls an endpoint with a JSON payload.
    pub(crate) async fn ask(&self, endpoint: &str, payload: &Value) -> Answer {
        self.try_ask(endpoint, payload).await.unwrap()
    }

    /// Calls an endpoint with a JSON payload, where Signalbox may be gone.
    pub(crate) async fn try_ask(&self, endpoint: &str, payload: &Value) -> reqwest::Result<Answer> {
        self.send(endpoint, "application/json", payload.to_string().into_bytes()).await
    }

    /// Calls an endpoint with any payload.
    pub(crate) async fn send(&self, endpoint: &str, content_type: &str, payload: Vec<u8>) -> reqwest::Result<Answer> {
        let url = format!("{}/endpoints/{endpoint}/invocations", self.url);
        let begun = Instant::now();
        let answer = self.client.post(url).header(CONTENT_TYPE, content_type).body(payload).send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await?.to_vec();
        Ok(Answer { status, headers, body, took: begun.elapsed() })
    }

    /// Reads the state of all models.
    pub(crate) async fn models(&self) -> ModelsPage {
        let answer = self.client.get(format!("{}/models", self.url)).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Reads one line of `GET /metrics` by the text before its value; 0 as long as the line is not there.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.client.get(format!("{}/metrics", self.url)).send().await.unwrap().text().await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Reads the state of one version, such as `name/3`, if the page lists it.
    pub(crate) async fn model(&self, id: &str) -> Option<ModelStatus> {
        self.models().await.models.into_iter().find(|model| model.id == id)
    }

    /// Sends `POST /models/{id}/{verb}`, and returns the status and the body.
    pub(crate) async fn tell(&self, id: &str, verb: &str) -> (u16, String) {
        let answer = self.client.post(format!("{}/models/{id}/{verb}", self.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

impl Answer {
    /// Returns a header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Parses the body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Returns the body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the model's predictions. Panics with the fault if the answer is one.
    pub(crate) fn predictions(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["predictions"].take()
    }

    /// Returns the number of the version that answered.
    pub(crate) fn version(&self) -> &str {
        self.header("x-model-version").rsplit('/').next().unwrap_or_default()
    }

    /// Checks that the answer is a fault of the wire contract: a known code that fits the status, and a message that is
    /// fit for a caller. Returns the code and the message; panics with the contradiction otherwise.
    pub(crate) fn fault(&self) -> (String, String) {
        let said = self.text();
        assert!(self.status >= 400, "{said}");
        let fault = self.json();
        let text = |key: &str| fault[key].as_str().unwrap_or_else(|| panic!("no {key}: {said}")).to_owned();
        let (code, message) = (text("error_code"), text("message"));
        assert!(!message.is_empty() && !message.contains("Traceback") && !message.contains("  File \""), "{said}");
        assert!(!text("stage").is_empty() && !text("correlation_id").is_empty() && fault["retryable"].is_boolean());
        (code, message)
    }
}
