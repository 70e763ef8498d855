//! The section `models`: the loading and keeping of models.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{HumanDuration, HumanSize};

use super::interpreter::interpreter;

/// Loading and keeping of models.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Models {
    /// Python interpreter that has mlflow and the models' libraries. Default: that of the environment that Signalbox is
    /// started in.
    pub python: String,
    /// Modules that the template (a fork server) of that interpreter imports once, for all models.
    pub template: Template,
    /// Longest time of a model's download, and then of its start, up to the answer to its own example.
    #[serde(with = "HumanDuration")]
    pub load_timeout: Duration,
    /// Most models that are loaded at once.
    pub concurrent_loads: usize,
    /// Most private memory of all hosts together. Default: three quarters of the machine's, or of the container's.
    #[serde(with = "HumanSize")]
    pub memory_limit: Option<ByteSize>,
    /// Time after which a model without calls is unloaded; zero is never.
    #[serde(with = "HumanDuration")]
    pub idle_timeout: Duration,
    /// Shortest time for which a model stays loaded.
    #[serde(with = "HumanDuration")]
    pub minimum_stay: Duration,
    /// Model URIs to load at the start.
    pub preload: Vec<String>,
    /// Model URIs to load at the start and never to unload.
    pub pin: Vec<String>,
    /// Cache of downloaded artifacts.
    pub cache: Cache,
}

/// Modules that an interpreter imports once, before hosts are forked from it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Template {
    /// Modules imported beside mlflow, as far as they are installed.
    pub libraries: Vec<String>,
    /// Modules never imported before the fork.
    pub exclude: Vec<String>,
}

/// Cache of downloaded artifacts.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Directory of the cache. Default: `signalbox/models` in the user's cache directory.
    pub directory: Option<PathBuf>,
    /// Most bytes that are kept; the least recently used artifacts go first.
    #[serde(with = "HumanSize")]
    pub size: ByteSize,
}

impl Default for Models {
    fn default() -> Self {
        Self {
            python: interpreter(),
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
