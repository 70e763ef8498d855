//! The retries of a route: the policy with random numbers and metrics.

use std::time::Duration;

use prometheus::IntCounter;

use crate::config;
use crate::invocation::retry::{RetryBudget, pause};
use crate::telemetry::Metrics;

/// Limits the retries of one route, over all its requests.
pub(in crate::pipeline) struct RouteRetries {
    policy: config::Retries,
    budget: RetryBudget,
    retried: IntCounter,
    refused: IntCounter,
}

impl RouteRetries {
    pub(super) fn new(policy: config::Retries, endpoint: &str, route: &str, metrics: &Metrics) -> Self {
        Self {
            policy,
            budget: RetryBudget::default(),
            retried: metrics.retries.with_label_values(&[endpoint, route]),
            refused: metrics.retries_refused.with_label_values(&[endpoint, route]),
        }
    }

    /// Adds a request to the retry budget.
    pub(in crate::pipeline) fn earn(&self) {
        self.budget.earn();
    }

    /// Draws the pause before the next call, after so many `calls`; none when there is to be no other, or none that begins
    /// `within` the time there is.
    pub(in crate::pipeline) fn pause(
        &self,
        calls: u32,
        retry_after: Option<Duration>,
        within: Duration,
    ) -> Option<Duration> {
        let pause = pause(&self.policy, calls, retry_after, fastrand::f64())?;
        if pause >= within {
            return None;
        }
        let affordable = self.budget.spend();
        if affordable {
            self.retried.inc()
        } else {
            self.refused.inc()
        }
        affordable.then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_kept_when_pause_does_not_fit() {
        let metrics = Metrics::new().unwrap();
        let policy = config::Retries { backoff: Duration::ZERO, ..config::Retries::default() };
        let retries = RouteRetries::new(policy, "e", "main", &metrics);
        (0..5).for_each(|_| retries.earn());
        let half = Duration::from_millis(500);
        let after = Some(half);
        assert_eq!(retries.pause(1, after, half), None);
        assert_eq!(retries.pause(1, after, Duration::MAX), after);
        assert_eq!(retries.pause(1, None, Duration::MAX), None);
        assert_eq!((retries.retried.get(), retries.refused.get()), (1, 1));
    }
}
