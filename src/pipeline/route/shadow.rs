//! The bounds on the copies of a route's requests that are under way to its shadow route.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry::{Metrics, ShadowMetrics};

/// Copies of one route's requests that are under way, at most; further copies are dropped.
const MAX_COPIES: usize = 64;

/// Bytes of the requests of those copies, and of the answers they are compared with, at most; further copies are dropped.
const MAX_BYTES: usize = 64 << 20;

/// Bounds the copies of a route's requests, and names the route that the copies go to.
#[derive(Debug)]
pub(in crate::pipeline) struct RouteShadow {
    /// Index of the shadow route in the endpoint.
    pub(in crate::pipeline) route: usize,
    copies: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    pub(in crate::pipeline) metrics: Arc<ShadowMetrics>,
}

impl RouteShadow {
    /// Sends copies to the route with this alias and index.
    pub(super) fn new(endpoint: &str, alias: &str, route: usize, metrics: &Metrics) -> Self {
        Self {
            route,
            copies: Arc::new(Semaphore::new(MAX_COPIES)),
            bytes: Arc::new(Semaphore::new(MAX_BYTES)),
            metrics: Arc::new(metrics.shadow(endpoint, alias)),
        }
    }

    /// Reserves room for a copy of so many bytes, or else counts the copy as dropped.
    pub(in crate::pipeline) fn reserve(&self, bytes: usize) -> Option<[OwnedSemaphorePermit; 2]> {
        let copy = Arc::clone(&self.copies).try_acquire_owned().ok();
        let bytes = u32::try_from(bytes).ok();
        let bytes = bytes.and_then(|bytes| Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok());
        let permits = copy.zip(bytes).map(|(copy, bytes)| [copy, bytes]);
        if permits.is_none() {
            self.metrics.dropped.inc();
        }
        permits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_bounded_by_count_and_by_bytes() {
        let shadow = RouteShadow::new("e", "candidate", 1, &Metrics::new().unwrap());
        let permits: Vec<_> = (0..MAX_COPIES).map_while(|_| shadow.reserve(1)).collect();
        assert_eq!(permits.len(), MAX_COPIES);
        assert!(shadow.reserve(1).is_none());
        drop(permits);
        let large = shadow.reserve(MAX_BYTES).unwrap();
        assert!(shadow.reserve(1).is_none());
        drop(large);
        assert!(shadow.reserve(MAX_BYTES + 1).is_none());
        assert_eq!(shadow.copies.available_permits(), MAX_COPIES);
    }
}
