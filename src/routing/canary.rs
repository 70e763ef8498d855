//! The canary route: takes its own share, before the others, of the requests that no condition took.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::sticky;

/// A share from 0 to 1 that the canary controller (`crate::canary`) moves while requests are decided.
#[derive(Debug, Default)]
pub struct CanaryShare(AtomicU64);

/// The route that has a [`CanaryShare`].
#[derive(Debug)]
pub(super) struct CanaryRoute {
    /// Index of the route in the endpoint's routes.
    pub(super) route: usize,
    pub(super) share: Arc<CanaryShare>,
    /// Hash of endpoint and alias, by which the same callers get the same route.
    salt: u64,
}

impl CanaryShare {
    /// Returns the share; 0 before it is first set.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// Sets the share.
    pub fn set(&self, share: f64) {
        self.0.store(share.to_bits(), Ordering::Relaxed);
    }
}

impl CanaryRoute {
    pub(super) fn new(endpoint: &str, alias: &str, route: usize) -> Self {
        Self { route, share: Arc::default(), salt: sticky::salt(endpoint, alias) }
    }

    /// Tells whether the canary's share is more than nothing.
    pub(super) fn is_taking(&self) -> bool {
        self.share.get() > 0.0
    }

    /// Tells whether the canary takes this caller. No caller leaves while the share grows.
    pub(super) fn takes(&self, caller: u64) -> bool {
        sticky::position(self.salt, caller) < self.share.get()
    }

    /// Tells whether the canary takes a request that drew this chance, from 0 up to and without 1.
    pub(super) fn takes_by_chance(&self, chance: f64) -> bool {
        chance < self.share.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canary_keeps_callers_when_share_grows() {
        let canary = CanaryRoute::new("sentiment-router", "candidate", 1);
        assert!(!canary.is_taking() && !canary.takes_by_chance(0.0));
        let mut taken: Vec<u64> = Vec::new();
        for share in [0.01, 0.05, 0.25, 1.0] {
            canary.share.set(share);
            let now: Vec<u64> = (0..100_000).filter(|caller| canary.takes(*caller)).collect();
            assert!(taken.iter().all(|caller| canary.takes(*caller)));
            // Five standard deviations.
            let deviation = 5.0 * (share * (1.0 - share) * 100_000.0_f64).sqrt();
            assert!((now.len() as f64 - share * 100_000.0).abs() <= deviation, "{share} {}", now.len());
            taken = now;
        }
        assert_eq!(taken.len(), 100_000);
        assert!(canary.takes_by_chance(0.999_999));
    }
}
