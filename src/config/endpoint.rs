//! `model_endpoints`: what an application calls, and the ways to serve it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::batch::Batching;
use super::canary::Canary;
use super::recovery::{Breaker, FallbackOn, Retries};

/// One name that applications call.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Letters, digits, `-`, `_` and `.`; unique in the file.
    pub name: String,
    /// How routes without a condition share what no condition took, and those with the same one what it took.
    #[serde(default)]
    pub strategy: Strategy,
    /// An expression whose value keeps a caller on one side of a weighted split.
    pub sticky_by: Option<String>,
    /// An outside service that is asked first.
    pub decision: Option<Decision>,
    /// Whether the header `x-signalbox-route` may name the route, for testing.
    #[serde(default)]
    pub route_override: bool,
    /// How long one call of a model may take; for requests that come through the shim, the whole way there and back.
    #[serde(default = "default_timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// In order of preference. At least one.
    pub routes: Vec<Route>,
}

/// One way to serve an endpoint.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// What answers: `models:/name/Stage`, `models:/name/3`, `models:/name/latest`, `models:/name@alias`,
    /// `models:/m-…`, a local model directory, `http(s)://…` that speaks MLflow's scoring protocol, or `builtin:noop`.
    pub model_uri: String,
    /// What people and metrics call this route; unique in its endpoint.
    pub alias: String,
    /// A Python (or Rhai) expression over `request`; the route is taken when it holds.
    pub model_request_condition: Option<String>,
    /// What a condition that fails on a request means.
    #[serde(default)]
    pub on_condition_error: OnConditionError,
    /// How much it takes of a weighted split, in proportion to the weights of the others; 0 is nothing. Default: 1.
    pub weight: Option<f64>,
    /// How long a request may take here, loading, waiting and retries included. Default: as long as it has.
    #[serde(default, with = "humantime_serde")]
    pub timeout: Option<Duration>,
    /// The alias of the route to try when this one cannot answer.
    pub fallback: Option<String>,
    /// What counts as not being able to. Default: all of it.
    pub fallback_on: Option<Vec<FallbackOn>>,
    /// When it is not called for a while, since it fails or is slow. Default: never.
    pub breaker: Option<Breaker>,
    /// How often a call is tried again whose fault says that it may be. Default: not at all.
    pub retries: Option<Retries>,
    /// The alias of a route that gets a copy of each request.
    pub shadow: Option<String>,
    /// How this route's share moves up by itself, or back to nothing.
    pub canary: Option<Canary>,
    /// How requests are joined into one call, or that they are not. Default: they are, with the defaults, for hosts that
    /// are forked.
    pub batch: Option<Batching>,
    /// The interpreter for this route's model, when it is not `models.python`.
    pub python: Option<String>,
    /// What serves this route's model.
    #[serde(default)]
    pub runtime: Runtime,
    /// How `mlflow models serve` makes the model's environment. Only with that runtime.
    pub env_manager: Option<EnvManager>,
    /// How many processes serve the model. Only with hosts that are forked.
    pub workers: Option<usize>,
    /// How many calls each of those processes answers at once, in as many threads of Python. Only with hosts that are forked.
    /// Default: 1.
    pub threads: Option<usize>,
    /// How many calls of this route's model run at once. Default: one a worker and thread; 4 for `mlflow models serve`; 64 for an
    /// address.
    pub max_concurrency: Option<usize>,
}

/// As many threads a process may have, at most: each has a socket, and as many can be handed over at once.
pub const MOST_THREADS: usize = 128;

/// What serves a model that is loaded here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// A host that is forked from the interpreter's template: ready in milliseconds.
    #[default]
    Forked,
    /// `mlflow models serve`, with one of MLflow's own environments.
    MlflowServe,
}

/// How `mlflow models serve` makes the environment that a model asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvManager {
    /// The interpreter's own.
    Local,
    /// One made with virtualenv and pyenv.
    Virtualenv,
    /// One made with uv.
    Uv,
    /// One made with conda.
    Conda,
}

impl EnvManager {
    /// What MLflow calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Virtualenv => "virtualenv",
            Self::Uv => "uv",
            Self::Conda => "conda",
        }
    }
}

impl Endpoint {
    /// Whether one of its routes is a canary.
    pub fn has_canary(&self) -> bool {
        self.routes.iter().any(|route| route.canary.is_some())
    }
}

/// How routes share requests: those without a condition, and those with the same one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The first listed takes them all.
    #[default]
    First,
    /// By `weight`.
    Weighted,
    /// In turn.
    RoundRobin,
    /// The one with the least to do: calls under way, and how long its calls take.
    LeastLoaded,
}

/// What it means when a condition cannot be evaluated on a request (a missing key, a wrong type).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnConditionError {
    /// It does not hold; the next route is looked at.
    #[default]
    Skip,
    /// The request gets a `CONDITION_FAILED` fault.
    Fail,
}

/// An outside service that decides the route.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Where the summary of the request is posted.
    pub url: String,
    /// How long its answer is waited for.
    #[serde(default = "default_decision_timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// How long an answer is kept for the same input. Default: not at all.
    #[serde(default, with = "humantime_serde")]
    pub cache: Option<Duration>,
    /// What follows when it does not answer.
    #[serde(default)]
    pub on_error: OnDecisionError,
    /// The request's headers that it is told.
    #[serde(default)]
    pub headers: Vec<String>,
    /// What else it is told: expressions over the request, by the name under which it gets their values.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
}

/// What follows when the outside service does not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDecisionError {
    /// Go on with the conditions.
    #[default]
    Ignore,
    /// The request gets a fault.
    Fail,
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

fn default_decision_timeout() -> Duration {
    Duration::from_millis(50)
}
