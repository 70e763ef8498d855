//! The cache of answers that are still good. Pure: times are given in, as durations since some moment.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::routing::table::RouteIndex;

/// Most answers that are kept. Each costs the bytes of its summary, which is bounded as well.
const MAX_ENTRIES: usize = 1024;

/// A cache that keeps each answer for the same time, so the oldest is the first to go, whether for its age or for room.
#[derive(Debug)]
pub(super) struct Cache {
    keep: Duration,
    entries: HashMap<Bytes, (Option<RouteIndex>, Duration)>,
    /// Answers in the order of their coming; one that was put again is there twice.
    order: VecDeque<(Duration, Bytes)>,
}

impl Cache {
    /// Makes a cache that keeps answers for this time.
    pub(super) fn new(keep: Duration) -> Self {
        Self { keep, entries: HashMap::new(), order: VecDeque::new() }
    }

    /// Returns the answer to a summary, if it is still good.
    pub(super) fn get(&self, question: &Bytes, now: Duration) -> Option<Option<RouteIndex>> {
        let (opinion, put) = self.entries.get(question)?;
        (now < *put + self.keep).then_some(*opinion)
    }

    /// Keeps an answer, and drops those that are too old or too many.
    pub(super) fn put(&mut self, question: Bytes, opinion: Option<RouteIndex>, now: Duration) {
        while let Some((put, _)) = self.order.front()
            && (self.order.len() >= MAX_ENTRIES || now >= *put + self.keep)
        {
            self.forget_oldest();
        }
        self.order.push_back((now, question.clone()));
        self.entries.insert(question, (opinion, now));
    }

    fn forget_oldest(&mut self) {
        let Some((put, question)) = self.order.pop_front() else { return };
        if self.entries.get(&question).is_some_and(|(_, latest)| *latest == put) {
            self.entries.remove(&question);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question(number: usize) -> Bytes {
        Bytes::from(number.to_string())
    }

    #[test]
    fn cache_keeps_answer_until_it_expires() {
        let mut cache = Cache::new(Duration::from_secs(30));
        cache.put(question(1), Some(2), Duration::from_secs(10));
        cache.put(question(2), None, Duration::from_secs(10));
        assert_eq!(cache.get(&question(1), Duration::from_secs(39)), Some(Some(2)));
        assert_eq!(cache.get(&question(2), Duration::from_secs(39)), Some(None));
        assert_eq!(cache.get(&question(1), Duration::from_secs(40)), None);
        assert_eq!(cache.get(&question(3), Duration::from_secs(10)), None);
    }

    proptest! {
        #[test]
        fn cache_stays_bounded_and_fresh_when_filled(
            puts in prop::collection::vec((0..2_000_usize, 0..5_u64), 0..3_000)
        ) {
            let keep = Duration::from_millis(700);
            let (mut cache, mut now) = (Cache::new(keep), Duration::ZERO);
            let mut latest = HashMap::new();
            for (number, step) in puts {
                now += Duration::from_millis(step);
                cache.put(question(number), Some(number), now);
                latest.insert(number, now);
                prop_assert!(cache.entries.len() <= MAX_ENTRIES && cache.order.len() <= MAX_ENTRIES);
                prop_assert_eq!(cache.get(&question(number), now), Some(Some(number)));
            }
            for (number, put) in latest {
                if let Some(opinion) = cache.get(&question(number), now) {
                    prop_assert_eq!(opinion, Some(number));
                    prop_assert!(now < put + keep);
                }
            }
        }
    }
}
