//! Statistics of a route's requests: failures and a latency histogram, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets in each doubling of the latency; a percentile is therefore exact to within an eighth.
const PARTS: u32 = 8;

/// Number of buckets, from microseconds to half a day; a longer latency counts in the last one.
const BUCKETS: usize = 36 * PARTS as usize;

/// Counts the requests of one route, by failure and by latency. The counters only ever grow.
#[derive(Debug)]
pub struct RouteStatistics {
    failures: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

/// Holds the counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Baseline {
    failures: u64,
    latencies: Vec<u64>,
}

/// Sums up the requests between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ObservationWindow {
    /// The number of requests.
    pub(super) calls: u64,
    /// The number of requests that failed by the route's own fault.
    pub(super) failures: u64,
    /// The 95th percentile of the latency.
    pub(super) p95: Duration,
}

impl Default for RouteStatistics {
    fn default() -> Self {
        Self { failures: AtomicU64::new(0), latencies: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

impl RouteStatistics {
    /// Counts one request.
    pub fn count(&self, took: Duration, failed: bool) {
        self.latencies[bucket(took)].fetch_add(1, Ordering::Relaxed);
        if failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn baseline(&self) -> Baseline {
        Baseline {
            failures: self.failures.load(Ordering::Relaxed),
            latencies: self.latencies.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
        }
    }
}

impl Baseline {
    /// Sums up the requests of several routes together, from pairs of a route's baseline then and its baseline now.
    pub(super) fn window<'a>(pairs: impl Iterator<Item = (&'a Self, &'a Self)>) -> ObservationWindow {
        let (mut failures, mut latencies) = (0, vec![0; BUCKETS]);
        // The routes' histograms are added up, so the percentile is that of all their requests together.
        for (then, now) in pairs {
            failures += now.failures - then.failures;
            for (sum, (then, now)) in latencies.iter_mut().zip(then.latencies.iter().zip(&now.latencies)) {
                *sum += now - then;
            }
        }
        // The percentile is the upper end of the bucket in which the request of that rank lies.
        let calls: u64 = latencies.iter().sum();
        let rank = calls - calls / 20;
        let mut seen = 0;
        let found = latencies.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        let p95 = if calls == 0 { Duration::ZERO } else { found.map_or(Duration::ZERO, upper_end) };
        ObservationWindow { calls, failures: failures.min(calls), p95 }
    }
}

impl ObservationWindow {
    pub(super) fn failed_share(&self) -> f64 {
        if self.calls == 0 { 0.0 } else { self.failures as f64 / self.calls as f64 }
    }
}

/// Finds the bucket of a latency: each doubling of microseconds has [`PARTS`] buckets of equal width.
fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let doubling = micros.ilog2();
    let part = ((u128::from(micros) * u128::from(PARTS)) >> doubling) as usize - PARTS as usize;
    (doubling as usize * PARTS as usize + part).min(BUCKETS - 1)
}

fn upper_end(bucket: usize) -> Duration {
    let (doubling, part) = (bucket / PARTS as usize, bucket % PARTS as usize);
    let micros = ((part as u64 + 1 + u64::from(PARTS)) << doubling) / u64::from(PARTS);
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn window_counts_only_requests_since_baseline() {
        let (one, other) = (RouteStatistics::default(), RouteStatistics::default());
        one.count(Duration::from_secs(9), true);
        let then = [one.baseline(), other.baseline()];
        for number in 1..=100 {
            one.count(Duration::from_millis(number), number > 98);
            other.count(Duration::from_millis(1), false);
        }
        let now = [one.baseline(), other.baseline()];
        let alone = Baseline::window(then.iter().zip(&now).take(1));
        assert_eq!((alone.calls, alone.failures, alone.failed_share()), (100, 2, 0.02));
        assert!((95..=107).contains(&alone.p95.as_millis()), "{alone:?}");
        let both = Baseline::window(then.iter().zip(&now));
        assert!(both.calls == 200 && (90..=102).contains(&both.p95.as_millis()), "{both:?}");
        let none = Baseline::window(now.iter().zip(&now));
        assert_eq!(none, ObservationWindow { calls: 0, failures: 0, p95: Duration::ZERO });
    }

    proptest! {
        #[test]
        fn percentile_is_exact_within_an_eighth(micros in 1..40_000_000_000_u64) {
            let statistics = RouteStatistics::default();
            let then = statistics.baseline();
            statistics.count(Duration::from_micros(micros), false);
            let p95 = Baseline::window([(&then, &statistics.baseline())].into_iter()).p95.as_micros() as f64;
            prop_assert!(p95 >= micros as f64 && p95 <= micros as f64 * 1.13 + 1.0, "{micros} {p95}");
        }

        #[test]
        fn bucket_takes_any_duration(nanos in any::<u64>(), seconds in any::<u64>()) {
            let _ = bucket(Duration::from_nanos(nanos));
            let _ = bucket(Duration::from_secs(seconds));
        }
    }
}
