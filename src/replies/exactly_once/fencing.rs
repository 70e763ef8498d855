//! Whether another instance has the same name, and which of the two has to go.
//!
//! Each takes the other's sessions as often as it loses its own, so both find out at the same time, and would both end.
//! So whoever suspects a twin first gives way for a time of its own, and then makes all of its sessions anew. Whoever is
//! fenced after that has met a twin that came back later, and ends; the one that came last stays.

use std::time::{Duration, Instant};

use super::session::SESSIONS;

/// Sessions that are fenced this often in [`MEMORY`] may have a twin. A process that stood still loses each of its own
/// once.
const SUSPICIOUS_FENCINGS: usize = 2 * SESSIONS;
const MEMORY: Duration = Duration::from_secs(60);
/// The longest time to give way. Two that come back within the time that it takes to make a session both end; this is
/// much longer.
const LONGEST_YIELD: Duration = Duration::from_secs(10);

/// What to do about twins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FencingAction {
    Continue,
    /// Leave everything to a twin for so long, then make all sessions anew.
    Yield(Duration),
    Stop,
}

/// When sessions were fenced.
#[derive(Debug, Default)]
pub(super) struct FencingDetector {
    fenced: Vec<Instant>,
    yielded: Option<Instant>,
}

impl FencingDetector {
    /// A session turned out to be fenced.
    pub(super) fn fenced(&mut self, now: Instant) {
        self.forget(now);
        self.fenced.push(now);
    }

    /// All sessions have been made anew after giving way.
    pub(super) fn resumed(&mut self, now: Instant) {
        self.fenced.clear();
        self.yielded = Some(now);
    }

    /// `fraction` is from 0 to 1, and different for twins.
    pub(super) fn action(&mut self, now: Instant, fraction: f64) -> FencingAction {
        self.forget(now);
        match (self.yielded, self.fenced.len()) {
            (Some(_), 1..) => FencingAction::Stop,
            (None, SUSPICIOUS_FENCINGS..) => FencingAction::Yield(LONGEST_YIELD.mul_f64(fraction)),
            _ => FencingAction::Continue,
        }
    }

    fn forget(&mut self, now: Instant) {
        let is_recent = |then: &Instant| now.duration_since(*then) < MEMORY;
        self.fenced.retain(is_recent);
        self.yielded = self.yielded.filter(is_recent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRACTION: f64 = 0.5;

    fn after(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    fn fenced(times: usize, at: Instant) -> FencingDetector {
        let mut detector = FencingDetector::default();
        (0..times).for_each(|_| detector.fenced(at));
        detector
    }

    #[test]
    fn a_process_that_stood_still_goes_on() {
        let now = Instant::now();
        assert_eq!(fenced(SESSIONS, now).action(now, FRACTION), FencingAction::Continue);
    }

    #[test]
    fn who_is_fenced_again_and_again_gives_way_for_a_time_of_its_own() {
        let now = Instant::now();
        let mut detector = fenced(SUSPICIOUS_FENCINGS, now);
        assert_eq!(detector.action(now, 0.5), FencingAction::Yield(LONGEST_YIELD / 2));
        assert_eq!(detector.action(now, 0.1), FencingAction::Yield(LONGEST_YIELD / 10));
    }

    #[test]
    fn what_was_long_ago_is_no_reason() {
        let now = Instant::now();
        let mut detector = fenced(SUSPICIOUS_FENCINGS - 1, now);
        detector.fenced(after(now, 61));
        assert_eq!(detector.action(after(now, 61), FRACTION), FencingAction::Continue);
    }

    #[test]
    fn who_is_fenced_after_it_gave_way_ends_and_who_is_not_forgets_it() {
        let now = Instant::now();
        let mut detector = fenced(SUSPICIOUS_FENCINGS, now);
        detector.resumed(after(now, 5));
        assert_eq!(detector.action(after(now, 5), FRACTION), FencingAction::Continue);
        detector.fenced(after(now, 30));
        assert_eq!(detector.action(after(now, 30), FRACTION), FencingAction::Stop);
        assert_eq!(detector.action(after(now, 66), FRACTION), FencingAction::Continue);
    }
}
