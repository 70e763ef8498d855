//! What a route has to do at the moment.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use super::breaker::RouteBreaker;
use super::Target;
use crate::message::{Code, Fault};
use crate::routing::{self, Loads};

/// How long a call is remembered: after that it counts for a third. A route that once was slow is thus tried again.
const MEMORY: Duration = Duration::from_secs(10);

/// What a route has to do. It is read and written without a lock; what two calls write at once may be lost for one.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Load {
    in_flight: AtomicUsize,
    /// How long a call took at [`Self::seen`], in seconds, the latest ones counting the most: the bits of a float.
    mean: AtomicU64,
    /// When that was, in nanoseconds since the first load of all was looked at; 0 is never.
    seen: AtomicU64,
}

/// A request that a route has.
#[derive(Debug)]
pub(in crate::pipeline) struct InFlight<'a>(&'a Load);

impl Load {
    /// Counts a request until that ends.
    pub(in crate::pipeline) fn enter(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    /// Takes account of a call that was answered, or that was too slow to be.
    pub(in crate::pipeline) fn took(&self, seconds: f64) {
        self.took_at(seconds, now());
    }

    /// Takes account of a request that got no answer, where that is not the caller's own fault. It counts as a call that
    /// took all the time there is: a route that fails at once would look the fastest of all.
    pub(in crate::pipeline) fn failed(&self, fault: &Fault, limit: Duration) {
        if fault.code.status() >= 500 || fault.code == Code::ResourceExhausted {
            self.took(limit.as_secs_f64());
        }
    }

    /// The same at this time.
    pub(in crate::pipeline) fn took_at(&self, seconds: f64, now: Duration) {
        let mean = self.weighted_mean(now).map_or(seconds, |(mean, weight)| mean * weight + seconds * (1.0 - weight));
        self.mean.store(mean.to_bits(), Ordering::Relaxed);
        self.seen.store(nanoseconds(now), Ordering::Relaxed);
    }

    fn at(&self, now: Duration) -> routing::Load {
        let mean = self.weighted_mean(now).map(|(mean, weight)| mean * weight);
        routing::Load { in_flight: self.in_flight.load(Ordering::Relaxed), mean }
    }

    /// The mean, and how much it still counts for.
    fn weighted_mean(&self, now: Duration) -> Option<(f64, f64)> {
        let seen = self.seen.load(Ordering::Relaxed);
        let age = Duration::from_nanos(nanoseconds(now).saturating_sub(seen));
        let weight = (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        (seen > 0).then(|| (f64::from_bits(self.mean.load(Ordering::Relaxed)), weight))
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Loads for [Arc<Target>] {
    fn load(&self, route: usize) -> routing::Load {
        let Some(target) = self.get(route) else { return routing::Load::default() };
        let load = target.load.at(now());
        // A route that is left alone has nothing to do, and must not seem to be the best choice for that.
        match target.breaker.as_ref().is_some_and(RouteBreaker::refuses) {
            true => routing::Load { in_flight: usize::MAX / 2, ..load },
            false => load,
        }
    }
}

pub(in crate::pipeline) fn now() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Stage;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn mean(load: &Load, now: Duration) -> f64 {
        load.at(now).mean.unwrap()
    }

    #[test]
    fn requests_count_until_they_end() {
        let load = Load::default();
        let (one, other) = (load.enter(), load.enter());
        assert_eq!(load.at(seconds(1)), routing::Load { in_flight: 2, mean: None });
        drop(one);
        assert_eq!(load.at(seconds(1)).in_flight, 1);
        drop(other);
        assert_eq!(load.at(seconds(1)).in_flight, 0);
    }

    #[test]
    fn the_latest_calls_count_the_most() {
        let load = Load::default();
        load.took_at(2.0, seconds(0));
        assert!((mean(&load, seconds(0)) - 2.0).abs() < 1e-6);
        load.took_at(0.1, seconds(60));
        assert!((mean(&load, seconds(60)) - 0.1).abs() < 0.01);
        // Many at the same moment are no more than one.
        (0..100).for_each(|_| load.took_at(9.0, seconds(60)));
        assert!((mean(&load, seconds(60)) - 0.1).abs() < 0.01);
        (61..160).for_each(|now| load.took_at(0.5, seconds(now)));
        assert!((mean(&load, seconds(159)) - 0.5).abs() < 1e-3);
    }

    #[test]
    fn what_fails_looks_slow_unless_the_caller_is_at_fault() {
        let (load, limit) = (Load::default(), seconds(10));
        load.failed(&Fault::permanent(Code::BadRequest, Stage::Invoke, "a stray comma"), limit);
        assert_eq!(load.at(now()).mean, None);
        load.failed(&Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "no such file"), limit);
        assert!(mean(&load, now()) > 1.0);
    }

    #[test]
    fn what_was_slow_is_forgotten() {
        let load = Load::default();
        load.took_at(30.0, seconds(0));
        assert!(mean(&load, seconds(100)) < 0.002);
    }
}
