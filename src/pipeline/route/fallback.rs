//! The fallback of a route: another route takes the place of one that cannot answer.

use prometheus::IntCounter;

use crate::config::{self, FallbackOn};
use crate::telemetry::Metrics;

/// Knows the causes for which a route falls back, and counts how often it has.
pub(in crate::pipeline) struct Fallbacks {
    /// Counter of each cause by [`FallbackOn`]; none for causes without a fallback.
    counters: [Option<IntCounter>; FallbackOn::ALL.len()],
}

impl Fallbacks {
    /// Binds the counters; none when the route names no fallback.
    pub(super) fn new(endpoint: &str, route: &config::Route, metrics: &Metrics) -> Option<Self> {
        route.fallback.as_ref()?;
        let causes = route.fallback_on.as_deref().unwrap_or(&FallbackOn::ALL);
        let counter = |cause: FallbackOn| {
            let labels = [endpoint, &*route.alias, cause.name()];
            causes.contains(&cause).then(|| metrics.fallbacks.with_label_values(&labels))
        };
        Some(Self { counters: FallbackOn::ALL.map(counter) })
    }

    /// Tells whether the other route is called for this cause, and counts that.
    pub(in crate::pipeline) fn take(&self, cause: FallbackOn) -> bool {
        let counter = &self.counters[cause as usize];
        counter.as_ref().inspect(|counter| counter.inc()).is_some()
    }
}
