//! How many rows go into one call: as many as keep its latency within a target. More while calls are full and quick, fewer
//! by multiplication as soon as one is not; twice as many until that has happened once, and then by addition.

use std::time::Duration;

/// Rows to begin with.
const FIRST: f64 = 16.0;

/// How many more there may be after a call that was full and quick, once it is known what is too many.
const MORE: f64 = 4.0;

/// What is left of them after one that was slow.
const FEWER: f64 = 0.7;

/// A model that takes longer than the target for a single row may take so many times that for more: fewer rows would not
/// make it quicker.
const SLOW_MODEL: f64 = 2.0;

/// How much the latest call counts for what a single row takes.
const LATEST: f64 = 0.2;

/// So many calls tell how long one takes at least. One alone may have had to import something first.
const RECENT: usize = 8;

/// How many rows go into one call.
#[derive(Debug)]
pub struct BatchSize {
    most: f64,
    target: f64,
    limit: f64,
    /// Whether a call has ever been too slow.
    knows_too_many: bool,
    /// Whether requests had to stay behind the last time, for there was no room for their rows.
    is_crowded: bool,
    /// Seconds for a single row, as far as is known.
    single: Option<f64>,
    /// Seconds of the latest calls, each at its number modulo their count.
    recent: [f64; RECENT],
    calls: usize,
}

impl BatchSize {
    /// At most so many rows, and fewer where a call takes longer than the target.
    pub fn new(max_rows: usize, target: Duration) -> Self {
        let most = max_rows.max(1) as f64;
        Self {
            most,
            target: target.as_secs_f64(),
            limit: FIRST.min(most),
            knows_too_many: false,
            is_crowded: false,
            single: None,
            recent: [0.0; RECENT],
            calls: 0,
        }
    }

    /// How many rows may go into a call: at least one.
    pub fn rows(&self) -> usize {
        self.limit as usize
    }

    /// Takes account of who goes together: whether others had to stay behind, for there was no room for their rows.
    pub fn left_behind(&mut self, is_crowded: bool) {
        self.is_crowded = is_crowded;
    }

    /// How long the quickest of the latest calls took; none before there were a few.
    pub fn quickest(&self) -> Option<Duration> {
        let seconds = self.recent.iter().copied().fold(f64::INFINITY, f64::min);
        (self.calls >= RECENT).then(|| Duration::try_from_secs_f64(seconds).ok())?
    }

    /// Takes account of a call of whose rows nobody knows the number.
    pub fn saw(&mut self, took: Duration) {
        self.recent[self.calls % RECENT] = took.as_secs_f64();
        self.calls += 1;
    }

    /// Takes account of a call with so many rows, which was answered or ran out of time.
    pub fn took(&mut self, rows: usize, took: Duration) {
        let seconds = took.as_secs_f64();
        self.saw(took);
        if rows <= 1 {
            self.single = Some(self.single.map_or(seconds, |single| single + LATEST * (seconds - single)));
        }
        let target = self.single.map_or(self.target, |single| self.target.max(SLOW_MODEL * single));
        let rows = rows as f64;
        if seconds > target {
            // A request may have more rows than that on its own, which tells nothing of fewer.
            if rows <= self.limit {
                self.limit = (rows * FEWER).max(1.0);
                self.knows_too_many = true;
            }
        } else if rows >= self.limit.floor() || self.is_crowded && 2.0 * rows > self.limit {
            // Requests of several rows each seldom add up to what there is room for.
            let more = if self.knows_too_many { MORE } else { self.limit };
            self.limit = (self.limit + more).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TARGET: Duration = Duration::from_millis(100);

    /// Calls a model that takes `fixed` and `row` microseconds, with as many rows as there may be.
    fn settle(size: &mut BatchSize, fixed: u64, row: u64) -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..400 {
            let rows = size.rows();
            took = Duration::from_micros(fixed + row * rows as u64);
            size.took(rows, took);
        }
        took
    }

    #[test]
    fn a_quick_model_gets_all_there_may_be() {
        let mut size = BatchSize::new(64, TARGET);
        assert_eq!((size.rows(), size.quickest()), (16, None));
        settle(&mut size, 3_000, 30);
        assert_eq!(size.rows(), 64);
        assert_eq!(size.quickest(), Some(Duration::from_micros(4_920)));
        (1..RECENT).for_each(|_| size.saw(Duration::from_secs(10)));
        assert_eq!(size.quickest(), Some(Duration::from_micros(4_920)));
        // Few rows, since there is little to do, change nothing.
        (0..100).for_each(|_| size.took(3, Duration::from_millis(4)));
        assert_eq!(size.rows(), 64);
    }

    #[test]
    fn a_model_that_is_slow_by_itself_is_not_called_more_often_for_that() {
        let mut size = BatchSize::new(64, TARGET);
        settle(&mut size, 300_000, 100);
        assert_eq!(size.rows(), 64);
        // One that takes its time for each row goes one by one.
        let mut size = BatchSize::new(64, TARGET);
        settle(&mut size, 0, 300_000);
        assert!(size.rows() <= 6, "{}", size.rows());
    }

    #[test]
    fn it_gets_there_at_once_as_long_as_nothing_was_too_many() {
        let mut size = BatchSize::new(256, TARGET);
        (0..4).for_each(|_| size.took(size.rows(), Duration::from_millis(5)));
        assert_eq!(size.rows(), 256);
        size.took(256, Duration::from_millis(101));
        size.took(179, Duration::from_millis(80));
        assert_eq!(size.rows(), 183);
    }

    #[test]
    fn a_large_request_says_nothing_of_small_ones() {
        let mut size = BatchSize::new(64, TARGET);
        size.took(100_000, Duration::from_secs(3));
        assert_eq!(size.rows(), 16);
    }

    #[test]
    fn requests_of_many_rows_make_a_call_full_without_filling_it() {
        let mut size = BatchSize::new(256, TARGET);
        size.took(16, Duration::from_millis(101));
        assert_eq!(size.rows(), 11);
        (0..10).for_each(|_| size.took(8, Duration::from_millis(4)));
        assert_eq!(size.rows(), 11);
        size.left_behind(true);
        size.took(8, Duration::from_millis(4));
        size.took(8, Duration::from_millis(4));
        assert_eq!(size.rows(), 19);
        // One that was called alone, for another reason.
        size.took(1, Duration::from_millis(4));
        size.left_behind(false);
        size.took(16, Duration::from_millis(4));
        assert_eq!(size.rows(), 19);
    }

    proptest! {
        #[test]
        fn requests_of_the_same_size_get_as_much_room_as_single_rows(each in 1usize..64) {
            let mut size = BatchSize::new(256, TARGET);
            size.took(16, Duration::from_millis(101));
            size.left_behind(true);
            for _ in 0..200 {
                size.took((size.rows() / each).max(1) * each, Duration::from_millis(4));
            }
            prop_assert_eq!(size.rows(), 256);
        }

        #[test]
        fn it_stays_within_its_bounds_whatever_happens(
            most in 0usize..200, calls in prop::collection::vec((0usize..300, 0u64..2_000_000), 0..200)
        ) {
            let mut size = BatchSize::new(most, TARGET);
            for (rows, micros) in calls {
                size.left_behind(micros % 2 == 0);
                size.took(rows, Duration::from_micros(micros));
                prop_assert!((1..=most.max(1)).contains(&size.rows()));
            }
        }

        #[test]
        fn it_finds_what_keeps_to_the_target(fixed in 0u64..50_000, row in 100u64..20_000) {
            let mut size = BatchSize::new(1_000, TARGET);
            settle(&mut size, fixed, row);
            let ideal = (100_000 - fixed) as f64 / row as f64;
            // Between what is left after a call that was too slow, and one step too many.
            let (least, most) = ((ideal * FEWER - 1.0).max(1.0).floor(), ideal + MORE);
            let rows = size.rows() as f64;
            prop_assert!((least.min(1_000.0)..=most).contains(&rows) || ideal >= 1_000.0 * FEWER, "{} of {}", rows, ideal);
        }
    }
}
