//! How long a failure to load is remembered.

use std::time::Duration;

/// After the first failure. It doubles with each one after that.
const FIRST: Duration = Duration::from_secs(2);

/// Consecutive failures to load one model.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
}

/// What failed, which is how dear it is to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Asking the registry. Cheap, and often put right by moving a stage, so it is tried again soon.
    Resolve,
    /// Fetching the artifacts and loading them: seconds of a processor.
    Start,
    /// Room in memory, which the next moment may bring.
    Room,
    /// Staying alive: it had been loaded, and its processes ended.
    Crash,
}

impl Backoff {
    /// Counts a failure, and tells for how long it is remembered.
    pub(super) fn after(&mut self, step: Step) -> Duration {
        let longest = match step {
            Step::Resolve | Step::Crash => Duration::from_secs(5),
            Step::Room => FIRST,
            Step::Start => Duration::from_secs(60),
        };
        let factor = 1 << self.failures.min(10);
        self.failures = self.failures.saturating_add(1);
        (FIRST * factor).min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_a_limit() {
        let seconds = |step| {
            let mut backoff = Backoff::default();
            [(); 8].map(|()| backoff.after(step).as_secs())
        };
        assert_eq!(seconds(Step::Resolve), [2, 4, 5, 5, 5, 5, 5, 5]);
        assert_eq!(seconds(Step::Start), [2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn never_overflows() {
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.after(Step::Start).as_secs(), 60);
    }
}
