//! `canary`: a route whose share moves up by itself while it does well, and back to nothing when it does not.

use std::time::Duration;

use serde::Deserialize;

/// How a route's share moves.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Its shares one after the other, in percent of what no condition took. Rising, more than 0, 100 at most.
    pub steps: Vec<f64>,
    /// How long it stays at each of them.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
    /// When it is taken back.
    #[serde(default)]
    pub abort_if: AbortIf,
}

/// What is too bad, in comparison with the other routes over the same time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AbortIf {
    /// The share of its requests that fail, beyond that of the others.
    pub error_share: f64,
    /// How many times the others' 95th percentile its own is.
    pub p95_ratio: f64,
    /// With fewer answers at a step, nothing is concluded, and the step is not left.
    pub minimum_calls: usize,
}

impl Default for AbortIf {
    fn default() -> Self {
        Self { error_share: 0.02, p95_ratio: 1.5, minimum_calls: 50 }
    }
}
