//! The log gate: keeps log lines rare that could come with every request.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time between two lines that pass.
const INTERVAL: Duration = Duration::from_secs(60);

/// Lets one log line through a minute, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct LogGate {
    /// Time from which the next line may pass, in milliseconds of [`LogGate::now`].
    next: AtomicU64,
    unlogged: AtomicU64,
}

impl LogGate {
    /// Returns the time since some moment in this process's life.
    pub(crate) fn now() -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }

    /// Returns the number of lines that were kept back since the last one, if a line may pass now.
    pub(crate) fn admit(&self, now: Duration) -> Option<u64> {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (next, now_ms) = (self.next.load(Ordering::Relaxed), milliseconds(now));
        let after = now_ms.saturating_add(milliseconds(INTERVAL));
        let passes =
            now_ms >= next && self.next.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if passes {
            Some(self.unlogged.swap(0, Ordering::Relaxed))
        } else {
            self.unlogged.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_gate_passes_one_line_a_minute() {
        let gate = LogGate::default();
        let seconds = Duration::from_secs;
        assert_eq!(gate.admit(seconds(5)), Some(0));
        assert_eq!(gate.admit(seconds(6)), None);
        assert_eq!(gate.admit(seconds(64)), None);
        assert_eq!(gate.admit(seconds(65)), Some(2));
        assert_eq!(gate.admit(seconds(66)), None);
    }
}
