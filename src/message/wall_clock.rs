//! Wall clock: Unix time, for what is read outside of this process. Everything else measures with `Instant`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns the time of day, which may jump.
#[expect(clippy::disallowed_methods, reason = "this is the one place that asks for it")]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Returns the time since 1970; zero while the clock says that it is earlier.
pub fn since_1970() -> Duration {
    wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Returns the Unix time in milliseconds.
pub fn unix_milliseconds() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}
