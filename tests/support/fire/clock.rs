//! Tells the time at which a request was sent, as the request says itself, on the machine's clock, which all tests
//! share.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns microseconds since 1970.
pub(super) fn micros() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// Computes the time since then, from the bytes of [`micros`].
pub(super) fn since(bytes: &[u8]) -> Option<Duration> {
    let then = u64::from_be_bytes(bytes.try_into().ok()?);
    Some(Duration::from_micros(micros().saturating_sub(then)))
}
