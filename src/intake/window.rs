//! One partition's offsets: which are under way, which are finished, and how far a commit may go.

use std::collections::VecDeque;
use std::time::Instant;

/// The offsets of one partition from the first unfinished one on.
///
/// Requests finish in any order; a commit may only move to the first offset that is not finished. Offsets that never
/// arrive (transaction markers, compaction) count as finished.
#[derive(Debug, Default)]
pub struct Window {
    /// The offset of the first slot.
    base: i64,
    slots: VecDeque<Slot>,
    in_flight: usize,
    /// Whether any offset was begun; before that there is nothing to commit.
    begun: bool,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Finished,
    InFlight { since: Instant },
}

impl Window {
    /// A request was read. Offsets come in rising order; one that was seen already is ignored and `false` is returned.
    pub fn begin(&mut self, offset: i64, now: Instant) -> bool {
        if !self.begun {
            self.begun = true;
            self.base = offset;
        }
        let next = self.next();
        if offset < next {
            return false;
        }
        for _ in next..offset {
            self.slots.push_back(Slot::Finished);
        }
        self.slots.push_back(Slot::InFlight { since: now });
        self.in_flight += 1;
        self.slide();
        true
    }

    /// A request is finished. One that is not under way here is ignored and `false` is returned.
    pub fn finish(&mut self, offset: i64) -> bool {
        let slot = usize::try_from(offset - self.base).ok().and_then(|index| self.slots.get_mut(index));
        match slot {
            Some(slot @ Slot::InFlight { .. }) => *slot = Slot::Finished,
            Some(Slot::Finished) | None => return false,
        }
        self.in_flight -= 1;
        self.slide();
        true
    }

    /// The offset to commit: that of the first request that is not finished. `None` before anything was read.
    pub fn committable(&self) -> Option<i64> {
        self.begun.then_some(self.base)
    }

    /// How many offsets lie between the first unfinished one and the last that was read.
    pub fn width(&self) -> usize {
        self.slots.len()
    }

    /// How many requests are under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Since when the first unfinished request has been under way.
    pub fn oldest(&self) -> Option<Instant> {
        match self.slots.front() {
            Some(Slot::InFlight { since }) => Some(*since),
            Some(Slot::Finished) | None => None,
        }
    }

    fn next(&self) -> i64 {
        self.base + i64::try_from(self.slots.len()).unwrap_or(i64::MAX)
    }

    fn slide(&mut self) {
        while let Some(Slot::Finished) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commits_only_the_contiguous_finished_prefix() {
        let now = Instant::now();
        let mut window = Window::default();
        assert_eq!(window.committable(), None);
        for offset in 10..14 {
            assert!(window.begin(offset, now));
        }
        assert!(window.finish(11));
        assert!(window.finish(13));
        assert_eq!(window.committable(), Some(10));
        assert!(window.finish(10));
        assert_eq!(window.committable(), Some(12));
        assert!(window.finish(12));
        assert_eq!((window.committable(), window.width(), window.in_flight()), (Some(14), 0, 0));
    }

    #[test]
    fn offsets_that_never_arrive_count_as_finished() {
        let now = Instant::now();
        let mut window = Window::default();
        window.begin(5, now);
        window.begin(9, now);
        window.finish(5);
        assert_eq!(window.committable(), Some(9));
        window.finish(9);
        window.begin(20, now);
        assert_eq!(window.committable(), Some(20));
    }

    #[test]
    fn what_is_not_under_way_is_ignored() {
        let now = Instant::now();
        let mut window = Window::default();
        assert!(!window.finish(0));
        window.begin(3, now);
        assert!(!window.begin(3, now));
        assert!(!window.begin(2, now));
        assert!(window.finish(3));
        assert!(!window.finish(3));
        assert!(!window.finish(100));
    }

    proptest! {
        /// Against the plain definition: the first offset read and not finished, else the one after the last read.
        #[test]
        fn never_moves_past_an_unfinished_request(
            start in 0i64..1000,
            gaps in prop::collection::vec(1i64..4, 1..200),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..400),
        ) {
            let now = Instant::now();
            let mut window = Window::default();
            let mut read = Vec::new();
            let mut unfinished = BTreeSet::new();
            let mut next = start;
            let mut order = order.into_iter();
            for gap in gaps {
                window.begin(next, now);
                read.push(next);
                unfinished.insert(next);
                next += gap;
                for index in order.by_ref().take(2) {
                    let offset = *index.get(&read);
                    prop_assert_eq!(window.finish(offset), unfinished.remove(&offset));
                }
                let last = read.last().copied().unwrap_or(start);
                let expected = unfinished.first().copied().unwrap_or(last + 1);
                prop_assert_eq!(window.committable(), Some(expected));
                prop_assert_eq!(window.in_flight(), unfinished.len());
            }
        }
    }
}
