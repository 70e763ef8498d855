//! `models`: how models are loaded and kept.

use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

/// How models are loaded and kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Models {
    /// The interpreter that has mlflow and the models' libraries.
    pub python: String,
    /// How long a model may take from the decision to load it to its first answer.
    #[serde(with = "humantime_serde")]
    pub load_timeout: Duration,
    /// Memory for all loaded models together.
    pub memory_limit: Option<ByteSize>,
    /// How long a model that nobody calls stays loaded.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Option<Duration>,
    /// Model URIs to load at the start.
    pub preload: Vec<String>,
}

impl Default for Models {
    fn default() -> Self {
        Self {
            python: ".venv/bin/python".to_owned(),
            load_timeout: Duration::from_secs(120),
            memory_limit: None,
            idle_timeout: None,
            preload: Vec::new(),
        }
    }
}
