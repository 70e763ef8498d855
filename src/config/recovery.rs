//! The recovery of a route from calls that fail: `fallback_on`, `breaker`, `retries`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::HumanDuration;

/// The cause for which a route could not answer. Faults of the caller are none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FallbackOn {
    /// The route's model could not be loaded.
    LoadFailure,
    /// The route's model failed, or the process or server that serves it did.
    ServerError,
    /// No answer came in time.
    Timeout,
    /// The route's circuit breaker is open.
    BreakerOpen,
    /// The route, or its model's server, has too much to do already.
    Overload,
}

impl FallbackOn {
    /// All causes, each at the index of its own number.
    pub const ALL: [Self; 5] = [Self::LoadFailure, Self::ServerError, Self::Timeout, Self::BreakerOpen, Self::Overload];

    /// Returns the cause's word in the configuration and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::LoadFailure => "load_failure",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
            Self::BreakerOpen => "breaker_open",
            Self::Overload => "overload",
        }
    }
}

/// The circuit breaker of a route, which stops calls for a while.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Share of failed calls from which on the breaker opens: more than 0, and 1 at most.
    pub error_share: f64,
    /// Time from which on a call counts as slow. Default: none does.
    #[serde(with = "HumanDuration")]
    pub slow_call: Option<Duration>,
    /// Share of slow calls from which on the breaker opens.
    pub slow_share: f64,
    /// Time over which calls are counted.
    #[serde(with = "HumanDuration")]
    pub window: Duration,
    /// Fewest calls in the window with which the breaker may open.
    pub minimum_calls: usize,
    /// Time for which the breaker stays open before probes are let through.
    #[serde(with = "HumanDuration")]
    pub open_for: Duration,
    /// Number of probes that are let through, one after the other, all of which must be answered well for the breaker
    /// to close.
    pub probes: usize,
}

/// The retries of a route's calls.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Most calls of one request, the first one included.
    pub max_attempts: u32,
    /// Longest pause before the second call; it doubles with each call. The pause itself is drawn between nothing and
    /// that.
    #[serde(with = "HumanDuration")]
    pub backoff: Duration,
    /// Longest pause, however often it has doubled. A server that asks for a longer pause is not called again.
    #[serde(with = "HumanDuration")]
    pub max_backoff: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            error_share: 0.5,
            slow_call: None,
            slow_share: 0.8,
            window: Duration::from_secs(10),
            minimum_calls: 20,
            open_for: Duration::from_secs(5),
            probes: 3,
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self { max_attempts: 3, backoff: Duration::from_millis(50), max_backoff: Duration::from_secs(1) }
    }
}
