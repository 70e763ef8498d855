//! When another route takes the place of one that cannot answer.

use prometheus::IntCounter;

use crate::config::{self, FallbackOn};
use crate::telemetry::Metrics;

/// What a route falls back on, and how often it has.
pub(in crate::pipeline) struct Fallbacks {
    /// By [`FallbackOn`].
    counters: [Option<IntCounter>; FallbackOn::ALL.len()],
}

impl Fallbacks {
    /// None when the route names no other.
    pub(in crate::pipeline) fn new(endpoint: &str, route: &config::Route, metrics: &Metrics) -> Option<Self> {
        route.fallback.as_ref()?;
        let causes = route.fallback_on.as_deref().unwrap_or(&FallbackOn::ALL);
        let counter = |cause: FallbackOn| {
            let labels = [endpoint, &*route.alias, cause.name()];
            causes.contains(&cause).then(|| metrics.fallbacks.with_label_values(&labels))
        };
        Some(Self { counters: FallbackOn::ALL.map(counter) })
    }

    /// Whether the other route is asked now, which is counted.
    pub(in crate::pipeline) fn take(&self, cause: FallbackOn) -> bool {
        let counter = &self.counters[cause as usize];
        counter.as_ref().inspect(|counter| counter.inc()).is_some()
    }
}
