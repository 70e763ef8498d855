//! Metrics of transactions, with their labels bound.

use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use crate::telemetry::Metrics;

/// Counts transactions by their end.
pub(super) struct TransactionMetrics {
    committed: IntCounter,
    pub(super) aborted: IntCounter,
    pub(super) unknown: IntCounter,
    pub(super) fenced: IntCounter,
    requests: Histogram,
    commit: Histogram,
}

impl TransactionMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let results = &metrics.transactions;
        Self {
            committed: results.with_label_values(&["committed"]),
            aborted: results.with_label_values(&["aborted"]),
            unknown: results.with_label_values(&["unknown"]),
            fenced: results.with_label_values(&["fenced"]),
            requests: metrics.transaction_requests.clone(),
            commit: metrics.transaction_commit.clone(),
        }
    }

    /// Counts a committed transaction of this many requests, whose end took this long.
    pub(super) fn committed(&self, requests: usize, took: Duration) {
        self.committed.inc();
        self.requests.observe(f64::from(u32::try_from(requests).unwrap_or(u32::MAX)));
        self.commit.observe(took.as_secs_f64());
    }
}
