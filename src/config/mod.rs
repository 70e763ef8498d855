//! The configuration as it is written: one YAML file of endpoints and routes, and the addresses of the broker, the
//! registry and the HTTP side.
//!
//! The structs are the file, key by key; `config/reference.yaml` documents each one for the person who writes it. They
//! are plain (no `tag`, `untagged` or `flatten`), because anything else costs `serde_yaml` its line numbers. Rules that
//! the types cannot express are in `crate::check`.

mod batch;
mod canary;
mod conditions;
pub(crate) mod document;
mod endpoint;
mod env;
mod explain;
pub(crate) mod fit;
mod interpreter;
mod kafka;
mod limits;
mod models;
mod name;
mod recovery;
mod registry;
mod report;
mod restart;
mod retry_topic;
mod route_test;
mod schema;
mod server;
mod units;
pub(crate) mod unsupported;

pub use batch::{Batch, Batching};
pub use canary::{AbortIf, Canary};
pub use conditions::Conditions;
pub use endpoint::{
    Decision, Endpoint, EnvManager, MOST_THREADS, OnConditionError, OnDecisionError, Route, Runtime, Strategy,
};
pub use env::environment;
pub use interpreter::interpreters;
pub use kafka::{Delivery, EMBEDDED, Kafka, Ordering};
pub use limits::Limits;
pub use models::{Cache, Models, Template};
pub(crate) use name::{MAX_TOPIC, is_name, is_topic};
pub use recovery::{Breaker, FallbackOn, Retries};
pub use registry::Registry;
pub use report::{Position, Problem, Report, Severity};
pub use retry_topic::RetryTopic;
pub use route_test::RouteTest;
pub use schema::schema;
pub use server::Server;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Endpoints that applications call, each with the routes that can serve it. At least one.
    #[schemars(length(min = 1))]
    pub model_endpoints: Vec<Endpoint>,
    /// The broker, its topics, and the way in which requests are taken from it.
    #[serde(default)]
    pub kafka: Kafka,
    /// The HTTP shim.
    #[serde(default)]
    pub server: Server,
    /// The MLflow tracking server whose Model Registry names the models.
    #[serde(default)]
    pub registry: Registry,
    /// Loading and keeping of models.
    #[serde(default)]
    pub models: Models,
    /// Evaluation of the conditions that need Python.
    #[serde(default)]
    pub conditions: Conditions,
    /// Route tests: requests, and the routes that they must take.
    #[serde(default)]
    pub tests: Vec<RouteTest>,
}

impl Config {
    /// Lists the topics that are written or read: each must be there before anything starts.
    pub fn topics(&self) -> Vec<Arc<str>> {
        let kafka = &self.kafka;
        let named = [&*kafka.requests_topic, &*kafka.replies_topic, &*kafka.dead_letter_topic].map(Arc::from);
        let mut topics: Vec<Arc<str>> = named.into_iter().collect();
        topics.extend(kafka.retry_topics().into_iter().map(|topic| topic.name));
        if self.model_endpoints.iter().flat_map(|endpoint| &endpoint.routes).any(|route| route.shadow.is_some()) {
            topics.push(Arc::from(&*kafka.shadow_topic));
        }
        topics
    }
}
