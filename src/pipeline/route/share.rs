//! The share that one route has of the requests in flight, and its rate of completion.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Counts a route's admitted requests, without a lock: of two requests that write at once, one may be lost.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct RouteShare {
    pub(in crate::pipeline) requests: AtomicUsize,
    pub(in crate::pipeline) bytes: AtomicUsize,
    /// Second of the route clock in which the latest request ended.
    second: AtomicU64,
    /// Requests that ended in that second so far, and in the second before it.
    ended: AtomicUsize,
    ended_before: AtomicUsize,
}

impl RouteShare {
    /// Counts a request as ended at a given time.
    pub(in crate::pipeline) fn end_at(&self, now: Duration) {
        let second = now.as_secs();
        let before = self.second.swap(second, Ordering::Relaxed);
        if before != second {
            let ended = self.ended.swap(0, Ordering::Relaxed);
            self.ended_before.store(if before + 1 == second { ended } else { 0 }, Ordering::Relaxed);
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Estimates how many requests ended within the last second: those of the second before count by the part of it that
    /// lies within, as if they were spread over it evenly.
    pub(in crate::pipeline) fn ended_within_last_second(&self, now: Duration) -> f64 {
        let rest = 1.0 - f64::from(now.subsec_nanos()) / 1e9;
        let ended = self.ended.load(Ordering::Relaxed) as f64;
        match now.as_secs().saturating_sub(self.second.load(Ordering::Relaxed)) {
            0 => ended + self.ended_before.load(Ordering::Relaxed) as f64 * rest,
            1 => ended * rest,
            _ => 0.0,
        }
    }
}
