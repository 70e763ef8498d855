//! Which kinds of payloads get each other refused, so that they do not travel together.

use std::collections::HashMap;
use std::hash::Hash;

/// How much of what was seen is left after one more row.
const FADING: f64 = 0.99;

/// What is assumed to have been seen already, all of it well: with nothing known, nothing is suspected.
const BENEFIT_OF_DOUBT: f64 = 4.0;

/// How many rows of a call may be refused on average where it is told which.
const BEARABLE_IF_TOLD: f64 = 8.0;

/// Of which share on it takes fewer calls to ask each row by itself than to search among several, whatever one is told: two
/// minus the golden ratio (Ungar, 1960).
const ONE_BY_ONE: f64 = 0.382;

/// More kinds are not remembered.
const MOST: usize = 1024;

/// How often the rows of each kind of payload were refused, the latest counting the most. Splitting a call to find whom it
/// was refused for costs a few calls, which pays as long as few are.
#[derive(Debug)]
pub struct Suspicion<K> {
    seen: HashMap<K, Seen>,
    /// How many of those that go together may be refused, on average.
    bearable: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    rows: f64,
    refused: f64,
}

impl<K: Eq + Hash + Clone> Suspicion<K> {
    /// Nothing is known yet. What answers tells which rows it refuses, or it does not.
    pub fn new(tells: bool) -> Self {
        Self { seen: HashMap::new(), bearable: if tells { BEARABLE_IF_TOLD } else { std::f64::consts::LN_2 } }
    }

    /// How many rows of a kind may go together, as far as this goes: so many that a call is refused about every second
    /// time, or some more where finding the refused costs less; one, when most are refused.
    pub fn most(&self, kind: &K) -> usize {
        let Some(seen) = self.seen.get(kind) else { return usize::MAX };
        let share = seen.refused / (seen.rows + BENEFIT_OF_DOUBT);
        match share {
            ONE_BY_ONE.. => 1,
            0.0 => usize::MAX,
            _ => (self.bearable / share).max(1.0) as usize,
        }
    }

    /// Takes account of rows of a kind, of which some were refused on their own account.
    pub fn saw(&mut self, kind: &K, rows: usize, refused: usize) {
        if refused == 0 && !self.seen.contains_key(kind) {
            return;
        }
        if self.seen.len() >= MOST && !self.seen.contains_key(kind) {
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
    fn what_is_always_refused_goes_alone_and_others_are_not_affected() {
        let mut suspicion = Suspicion::new(false);
        assert_eq!(suspicion.most(&'a'), usize::MAX);
        suspicion.saw(&'a', 2, 2);
        assert_eq!(suspicion.most(&'a'), 2);
        suspicion.saw(&'a', 2, 2);
        assert_eq!(suspicion.most(&'a'), 1);
        assert_eq!(suspicion.most(&'b'), usize::MAX);
        // It is forgiven when it is no longer so.
        (0..600).for_each(|_| suspicion.saw(&'a', 1, 0));
        assert!(suspicion.most(&'a') > 1_000, "{}", suspicion.most(&'a'));
    }

    #[test]
    fn nobody_is_searched_for_where_most_are_refused() {
        let mut suspicion = Suspicion::new(true);
        suspicion.saw(&'a', 1, 1);
        assert_eq!(suspicion.most(&'a'), 40);
        (0..2).for_each(|_| suspicion.saw(&'a', 1, 1));
        assert_eq!(suspicion.most(&'a'), 1);
        // Others of the kind go together again as soon as some of it are answered.
        (0..4).for_each(|_| suspicion.saw(&'a', 1, 0));
        assert!(suspicion.most(&'a') > 20, "{}", suspicion.most(&'a'));
    }

    #[test]
    fn one_in_a_hundred_is_no_reason_to_go_alone() {
        let mut suspicion = Suspicion::new(false);
        (0..100).for_each(|batch| suspicion.saw(&'a', 64, usize::from(batch % 3 != 0)));
        assert!((40..=160).contains(&suspicion.most(&'a')), "{}", suspicion.most(&'a'));
        (0..100).for_each(|_| suspicion.saw(&'a', 10, 2));
        assert!((3..=4).contains(&suspicion.most(&'a')), "{}", suspicion.most(&'a'));
    }

    proptest! {
        #[test]
        fn there_is_always_room_for_one_and_memory_is_bounded(seen in prop::collection::vec((0u16..3000, 1usize..100, 0usize..100), 0..3000)) {
            let mut suspicion = Suspicion::new(false);
            for (kind, rows, refused) in seen {
                suspicion.saw(&kind, rows, refused.min(rows));
                prop_assert!(suspicion.most(&kind) >= 1 && suspicion.seen.len() <= MOST);
            }
        }
    }
}
