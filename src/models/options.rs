//! The hosting options of one route.

use crate::config::{EnvManager, Runtime};

/// Options by which a route overrides the hosting of its model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HandleOptions {
    /// The interpreter, when it is not `models.python`.
    pub python: Option<String>,
    /// The runtime that serves the model: forked hosts, or `mlflow models serve`.
    pub runtime: Runtime,
    /// The tool by which `mlflow models serve` makes the model's environment.
    pub env_manager: Option<EnvManager>,
    /// The number of hosts that are forked for the model.
    pub workers: Option<usize>,
    /// The number of calls that each host answers at once.
    pub threads: Option<usize>,
    /// The number of calls that run at once, over all hosts.
    pub max_concurrency: Option<usize>,
}
