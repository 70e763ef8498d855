//! Streak of errors in place of records.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Time for which nothing but errors may come before requests count as unreadable.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause between two questions whether the streak has passed: librdkafka reports an error once, and not its end.
const PAUSE: Duration = Duration::from_secs(5);

/// Errors since the last record. Pure: the time is an argument.
#[derive(Debug, Default)]
pub(super) struct ErrorStreak(Option<Streak>);

#[derive(Debug)]
struct Streak {
    since: Instant,
    /// Time of the latest error, or of the last question whether the streak has passed.
    looked: Instant,
    why: String,
}

impl ErrorStreak {
    /// Notes an error. True for the first of a streak.
    pub(super) fn came(&mut self, why: impl Display, now: Instant) -> bool {
        let since = self.0.as_ref().map(|streak| streak.since);
        self.0 = Some(Streak { since: since.unwrap_or(now), looked: now, why: why.to_string() });
        since.is_none()
    }

    /// Ends the streak: a record has come, or could come.
    pub(super) fn passed(&mut self) {
        self.0 = None;
    }

    /// Returns whether the caller should find out whether the streak has passed.
    pub(super) fn is_doubtful(&mut self, now: Instant) -> bool {
        let Some(streak) = self.0.as_mut().filter(|streak| now.duration_since(streak.looked) >= PAUSE) else {
            return false;
        };
        streak.looked = now;
        true
    }

    /// Returns why requests cannot be read, if that has been so for long enough.
    pub(super) fn reason(&self, now: Instant) -> Option<&str> {
        let streak = self.0.as_ref()?;
        (now.duration_since(streak.since) >= PATIENCE).then_some(&streak.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streak_is_reported_once_and_lasts_until_record_comes() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut errors = ErrorStreak::default();
        assert!(errors.came("no such topic", start));
        assert!(!errors.came("not allowed", start + 2 * second));
        assert_eq!(
            (errors.reason(start + 9 * second), errors.reason(start + 10 * second)),
            (None, Some("not allowed"))
        );
        assert!(!errors.is_doubtful(start + 6 * second) && errors.is_doubtful(start + 7 * second));
        assert!(!errors.is_doubtful(start + 11 * second), "it was asked just now");
        errors.passed();
        assert_eq!(errors.reason(start + 20 * second), None);
        assert!(!errors.is_doubtful(start + 20 * second));
        assert!(errors.came("no such topic", start + 21 * second));
    }
}
