//! Retries: backoff with full jitter, and a budget for all retries of a route. Pure policies without a clock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Backoff;
use crate::config::Retries;

/// Tokens that one retry costs; each request earns one token. So retries stay at a fifth of the requests, and below
/// that of all calls.
const PRICE: u32 = 5;

/// Tokens that can be saved at most: enough for a hundred retries at once after a time without any.
const MAX_SAVED: u32 = 100 * PRICE;

/// Limits a route's retries (a token bucket). The bucket begins empty: a route that fails from the start gets no more
/// calls than one that works.
#[derive(Debug, Default)]
pub struct RetryBudget {
    saved: AtomicU32,
}

impl RetryBudget {
    /// Earns a token for a request, which gets its first call.
    pub fn earn(&self) {
        let more = |saved: u32| (saved < MAX_SAVED).then_some(saved + 1);
        // The update fails when the bucket is full.
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Spends the tokens of one retry; false when there are too few.
    #[must_use]
    pub fn spend(&self) -> bool {
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(PRICE)).is_ok()
    }
}

/// Computes the pause after so many calls, or `None` when there is to be no other call. `draw`, from 0 to 1, is random
/// (full jitter), so that requests that failed together do not come again together.
///
/// A model that failed may have said when to come back (`retry_after`): the pause begins then, and there is none when
/// that is further away than the longest pause.
pub fn pause(policy: &Retries, calls: u32, retry_after: Option<Duration>, draw: f64) -> Option<Duration> {
    if calls >= policy.max_attempts || retry_after.is_some_and(|after| after > policy.max_backoff) {
        return None;
    }
    let longest = Backoff { first: policy.backoff, longest: policy.max_backoff }.pause(calls);
    Some(retry_after.unwrap_or_default() + longest.mul_f64(draw.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> Retries {
        Retries { max_attempts: 5, backoff: Duration::from_millis(50), max_backoff: Duration::from_millis(300) }
    }

    #[test]
    fn pauses_double_up_to_longest_and_end_with_attempts() {
        let longest = |calls| pause(&policy(), calls, None, 1.0).map(|pause| pause.as_millis());
        assert_eq!([1, 2, 3, 4, 5].map(longest), [Some(50), Some(100), Some(200), Some(300), None]);
        assert_eq!(pause(&policy(), 1, None, 0.0), Some(Duration::ZERO));
    }

    #[test]
    fn pause_begins_after_retry_after() {
        let after = |milliseconds| pause(&policy(), 1, Some(Duration::from_millis(milliseconds)), 0.5);
        assert_eq!(after(200), Some(Duration::from_millis(225)));
        assert_eq!(after(301), None);
    }

    #[test]
    fn budget_affords_no_retry_before_it_is_earned() {
        let budget = RetryBudget::default();
        (0..4).for_each(|_| budget.earn());
        assert!(!budget.spend());
        budget.earn();
        assert!(budget.spend() && !budget.spend());
    }

    proptest! {
        #[test]
        fn retries_are_never_more_than_a_fifth(requests in proptest::collection::vec(0_u32..8, 0..2_000)) {
            let budget = RetryBudget::default();
            let mut retries = 0;
            for (earlier, wanted) in requests.into_iter().enumerate() {
                budget.earn();
                retries += (0..wanted).filter(|_| budget.spend()).count();
                prop_assert!(retries * 5 <= earlier + 1);
            }
        }

        #[test]
        fn burst_is_bounded_after_long_calm(calm in 0_usize..5_000) {
            let budget = RetryBudget::default();
            (0..calm).for_each(|_| budget.earn());
            let burst = (0..1_000).filter(|_| budget.spend()).count();
            prop_assert_eq!(burst, (calm / 5).min(100));
        }

        #[test]
        fn pause_is_never_longer_than_longest(
            calls in 1_u32..100, attempts in 1_u32..100, draw in 0.0..1.0_f64, after in proptest::option::of(0_u64..1_000),
        ) {
            let policy = Retries { max_attempts: attempts, ..policy() };
            let after = after.map(Duration::from_millis);
            if let Some(pause) = pause(&policy, calls, after, draw) {
                let after = after.unwrap_or_default();
                prop_assert!(pause >= after && pause - after <= policy.max_backoff && calls < attempts);
            }
        }
    }
}
