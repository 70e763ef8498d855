//! `models`: how models are loaded and kept.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

/// How models are loaded and kept.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Models {
    /// The interpreter that has mlflow and the models' libraries.
    pub python: String,
    /// What that interpreter imports once, for all models.
    pub template: Template,
    /// How long the download of a model may take, and then its start, up to the answer to its own example.
    #[serde(with = "humantime_serde")]
    pub load_timeout: Duration,
    /// How many models are loaded at once.
    pub concurrent_loads: usize,
    /// Private memory of all hosts together. Default: three quarters of the machine's, or of the container's.
    pub memory_limit: Option<ByteSize>,
    /// How long a model that nobody calls stays loaded; zero is for ever.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long a model stays loaded at least, once it was loaded.
    #[serde(with = "humantime_serde")]
    pub minimum_stay: Duration,
    /// Model URIs to load at the start.
    pub preload: Vec<String>,
    /// Model URIs to load at the start and never to unload.
    pub pin: Vec<String>,
    /// Where downloaded artifacts are kept.
    pub cache: Cache,
}

/// What an interpreter imports once, before hosts are forked from it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Template {
    /// Imported beside mlflow, as far as they are installed.
    pub libraries: Vec<String>,
    /// Never imported before the fork.
    pub exclude: Vec<String>,
}

/// Where downloaded artifacts are kept.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Default: `signalbox/models` in the user's cache directory.
    pub directory: Option<PathBuf>,
    /// What is kept at most; the least recently used go first.
    pub size: ByteSize,
}

impl Default for Models {
    fn default() -> Self {
        Self {
            python: ".venv/bin/python".to_owned(),
            template: Template::default(),
            load_timeout: Duration::from_secs(120),
            concurrent_loads: 4,
            memory_limit: None,
            idle_timeout: Duration::from_secs(15 * 60),
            minimum_stay: Duration::ZERO,
            preload: Vec::new(),
            pin: Vec::new(),
            cache: Cache::default(),
        }
    }
}

impl Default for Template {
    fn default() -> Self {
        Self { libraries: vec!["sklearn".to_owned()], exclude: Vec::new() }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { directory: None, size: ByteSize::gib(10) }
    }
}
