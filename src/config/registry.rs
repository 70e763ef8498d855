//! The section `registry`: the MLflow tracking server whose Model Registry names the models.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::HumanDuration;

/// The MLflow tracking server whose Model Registry names the models.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Tracking URI, any of MLflow's; `MLFLOW_TRACKING_URI` when it is not given, else `http://127.0.0.1:5001`.
    pub tracking_uri: Option<String>,
    /// Time between two looks at the registry's stages and aliases.
    #[serde(with = "HumanDuration")]
    pub refresh: Duration,
}

impl Default for Registry {
    fn default() -> Self {
        Self { tracking_uri: None, refresh: Duration::from_secs(5) }
    }
}
