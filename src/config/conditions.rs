//! The section `conditions`: the Python processes that evaluate what is not compiled.

use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{HumanDuration, HumanSize};

/// Evaluation of the conditions that need Python.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Most evaluators (Python processes) that work at once. None is started where no condition needs one.
    pub evaluators: usize,
    /// Longest time of one request's evaluation; after it the evaluator is killed and replaced.
    #[serde(with = "HumanDuration")]
    pub timeout: Duration,
    /// Most memory that an evaluator may take beyond what it shares.
    #[serde(with = "HumanSize")]
    pub max_memory: ByteSize,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { evaluators: 2, timeout: Duration::from_millis(100), max_memory: ByteSize::mib(512) }
    }
}
