//! The process-wide monotonic clock of routes: a time is a duration since the clock was first read.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Reads the clock.
pub(in crate::pipeline) fn now() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// Converts a duration to nanoseconds, so that it fits an atomic; longer ones become the largest number.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
