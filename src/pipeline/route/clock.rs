//! The process-wide monotonic clock of routes: a time is a duration since the clock was first read.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Reads the clock.
pub(in crate::pipeline) fn now() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}
