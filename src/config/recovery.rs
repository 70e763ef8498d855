//! What a route does about calls that fail: `fallback_on`, `breaker`, `retries`.

use std::time::Duration;

use serde::Deserialize;

/// Why a route could not answer. Whatever is the caller's own fault is none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FallbackOn {
    /// Its model could not be loaded.
    LoadFailure,
    /// Its model failed, or what serves it did.
    ServerError,
    /// There was no answer in time.
    Timeout,
    /// Its breaker is open.
    BreakerOpen,
    /// It, or what serves it, has too much to do already.
    Overload,
}

impl FallbackOn {
    /// Every cause, each at the index of its own number.
    pub const ALL: [Self; 5] = [Self::LoadFailure, Self::ServerError, Self::Timeout, Self::BreakerOpen, Self::Overload];

    /// The word of the configuration, and of metrics.
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

/// When a route is not called for a while.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// The share of calls that fail from which on it opens: more than 0, and 1 at most.
    pub error_share: f64,
    /// From when on a call counts as slow. Default: none does.
    #[serde(with = "humantime_serde")]
    pub slow_call: Option<Duration>,
    /// The share of slow calls from which on it opens.
    pub slow_share: f64,
    /// Over which time calls are counted.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// With fewer calls in the window, it does not open.
    pub minimum_calls: usize,
    /// How long it stays open before probes are let through.
    #[serde(with = "humantime_serde")]
    pub open_for: Duration,
    /// How many probes are let through, one after the other, all of which must be answered well for it to close.
    pub probes: usize,
}

/// How often a call is tried again.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Calls in all, the first one included.
    pub max_attempts: u32,
    /// The longest pause before the second call; it doubles with each one. How long it is, is drawn between nothing and
    /// that.
    #[serde(with = "humantime_serde")]
    pub backoff: Duration,
    /// The longest pause, however often it has doubled. Who asks for more is not called again.
    #[serde(with = "humantime_serde")]
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
