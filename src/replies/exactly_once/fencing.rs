//! Fencing by another instance of the same name, and the choice which of the two ends.
//!
//! Each takes the other's sessions as often as it loses its own, so both find out at the same time, and would both end.
//! So the instance that suspects a namesake first yields for a random time, and then opens all of its sessions anew. An
//! instance that is fenced after that has met a namesake that came back later, and ends; the one that came last stays.

use std::time::{Duration, Instant};

use super::session::SESSIONS;

/// Fencings within [`MEMORY`] that point to a namesake. A process that stood still loses each of its own sessions once.
const SUSPICIOUS_FENCINGS: usize = 2 * SESSIONS;
/// Time for which a fencing is remembered.
const MEMORY: Duration = Duration::from_secs(60);
/// Longest time to yield. Two instances that come back within the time that opening a session takes both end; this is
/// much longer.
const LONGEST_YIELD: Duration = Duration::from_secs(10);

/// Reaction to fencing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FencingAction {
    Continue,
    /// Leave the name to another instance for this time, then open all sessions anew.
    Yield(Duration),
    Stop,
}

/// Remembers when sessions were fenced.
#[derive(Debug, Default)]
pub(super) struct FencingDetector {
    fenced: Vec<Instant>,
    yielded: Option<Instant>,
}

impl FencingDetector {
    /// Notes that a session turned out to be fenced.
    pub(super) fn fenced(&mut self, now: Instant) {
        self.forget(now);
        self.fenced.push(now);
    }

    /// Notes that all sessions have been opened anew after yielding.
    pub(super) fn resumed(&mut self, now: Instant) {
        self.fenced.clear();
        self.yielded = Some(now);
    }

    /// Decides what to do. `fraction` is from 0 to 1, and different for two namesakes.
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
    fn fencing_continues_after_process_stood_still() {
        let now = Instant::now();
        assert_eq!(fenced(SESSIONS, now).action(now, FRACTION), FencingAction::Continue);
    }

    #[test]
    fn fencing_yields_for_random_time_when_fenced_again_and_again() {
        let now = Instant::now();
        let mut detector = fenced(SUSPICIOUS_FENCINGS, now);
        assert_eq!(detector.action(now, 0.5), FencingAction::Yield(LONGEST_YIELD / 2));
        assert_eq!(detector.action(now, 0.1), FencingAction::Yield(LONGEST_YIELD / 10));
    }

    #[test]
    fn fencing_forgets_what_was_long_ago() {
        let now = Instant::now();
        let mut detector = fenced(SUSPICIOUS_FENCINGS - 1, now);
        detector.fenced(after(now, 61));
        assert_eq!(detector.action(after(now, 61), FRACTION), FencingAction::Continue);
    }

    #[test]
    fn fencing_stops_when_fenced_after_yield() {
        let now = Instant::now();
        let mut detector = fenced(SUSPICIOUS_FENCINGS, now);
        detector.resumed(after(now, 5));
        assert_eq!(detector.action(after(now, 5), FRACTION), FencingAction::Continue);
        detector.fenced(after(now, 30));
        assert_eq!(detector.action(after(now, 30), FRACTION), FencingAction::Stop);
        assert_eq!(detector.action(after(now, 66), FRACTION), FencingAction::Continue);
    }
}
