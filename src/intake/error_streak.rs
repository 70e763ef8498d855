//! A streak of errors in place of records.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long nothing but errors may come before requests cannot be read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two questions whether it has passed: librdkafka tells of an error once, and not of its end.
const PAUSE: Duration = Duration::from_secs(5);

/// The errors since the last record. Pure: it is told the time.
#[derive(Debug, Default)]
pub(super) struct ErrorStreak(Option<Streak>);

#[derive(Debug)]
struct Streak {
    since: Instant,
    /// When the latest error came, or when it was asked last whether they have passed.
    looked: Instant,
    why: String,
}

impl ErrorStreak {
    /// An error has come. True for the first of a streak.
    pub(super) fn came(&mut self, why: impl Display, now: Instant) -> bool {
        let since = self.0.as_ref().map(|streak| streak.since);
        self.0 = Some(Streak { since: since.unwrap_or(now), looked: now, why: why.to_string() });
        since.is_none()
    }

    /// A record has come, or could come.
    pub(super) fn passed(&mut self) {
        self.0 = None;
    }

    /// Whether it should be asked whether it has passed.
    pub(super) fn is_doubtful(&mut self, now: Instant) -> bool {
        let Some(streak) = self.0.as_mut().filter(|streak| now.duration_since(streak.looked) >= PAUSE) else {
            return false;
        };
        streak.looked = now;
        true
    }

    /// Why requests cannot be read, if that has been so for long enough.
    pub(super) fn reason(&self, now: Instant) -> Option<&str> {
        let streak = self.0.as_ref()?;
        (now.duration_since(streak.since) >= PATIENCE).then_some(&streak.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streak_is_told_once_and_lasts_until_something_can_be_read() {
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
