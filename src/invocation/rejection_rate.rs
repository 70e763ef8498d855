//! The rejection rate of each kind of payload, so that kinds that get each other refused do not travel together.

use std::collections::HashMap;
use std::hash::Hash;

/// Factor by which earlier counts fade with each further row (an EWMA over rows): after 100 rows about a third of their
/// weight is left.
const FADING: f64 = 0.99;

/// Rows of each kind that count as answered from the start: with nothing known, nothing is suspected.
const BENEFIT_OF_DOUBT: f64 = 4.0;

/// Rows of a call that may be refused on average where the host tells which.
const BEARABLE_IF_ISOLATED: f64 = 8.0;

/// Share of refused rows from which on it takes fewer calls to test each row by itself than to search among several,
/// whatever the host tells: two minus the golden ratio (Ungar, 1960).
const ONE_BY_ONE: f64 = 0.382;

/// Kinds that are remembered, at most; with one more, all are forgotten.
const MAX_KINDS: usize = 1024;

/// Tracks how often the rows of each kind of payload were refused, the latest counting the most. Splitting a call to
/// find the refused rows costs a few calls, which pays as long as few rows are refused.
#[derive(Debug)]
pub struct RejectionRate<K> {
    seen: HashMap<K, RowCounts>,
    /// Rows that may be refused in one call, on average.
    bearable: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct RowCounts {
    rows: f64,
    refused: f64,
}

impl<K: Eq + Hash + Clone> RejectionRate<K> {
    /// Begins with nothing known. `isolates_bad_rows` tells whether the model's host says which rows it refuses.
    pub fn new(isolates_bad_rows: bool) -> Self {
        Self {
            seen: HashMap::new(),
            bearable: if isolates_bad_rows { BEARABLE_IF_ISOLATED } else { std::f64::consts::LN_2 },
        }
    }

    /// Limits the rows of a kind that go together: to so many that a call is refused about every second time, or some
    /// more where finding the refused rows costs less; to one, when most are refused.
    pub fn max_rows(&self, kind: &K) -> usize {
        let Some(seen) = self.seen.get(kind) else { return usize::MAX };
        let share = seen.refused / (seen.rows + BENEFIT_OF_DOUBT);
        match share {
            ONE_BY_ONE.. => 1,
            0.0 => usize::MAX,
            _ => (self.bearable / share).max(1.0) as usize,
        }
    }

    /// Records rows of a kind, of which some were refused on their own account.
    pub fn record(&mut self, kind: &K, rows: usize, refused: usize) {
        // A kind that was never refused needs no entry.
        if refused == 0 && !self.seen.contains_key(kind) {
            return;
        }
        if self.seen.len() >= MAX_KINDS && !self.seen.contains_key(kind) {
            self.seen.clear();
        }
        let seen = self.seen.entry(kind.clone()).or_default();
        let left = FADING.powf(rows as f64);
        seen.rows = seen.rows * left + rows as f64;
        seen.refused = seen.refused * left + refused as f64;
        if seen.refused < 0.01 {
            self.seen.remove(kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kind_goes_alone_when_it_is_always_refused() {
        let mut rate = RejectionRate::new(false);
        assert_eq!(rate.max_rows(&'a'), usize::MAX);
        rate.record(&'a', 2, 2);
        assert_eq!(rate.max_rows(&'a'), 2);
        rate.record(&'a', 2, 2);
        assert_eq!(rate.max_rows(&'a'), 1);
        assert_eq!(rate.max_rows(&'b'), usize::MAX);
        // A kind is forgiven when it is no longer refused.
        (0..600).for_each(|_| rate.record(&'a', 1, 0));
        assert!(rate.max_rows(&'a') > 1_000, "{}", rate.max_rows(&'a'));
    }

    #[test]
    fn rows_are_not_searched_when_most_are_refused() {
        let mut rate = RejectionRate::new(true);
        rate.record(&'a', 1, 1);
        assert_eq!(rate.max_rows(&'a'), 40);
        (0..2).for_each(|_| rate.record(&'a', 1, 1));
        assert_eq!(rate.max_rows(&'a'), 1);
        // Requests of the kind go together again as soon as some are answered.
        (0..4).for_each(|_| rate.record(&'a', 1, 0));
        assert!(rate.max_rows(&'a') > 20, "{}", rate.max_rows(&'a'));
    }

    #[test]
    fn kind_goes_together_when_one_in_a_hundred_is_refused() {
        let mut rate = RejectionRate::new(false);
        (0..100).for_each(|batch| rate.record(&'a', 64, usize::from(batch % 3 != 0)));
        assert!((40..=160).contains(&rate.max_rows(&'a')), "{}", rate.max_rows(&'a'));
        (0..100).for_each(|_| rate.record(&'a', 10, 2));
        assert!((3..=4).contains(&rate.max_rows(&'a')), "{}", rate.max_rows(&'a'));
    }

    proptest! {
        #[test]
        fn limit_is_at_least_one_and_memory_is_bounded(seen in prop::collection::vec((0u16..3000, 1usize..100, 0usize..100), 0..3000)) {
            let mut rate = RejectionRate::new(false);
            for (kind, rows, refused) in seen {
                rate.record(&kind, rows, refused.min(rows));
                prop_assert!(rate.max_rows(&kind) >= 1 && rate.seen.len() <= MAX_KINDS);
            }
        }
    }
}
