//! Whether another instance has the same name, and which of the two has to go.
//!
//! Each takes the other's sessions as often as it loses its own, so both find out at the same time, and would both end.
//! So whoever suspects a twin first gives way for a time of its own, and then makes all of its sessions anew. Whoever is
//! fenced after that has met a twin that came back later, and ends; the one that came last stays.

use std::time::{Duration, Instant};

use super::session::SESSIONS;

/// Sessions that are fenced this often in [`MEMORY`] may have a twin. A process that stood still loses each of its own
/// once.
const SUSPICIOUS: usize = 2 * SESSIONS;
const MEMORY: Duration = Duration::from_secs(60);
/// The longest time to give way. Two that come back within the time that it takes to make a session both end; this is
/// much longer.
const GIVES_WAY: Duration = Duration::from_secs(10);

/// What to do about twins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    GoOn,
    /// Leave everything to a twin for so long, then make all sessions anew.
    GiveWay(Duration),
    End,
}

/// When sessions were fenced.
#[derive(Debug, Default)]
pub(super) struct Twins {
    fenced: Vec<Instant>,
    gave_way: Option<Instant>,
}

impl Twins {
    /// A session turned out to be fenced.
    pub(super) fn fenced(&mut self, now: Instant) {
        self.forget(now);
        self.fenced.push(now);
    }

    /// All sessions have been made anew after giving way.
    pub(super) fn came_back(&mut self, now: Instant) {
        self.fenced.clear();
        self.gave_way = Some(now);
    }

    /// `chance` is from 0 to 1, and different for twins.
    pub(super) fn verdict(&mut self, now: Instant, chance: f64) -> Verdict {
        self.forget(now);
        match (self.gave_way, self.fenced.len()) {
            (Some(_), 1..) => Verdict::End,
            (None, SUSPICIOUS..) => Verdict::GiveWay(GIVES_WAY.mul_f64(chance)),
            _ => Verdict::GoOn,
        }
    }

    fn forget(&mut self, now: Instant) {
        let is_recent = |then: &Instant| now.duration_since(*then) < MEMORY;
        self.fenced.retain(is_recent);
        self.gave_way = self.gave_way.filter(is_recent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANCE: f64 = 0.5;

    fn after(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    fn fenced(times: usize, at: Instant) -> Twins {
        let mut twins = Twins::default();
        (0..times).for_each(|_| twins.fenced(at));
        twins
    }

    #[test]
    fn a_process_that_stood_still_goes_on() {
        let now = Instant::now();
        assert_eq!(fenced(SESSIONS, now).verdict(now, CHANCE), Verdict::GoOn);
    }

    #[test]
    fn who_is_fenced_again_and_again_gives_way_for_a_time_of_its_own() {
        let now = Instant::now();
        let mut twins = fenced(SUSPICIOUS, now);
        assert_eq!(twins.verdict(now, 0.5), Verdict::GiveWay(GIVES_WAY / 2));
        assert_eq!(twins.verdict(now, 0.1), Verdict::GiveWay(GIVES_WAY / 10));
    }

    #[test]
    fn what_was_long_ago_is_no_reason() {
        let now = Instant::now();
        let mut twins = fenced(SUSPICIOUS - 1, now);
        twins.fenced(after(now, 61));
        assert_eq!(twins.verdict(after(now, 61), CHANCE), Verdict::GoOn);
    }

    #[test]
    fn who_is_fenced_after_it_gave_way_ends_and_who_is_not_forgets_it() {
        let now = Instant::now();
        let mut twins = fenced(SUSPICIOUS, now);
        twins.came_back(after(now, 5));
        assert_eq!(twins.verdict(after(now, 5), CHANCE), Verdict::GoOn);
        twins.fenced(after(now, 30));
        assert_eq!(twins.verdict(after(now, 30), CHANCE), Verdict::End);
        assert_eq!(twins.verdict(after(now, 66), CHANCE), Verdict::GoOn);
    }
}
