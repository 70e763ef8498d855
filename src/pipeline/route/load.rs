//! The load of a route: its requests in flight, and an EWMA of how long its calls take.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::clock::{nanoseconds, now};
use crate::message::{Code, Fault};
use crate::routing;

/// Time constant of the EWMA, in seconds: a call this old counts for a third (1/e). A route that once was slow is thus
/// tried again.
const DECAY: Duration = Duration::from_secs(10);

/// Tracks the load of one route, without a lock: of two calls that write at once, one may be lost.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct RouteLoad {
    in_flight: AtomicUsize,
    /// Mean duration of a call at [`Self::seen`], in seconds, the latest calls counting the most: the bits of a float.
    mean: AtomicU64,
    /// Time of the latest call, in nanoseconds of the route clock; 0 is never.
    seen: AtomicU64,
}

/// Counts one request as in flight until it is dropped.
#[derive(Debug)]
pub(in crate::pipeline) struct LoadGuard<'a>(&'a RouteLoad);

impl RouteLoad {
    /// Counts a request as in flight until the guard is dropped.
    pub(in crate::pipeline) fn enter(&self) -> LoadGuard<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        LoadGuard(self)
    }

    /// Adds a call that was answered, or that was too slow to be, to the mean.
    pub(super) fn record_success(&self, seconds: f64) {
        self.record_at(seconds, now());
    }

    /// Adds a request without an answer to the mean, unless its caller is at fault. The request counts as a call that took
    /// all the time there is: a route that fails at once would look the fastest of all.
    pub(in crate::pipeline) fn record_failure(&self, fault: &Fault, limit: Duration) {
        if fault.code.status() >= 500 || fault.code == Code::ResourceExhausted {
            self.record_success(limit.as_secs_f64());
        }
    }

    /// Adds a call that ended at a given time to the mean.
    pub(in crate::pipeline) fn record_at(&self, seconds: f64, now: Duration) {
        let mean = self.weighted_mean(now).map_or(seconds, |(mean, weight)| mean * weight + seconds * (1.0 - weight));
        self.mean.store(mean.to_bits(), Ordering::Relaxed);
        self.seen.store(nanoseconds(now).max(1), Ordering::Relaxed);
    }

    /// Reads the load as of a given time, for routing by load.
    pub(super) fn at(&self, now: Duration) -> routing::LoadReading {
        let mean = self.weighted_mean(now).map(|(mean, weight)| mean * weight);
        routing::LoadReading { in_flight: self.in_flight.load(Ordering::Relaxed), mean }
    }

    /// Returns the mean, and the weight from 0 to 1 that its age leaves it.
    fn weighted_mean(&self, now: Duration) -> Option<(f64, f64)> {
        let seen = self.seen.load(Ordering::Relaxed);
        let age = Duration::from_nanos(nanoseconds(now).saturating_sub(seen));
        let weight = (-age.as_secs_f64() / DECAY.as_secs_f64()).exp();
        (seen > 0).then(|| (f64::from_bits(self.mean.load(Ordering::Relaxed)), weight))
    }
}

impl Drop for LoadGuard<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Stage;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn mean(load: &RouteLoad, now: Duration) -> f64 {
        load.at(now).mean.unwrap()
    }

    #[test]
    fn load_counts_requests_until_they_end() {
        let load = RouteLoad::default();
        let (one, other) = (load.enter(), load.enter());
        assert_eq!(load.at(seconds(1)), routing::LoadReading { in_flight: 2, mean: None });
        drop(one);
        assert_eq!(load.at(seconds(1)).in_flight, 1);
        drop(other);
        assert_eq!(load.at(seconds(1)).in_flight, 0);
    }

    #[test]
    fn mean_follows_latest_calls_when_earlier_ones_are_old() {
        let load = RouteLoad::default();
        load.record_at(2.0, seconds(0));
        assert!((mean(&load, seconds(0)) - 2.0).abs() < 1e-6);
        load.record_at(0.1, seconds(60));
        assert!((mean(&load, seconds(60)) - 0.1).abs() < 0.01);
        // Many calls at the same moment count for no more than one.
        (0..100).for_each(|_| load.record_at(9.0, seconds(60)));
        assert!((mean(&load, seconds(60)) - 0.1).abs() < 0.01);
        (61..160).for_each(|now| load.record_at(0.5, seconds(now)));
        assert!((mean(&load, seconds(159)) - 0.5).abs() < 1e-3);
    }

    #[test]
    fn failure_counts_as_slow_unless_caller_is_at_fault() {
        let (load, limit) = (RouteLoad::default(), seconds(10));
        load.record_failure(&Fault::permanent(Code::BadRequest, Stage::Invoke, "a stray comma"), limit);
        assert_eq!(load.at(now()).mean, None);
        load.record_failure(&Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "no such file"), limit);
        assert!(mean(&load, now()) > 1.0);
    }

    #[test]
    fn mean_fades_when_no_calls_come() {
        let load = RouteLoad::default();
        load.record_at(30.0, seconds(0));
        assert!(mean(&load, seconds(100)) < 0.002);
    }
}
