//! The section `model_endpoints`: endpoints that applications call, and the routes that serve them.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::batch::Batching;
use super::canary::Canary;
use super::recovery::{Breaker, FallbackOn, Retries};
use super::units::HumanDuration;

/// An endpoint: one name that applications call, and its routes.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Name of the endpoint: letters, digits, `-`, `_` and `.`; unique in the file.
    pub name: String,
    /// Strategy by which routes without a condition share what no condition took, and routes with the same condition
    /// what it took.
    #[serde(default)]
    pub strategy: Strategy,
    /// Names that the expressions of the endpoint may use, each with its own expression, which is evaluated at most once
    /// a request.
    #[serde(default)]
    pub r#let: BTreeMap<String, String>,
    /// An expression whose value keeps a caller on one side of a weighted split.
    pub sticky_by: Option<String>,
    /// Decision service, which is asked first.
    pub decision: Option<Decision>,
    /// True if the header `x-signalbox-route` may name the route, for testing.
    #[serde(default)]
    pub route_override: bool,
    /// Longest time of one call of a model; for requests that come through the shim, of the whole way there and back.
    #[serde(default = "default_timeout", with = "HumanDuration")]
    pub timeout: Duration,
    /// Routes in order of preference. At least one.
    #[schemars(length(min = 1))]
    pub routes: Vec<Route>,
}

/// A route: one model that can serve an endpoint, and the rules for calling it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// URI of the model that answers: `models:/name/Stage`, `models:/name/3`, `models:/name/latest`,
    /// `models:/name@alias`, `models:/m-…`, a local model directory, `http(s)://…` that speaks MLflow's scoring
    /// protocol, or `builtin:noop`.
    pub model_uri: String,
    /// Name of the route for people and metrics; unique in its endpoint.
    pub alias: String,
    /// A Python (or Rhai) expression over `request`; the route is taken when it holds.
    pub model_request_condition: Option<String>,
    /// Consequence of a condition that fails on a request.
    #[serde(default)]
    pub on_condition_error: OnConditionError,
    /// Weight in a weighted split, in proportion to the weights of the others; 0 takes nothing. Default: 1.
    pub weight: Option<f64>,
    /// Longest time of a request on this route, loading, waiting and retries included. Default: the time that the
    /// request has left.
    #[serde(default, with = "HumanDuration")]
    pub timeout: Option<Duration>,
    /// Alias of the route to try when this one cannot answer.
    pub fallback: Option<String>,
    /// Causes for which the fallback is tried. Default: all of them.
    pub fallback_on: Option<Vec<FallbackOn>>,
    /// Circuit breaker, which stops calls for a while when the route fails or is slow. Default: none.
    pub breaker: Option<Breaker>,
    /// Retries of calls whose fault says that they may be repeated. Default: none.
    pub retries: Option<Retries>,
    /// Alias of the shadow route, which gets a copy of each request.
    pub shadow: Option<String>,
    /// Steps in which this route's share moves up by itself, or back to nothing.
    pub canary: Option<Canary>,
    /// Batches: the limits within which requests are joined into one call, or `off`. Default: on, with the default
    /// limits, for hosts that are forked.
    pub batch: Option<Batching>,
    /// Python interpreter for this route's model, if not `models.python`.
    pub python: Option<String>,
    /// Runtime that serves this route's model.
    #[serde(default)]
    pub runtime: Runtime,
    /// Tool by which `mlflow models serve` makes the model's environment. Only with that runtime.
    pub env_manager: Option<EnvManager>,
    /// Number of processes that serve the model. Only with hosts that are forked.
    pub workers: Option<usize>,
    /// Number of calls that each of those processes answers at once, in as many threads of Python. Only with hosts that
    /// are forked. Default: 1.
    pub threads: Option<usize>,
    /// Bulkhead: most calls of this route's model at once. Default: one for each worker and thread; 4 for `mlflow
    /// models serve`; 64 for an address.
    pub max_concurrency: Option<usize>,
}

/// Most threads of a host process. Each has a socket, and this many sockets can be handed over at once.
pub const MOST_THREADS: usize = 128;

/// The runtime of a model that is loaded here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// A host that is forked from the interpreter's template (a fork server): ready in milliseconds.
    #[default]
    Forked,
    /// `mlflow models serve`, with one of MLflow's own environments.
    MlflowServe,
}

/// The tool by which `mlflow models serve` makes the environment that a model asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnvManager {
    /// No tool: the interpreter's own environment.
    Local,
    /// Virtualenv and pyenv.
    Virtualenv,
    /// The package manager uv.
    Uv,
    /// Conda.
    Conda,
}

impl EnvManager {
    /// Returns the name that MLflow has for the tool.
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
    /// Tells whether one of the endpoint's routes is a canary.
    pub fn has_canary(&self) -> bool {
        self.routes.iter().any(|route| route.canary.is_some())
    }
}

/// The strategy by which routes share requests: those without a condition, and those with the same one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The first listed route takes all requests.
    #[default]
    First,
    /// Each route takes a share in proportion to its `weight`.
    Weighted,
    /// The routes take turns.
    RoundRobin,
    /// The route with the least to do takes the request: calls under way count, and the time of its calls.
    LeastLoaded,
}

/// The consequence of a condition that cannot be evaluated on a request (a missing key, a wrong type).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnConditionError {
    /// The condition does not hold; the next route is looked at.
    #[default]
    Skip,
    /// The request gets a `CONDITION_FAILED` fault.
    Fail,
}

/// A decision service: an HTTP service outside that decides the route.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// URL to which the summary of the request is posted.
    pub url: String,
    /// Longest wait for an answer.
    #[serde(default = "default_decision_timeout", with = "HumanDuration")]
    pub timeout: Duration,
    /// Time for which an answer is kept for the same input. Default: not at all.
    #[serde(default, with = "HumanDuration")]
    pub cache: Option<Duration>,
    /// Consequence of a missing answer.
    #[serde(default)]
    pub on_error: OnDecisionError,
    /// Headers of the request that the service gets.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Expressions over the request, by the names under which the service gets their values.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
}

/// The consequence of a decision service that does not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDecisionError {
    /// The conditions decide.
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
