//! `registry`: the MLflow tracking server whose Model Registry names the models.

use std::time::Duration;

use serde::Deserialize;

/// The MLflow tracking server whose Model Registry names the models.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Its address; `MLFLOW_TRACKING_URI` when it is not given, else `http://127.0.0.1:5001`.
    pub tracking_uri: Option<String>,
    /// How often stages and aliases are looked at again.
    #[serde(with = "humantime_serde")]
    pub refresh: Option<Duration>,
}
