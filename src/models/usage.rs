//! Usage of a version: how often it is called, and when its next call is expected.
//!
//! Usage is counted in calls, of all versions, and not in time: when nothing is called, as at night, no habits change.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Number of intervals that the moving average spans, roughly: enough to tell a model that is used twice as often from
/// luck, few enough that a changed habit shows.
const REMEMBERED_INTERVALS: u64 = 16;

/// Mean absolute deviation of intervals that are independent of each other (exponentially distributed), as a part of
/// their mean: 2/e.
const DEVIATION_OF_CHANCE: f32 = 0.735_76;

/// Number of usual intervals after which a silence means that the habit has ended. By chance, a silence of that length
/// is one in fifty.
const SILENCE: f32 = 4.0;

/// Counts the calls of one version. It outlives the version's hosts, so that its habits are known when it is loaded
/// again.
///
/// Every call touches it, so it has no lock: two calls at the same instant may count as one interval.
#[derive(Debug, Default)]
pub(super) struct Usage {
    uses: AtomicU64,
    /// Microseconds since the start, plus one; 0 before the first use.
    last_use: AtomicU64,
    /// The number of the last call among all calls; 0 before the first.
    last_call: AtomicU64,
    /// The bits of a [`Pace`], in one word so that both halves belong together.
    pace: AtomicU64,
}

/// Snapshot of a version's [`Usage`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Habit {
    /// The number of calls.
    pub(super) uses: u64,
    /// The time of the last call.
    pub(super) last_use: Option<Duration>,
    /// The number of calls of other versions since the last call of this one; of all calls, when there was none.
    pub(super) silence: f32,
    /// The interval from one call to the next. Nothing is known of it before the second call.
    pub(super) pace: Option<Pace>,
}

/// Interval from one call to the next, in calls of all versions: moving averages.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pace {
    pub(super) interval: f32,
    /// The mean absolute deviation from the interval.
    pub(super) deviation: f32,
}

impl Usage {
    /// Records a call that begins at this time since the start. It is the `call`th of all.
    pub(super) fn used(&self, now: Duration, call: u64) {
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX - 1) + 1;
        self.last_use.fetch_max(now, Ordering::Relaxed);
        let before = self.last_call.fetch_max(call, Ordering::Relaxed);
        let intervals = self.uses.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            return;
        }
        let interval = call.saturating_sub(before) as f32;
        let pace = Pace::unpack(self.pace.load(Ordering::Relaxed)).after(interval, intervals);
        self.pace.store(pace.pack(), Ordering::Relaxed);
    }

    /// Returns the habit after so many calls of all versions together.
    pub(super) fn habit(&self, calls: u64) -> Habit {
        let uses = self.uses.load(Ordering::Relaxed);
        let last_use = self.last_use.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_micros);
        let pace = Pace::unpack(self.pace.load(Ordering::Relaxed));
        let silence = calls.saturating_sub(self.last_call.load(Ordering::Relaxed)) as f32;
        Habit { uses, last_use, silence, pace: (uses > 1).then_some(pace) }
    }
}

impl Pace {
    /// Returns the pace with one more interval, which is the `count`th. The first interval is all that is known, so its
    /// deviation is taken to be as large.
    fn after(self, interval: f32, count: u64) -> Self {
        if count <= 1 {
            return Self { interval, deviation: interval };
        }
        let weight = 1.0 / count.min(REMEMBERED_INTERVALS) as f32;
        let off = (interval - self.interval).abs();
        Self {
            interval: self.interval + weight * (interval - self.interval),
            deviation: self.deviation + weight * (off - self.deviation),
        }
    }

    /// Predicts the number of calls until the next use, after a `silence` of so many.
    ///
    /// Uses that follow each other by chance can be expected after the mean interval, however long the last is ago;
    /// regular uses after the rest of the interval. Their regularity weights the two. When nothing has come for far
    /// longer than usual, neither holds any more, and a version that has been silent that long is expected to be for as
    /// long again.
    pub(super) fn expected_wait(self, silence: f32) -> f32 {
        let Self { interval, deviation } = self;
        if silence > SILENCE * interval {
            return silence;
        }
        let regularity = (1.0 - deviation / (DEVIATION_OF_CHANCE * interval)).clamp(0.0, 1.0);
        let left = (interval - silence).max(deviation);
        regularity * left + (1.0 - regularity) * interval
    }

    fn pack(self) -> u64 {
        u64::from(self.interval.to_bits()) << 32 | u64::from(self.deviation.to_bits())
    }

    fn unpack(word: u64) -> Self {
        let [high, low] = [word >> 32, word & u64::from(u32::MAX)].map(|half| f32::from_bits(half as u32));
        Self { interval: high, deviation: low }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn used_at(calls: impl IntoIterator<Item = u64>) -> Usage {
        let usage = Usage::default();
        calls.into_iter().for_each(|call| usage.used(Duration::from_secs(call), call));
        usage
    }

    fn near(one: f32, other: f32) -> bool {
        (one - other).abs() <= 0.01 * other.abs().max(1.0)
    }

    #[test]
    fn pace_is_unknown_before_the_second_use() {
        assert_eq!(Usage::default().habit(5), Habit { silence: 5.0, ..Habit::default() });
        let first = Habit { uses: 1, last_use: Some(Duration::from_secs(1)), silence: 4.0, pace: None };
        assert_eq!(used_at([1]).habit(5), first);
        let pace = Some(Pace { interval: 3.0, deviation: 3.0 });
        let second = Habit { uses: 2, last_use: Some(Duration::from_secs(4)), silence: 1.0, pace };
        assert_eq!(used_at([1, 4]).habit(5), second);
    }

    #[test]
    fn regular_use_is_expected_after_the_rest_of_the_interval() {
        let pace = used_at((1..200).map(|n| n * 10)).habit(2000).pace.unwrap();
        assert!(near(pace.interval, 10.0) && pace.deviation < 0.01, "{pace:?}");
        assert!(near(pace.expected_wait(0.0), 10.0));
        assert!(near(pace.expected_wait(8.0), 2.0));
        // Late, and due at any moment.
        assert!(pace.expected_wait(11.0) < 0.1);
    }

    #[test]
    fn random_use_is_expected_after_the_mean_interval() {
        let pace = Pace { interval: 10.0, deviation: 7.36 };
        assert!(near(pace.expected_wait(0.0), 10.0));
        assert!(near(pace.expected_wait(8.0), 10.0));
        assert!(near(pace.expected_wait(39.0), 10.0));
    }

    #[test]
    fn silence_is_expected_to_last_when_long() {
        for deviation in [0.0, 5.0, 10.0] {
            assert_eq!(Pace { interval: 10.0, deviation }.expected_wait(41.0), 41.0);
        }
    }

    #[test]
    fn pace_adapts_when_the_habit_changes() {
        let seldom = (1..100).map(|n| n * 60);
        let often = (0..60).map(|n| 100 * 60 + n);
        let pace = used_at(seldom.chain(often)).habit(6060).pace.unwrap();
        assert!(pace.interval < 3.0, "{pace:?}");
    }

    #[test]
    fn usage_keeps_the_latest_call_when_out_of_order() {
        let habit = used_at([5, 5, 4, 6]).habit(6);
        assert_eq!((habit.uses, habit.last_use), (4, Some(Duration::from_secs(6))));
    }

    #[test]
    fn usage_loses_no_call_under_contention() {
        let usage = Usage::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let usage = &usage;
                let calls = (0..1000).map(move |n| n * 4 + thread);
                scope.spawn(move || calls.for_each(|call| usage.used(Duration::from_millis(call), call)));
            }
        });
        let habit = usage.habit(4000);
        assert_eq!((habit.uses, habit.last_use), (4000, Some(Duration::from_millis(3999))));
        assert!(habit.pace.is_some_and(|pace| pace.interval.is_finite() && pace.interval >= 0.0), "{habit:?}");
    }

    proptest! {
        #[test]
        fn expected_wait_stays_within_bounds(
            mut calls in proptest::collection::vec(1..10_000_000_u64, 2..40), silence in 0.0..1e6_f32,
        ) {
            calls.sort_unstable();
            let pace = used_at(calls).habit(10_000_000).pace.unwrap();
            let wait = pace.expected_wait(silence);
            prop_assert!(wait >= 0.0 && wait.is_finite());
            prop_assert!(wait <= silence.max(pace.interval).max(pace.deviation) * 1.001, "{} {:?}", wait, pace);
        }
    }
}
