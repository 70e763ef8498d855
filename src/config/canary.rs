//! The section `canary`: a route whose share moves up by itself while it does well, and back to nothing when it does
//! not.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::HumanDuration;

/// The steps of a canary's share, and the conditions under which it is aborted.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Shares one after the other, in percent of the requests that no condition took. Rising, more than 0, 100 at most.
    pub steps: Vec<f64>,
    /// Time that the canary stays at each step.
    #[serde(with = "HumanDuration")]
    pub every: Duration,
    /// Conditions under which the canary is taken back.
    #[serde(default)]
    pub abort_if: AbortIf,
}

/// The limits beyond which a canary is taken back, in comparison with the other routes over the same time.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AbortIf {
    /// Share of the canary's requests that fail, beyond that of the others.
    pub error_share: f64,
    /// Ratio of the canary's 95th percentile of call times to that of the others.
    pub p95_ratio: f64,
    /// Fewest answers at a step: with fewer nothing is concluded, and the step is not left.
    pub minimum_calls: usize,
}

impl Default for AbortIf {
    fn default() -> Self {
        Self { error_share: 0.02, p95_ratio: 1.5, minimum_calls: 50 }
    }
}
