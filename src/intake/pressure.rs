//! Back-pressure: when to stop reading, and when to pause partitions for it.
//!
//! Pausing makes librdkafka throw its fetched records away, so a budget that is full for a moment only stops polling
//! for records; partitions are paused once it has been full for a while, and then polling goes on so that the group
//! membership is kept.

use std::time::{Duration, Instant};

/// Time for which the budget may be full before partitions are paused.
const PATIENCE: Duration = Duration::from_secs(1);

/// Next step of the polling thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadStep {
    /// Poll for records.
    Read,
    /// Wait for a request to end; do not poll.
    Wait,
    /// Pause every partition, then poll.
    Pause,
    /// Poll paused partitions, only to stay a member of the group.
    Idle,
    /// Resume every partition, then poll.
    Resume,
}

/// Decides the next step. Pure: the time is an argument.
#[derive(Debug, Default)]
pub(super) struct BackPressure {
    full_since: Option<Instant>,
    paused: bool,
}

impl BackPressure {
    pub(super) fn step(&mut self, full: bool, relieved: bool, now: Instant) -> ReadStep {
        if self.paused {
            if !relieved {
                return ReadStep::Idle;
            }
            self.paused = false;
            self.full_since = None;
            return ReadStep::Resume;
        }
        if !full {
            self.full_since = None;
            return ReadStep::Read;
        }
        let since = *self.full_since.get_or_insert(now);
        if now.duration_since(since) < PATIENCE {
            return ReadStep::Wait;
        }
        self.paused = true;
        ReadStep::Pause
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_pressure_pauses_when_sustained_and_resumes_when_relieved() {
        let start = Instant::now();
        let mut pressure = BackPressure::default();
        assert_eq!(pressure.step(false, true, start), ReadStep::Read);
        assert_eq!(pressure.step(true, false, start), ReadStep::Wait);
        assert_eq!(pressure.step(false, false, start + PATIENCE), ReadStep::Read);
        assert_eq!(pressure.step(true, false, start + PATIENCE), ReadStep::Wait);
        assert_eq!(pressure.step(true, false, start + 2 * PATIENCE), ReadStep::Pause);
        assert!(pressure.is_paused());
        assert_eq!(pressure.step(false, false, start + 2 * PATIENCE), ReadStep::Idle);
        assert_eq!(pressure.step(false, true, start + 3 * PATIENCE), ReadStep::Resume);
        assert_eq!(pressure.step(false, true, start + 3 * PATIENCE), ReadStep::Read);
    }
}
