//! Backoff between loads: for how long a failure is remembered.

use std::time::Duration;

/// Delay after the first failure, in which callers get its fault at once. It doubles with each further failure.
const FIRST_DELAY: Duration = Duration::from_secs(2);

/// Counts consecutive failures to load one model, and to keep it alive.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
    /// The crashes in a row; a load does not reset them, for it is no sign that the model will stay alive.
    crashes: u32,
}

/// Step of a load that failed, which decides how expensive it is to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadStep {
    /// Asking the registry. This is cheap, and often put right by moving a stage, so it is tried again soon.
    Resolve,
    /// Fetching the artifacts and loading them: seconds of a processor.
    Start,
    /// Finding room in memory, which the next moment may bring.
    Room,
    /// Staying alive: the model had been loaded, and its processes ended.
    Crash,
}

impl Backoff {
    /// Counts a failure, and returns the time for which it is remembered.
    pub(super) fn record_failure(&mut self, step: LoadStep) -> Duration {
        let (count, longest) = match step {
            LoadStep::Resolve => (&mut self.failures, 5),
            LoadStep::Room => return FIRST_DELAY,
            LoadStep::Start => (&mut self.failures, 60),
            LoadStep::Crash => (&mut self.crashes, 60),
        };
        let factor = 1 << (*count).min(10);
        *count = count.saturating_add(1);
        (FIRST_DELAY * factor).min(Duration::from_secs(longest))
    }

    /// Records a load.
    pub(super) fn record_load(&mut self) {
        self.failures = 0;
    }

    /// Records an answer.
    pub(super) fn record_alive(&mut self) {
        self.crashes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_a_limit() {
        let seconds = |step| {
            let mut backoff = Backoff::default();
            [(); 8].map(|()| backoff.record_failure(step).as_secs())
        };
        assert_eq!(seconds(LoadStep::Resolve), [2, 4, 5, 5, 5, 5, 5, 5]);
        assert_eq!(seconds(LoadStep::Start), [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(seconds(LoadStep::Room), [2; 8]);
    }

    #[test]
    fn crash_count_resets_on_answer_not_on_load() {
        let mut backoff = Backoff::default();
        assert_eq!([LoadStep::Crash, LoadStep::Start].map(|step| backoff.record_failure(step).as_secs()), [2, 2]);
        backoff.record_load();
        assert_eq!([LoadStep::Crash, LoadStep::Start].map(|step| backoff.record_failure(step).as_secs()), [4, 2]);
        backoff.record_alive();
        assert_eq!(backoff.record_failure(LoadStep::Crash).as_secs(), 2);
    }

    #[test]
    fn backoff_is_capped_after_many_failures() {
        let mut backoff = Backoff { failures: u32::MAX, crashes: u32::MAX };
        assert_eq!(backoff.record_failure(LoadStep::Start).as_secs(), 60);
    }
}
