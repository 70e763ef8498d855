//! The batch size of a route: as many rows in one call as keep its latency within a target, by additive increase and
//! multiplicative decrease (AIMD) with a slow start.
//!
//! The size doubles while calls are full and quick. As soon as one call is slow it shrinks by a factor, and from then
//! on it grows by addition.

use std::time::Duration;

/// Rows of the first calls.
const FIRST: f64 = 16.0;

/// Rows that are added after a call that was full and quick, once the slow start has ended.
const MORE: f64 = 4.0;

/// Factor for the rows of a call that was slow: the next calls have at most so much of them.
const FEWER: f64 = 0.7;

/// Factor for the time of a single row, if that is longer than the target: the model may take so many times as long for
/// more rows, since fewer rows would not make it quicker.
const SLOW_MODEL: f64 = 2.0;

/// Weight of the latest call in the EWMA of the time for a single row.
const LATEST: f64 = 0.2;

/// Adapts the number of rows that go into one call.
#[derive(Debug)]
pub struct BatchSize {
    max: f64,
    /// Latency target in seconds.
    target: f64,
    limit: f64,
    /// Tells whether a call has ever been too slow, which ends the slow start.
    knows_too_many: bool,
    /// Tells whether requests were left in the queue the last time, since there was no room for their rows.
    is_crowded: bool,
    /// EWMA of the seconds for a single row; none before such a call.
    single: Option<f64>,
}

impl BatchSize {
    /// Allows at most so many rows, and fewer where a call takes longer than the target.
    pub fn new(max_rows: usize, target: Duration) -> Self {
        let max = max_rows.max(1) as f64;
        Self {
            max,
            target: target.as_secs_f64(),
            limit: FIRST.min(max),
            knows_too_many: false,
            is_crowded: false,
            single: None,
        }
    }

    /// Returns the number of rows that may go into a call: at least one.
    pub fn rows(&self) -> usize {
        self.limit as usize
    }

    /// Records whether requests were left in the queue, since there was no room for their rows in the call.
    pub fn record_crowding(&mut self, is_crowded: bool) {
        self.is_crowded = is_crowded;
    }

    /// Records a call with so many rows, which was answered or ran out of time, and adapts the size.
    pub fn record(&mut self, rows: usize, took: Duration) {
        let seconds = took.as_secs_f64();
        if rows <= 1 {
            self.single = Some(self.single.map_or(seconds, |single| single + LATEST * (seconds - single)));
        }
        let target = self.single.map_or(self.target, |single| self.target.max(SLOW_MODEL * single));
        let rows = rows as f64;
        if seconds > target {
            // A single request may have more rows than the limit, which tells nothing of fewer rows.
            if rows <= self.limit {
                self.limit = (rows * FEWER).max(1.0);
                self.knows_too_many = true;
            }
        } else if rows >= self.limit.floor() || self.is_crowded && 2.0 * rows > self.limit {
            // Requests of several rows each seldom add up to the limit, so a crowded call counts as full.
            let more = if self.knows_too_many { MORE } else { self.limit };
            self.limit = (self.limit + more).min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TARGET: Duration = Duration::from_millis(100);

    /// Calls a model that takes `fixed` microseconds a call and `row` a row, with as many rows as allowed each time.
    fn settle(size: &mut BatchSize, fixed: u64, row: u64) -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..400 {
            let rows = size.rows();
            took = Duration::from_micros(fixed + row * rows as u64);
            size.record(rows, took);
        }
        took
    }

    #[test]
    fn size_reaches_maximum_when_model_is_quick() {
        let mut size = BatchSize::new(64, TARGET);
        assert_eq!(size.rows(), 16);
        settle(&mut size, 3_000, 30);
        assert_eq!(size.rows(), 64);
        // Calls with few rows, since there is little to do, change nothing.
        (0..100).for_each(|_| size.record(3, Duration::from_millis(4)));
        assert_eq!(size.rows(), 64);
    }

    #[test]
    fn size_stays_large_when_model_is_slow_for_single_rows() {
        let mut size = BatchSize::new(64, TARGET);
        settle(&mut size, 300_000, 100);
        assert_eq!(size.rows(), 64);
        // A model that takes long for each row gets few rows a call.
        let mut size = BatchSize::new(64, TARGET);
        settle(&mut size, 0, 300_000);
        assert!(size.rows() <= 6, "{}", size.rows());
    }

    #[test]
    fn size_doubles_until_first_slow_call() {
        let mut size = BatchSize::new(256, TARGET);
        (0..4).for_each(|_| size.record(size.rows(), Duration::from_millis(5)));
        assert_eq!(size.rows(), 256);
        size.record(256, Duration::from_millis(101));
        size.record(179, Duration::from_millis(80));
        assert_eq!(size.rows(), 183);
    }

    #[test]
    fn size_stays_when_single_large_request_is_slow() {
        let mut size = BatchSize::new(64, TARGET);
        size.record(100_000, Duration::from_secs(3));
        assert_eq!(size.rows(), 16);
    }

    #[test]
    fn size_grows_when_call_is_crowded_but_not_full() {
        let mut size = BatchSize::new(256, TARGET);
        size.record(16, Duration::from_millis(101));
        assert_eq!(size.rows(), 11);
        (0..10).for_each(|_| size.record(8, Duration::from_millis(4)));
        assert_eq!(size.rows(), 11);
        size.record_crowding(true);
        size.record(8, Duration::from_millis(4));
        size.record(8, Duration::from_millis(4));
        assert_eq!(size.rows(), 19);
        // A request that was called alone, for another reason.
        size.record(1, Duration::from_millis(4));
        size.record_crowding(false);
        size.record(16, Duration::from_millis(4));
        assert_eq!(size.rows(), 19);
    }

    proptest! {
        #[test]
        fn size_reaches_maximum_when_requests_have_many_rows(each in 1usize..64) {
            let mut size = BatchSize::new(256, TARGET);
            size.record(16, Duration::from_millis(101));
            size.record_crowding(true);
            for _ in 0..200 {
                size.record((size.rows() / each).max(1) * each, Duration::from_millis(4));
            }
            prop_assert_eq!(size.rows(), 256);
        }

        #[test]
        fn size_stays_within_bounds(
            most in 0usize..200, calls in prop::collection::vec((0usize..300, 0u64..2_000_000), 0..200)
        ) {
            let mut size = BatchSize::new(most, TARGET);
            for (rows, micros) in calls {
                size.record_crowding(micros % 2 == 0);
                size.record(rows, Duration::from_micros(micros));
                prop_assert!((1..=most.max(1)).contains(&size.rows()));
            }
        }

        #[test]
        fn size_settles_where_target_is_kept(fixed in 0u64..50_000, row in 100u64..20_000) {
            let mut size = BatchSize::new(1_000, TARGET);
            settle(&mut size, fixed, row);
            let ideal = (100_000 - fixed) as f64 / row as f64;
            // The size lies between the rows left after a call that was too slow, and one step too many.
            let (least, most) = ((ideal * FEWER - 1.0).max(1.0).floor(), ideal + MORE);
            let rows = size.rows() as f64;
            prop_assert!((least.min(1_000.0)..=most).contains(&rows) || ideal >= 1_000.0 * FEWER, "{} of {}", rows, ideal);
        }
    }
}
