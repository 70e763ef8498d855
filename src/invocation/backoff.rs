//! Backoff: pauses that double from one failure to the next. A pure policy without a clock.

use std::time::Duration;

/// Pauses between the tries of something that fails: each failure in a row doubles the pause, up to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Pause after the first failure.
    pub first: Duration,
    /// Longest pause, however many failures there were.
    pub longest: Duration,
}

impl Backoff {
    /// Computes the pause after so many failures in a row.
    pub fn pause(self, failures: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_doubles_up_to_the_longest() {
        let backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(60) };
        assert_eq!([1, 2, 3, 4, 5, 6, 7].map(|failures| backoff.pause(failures).as_secs()), [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.pause(u32::MAX), backoff.longest);
    }
}
