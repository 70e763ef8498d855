//! When nobody wants a request's answer any more.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::message::{Code, Fault, Request, Stage, header};

/// What the request's `deadline` header says, if it has one.
///
/// # Errors
/// When it cannot be read (`BAD_REQUEST`), and when it has passed (`DEADLINE_EXCEEDED`).
pub(super) fn deadline_of(request: &Request) -> Result<Option<Instant>, Fault> {
    let Some(value) = request.headers.get(header::DEADLINE) else { return Ok(None) };
    let deadline =
        std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<u64>().ok()).ok_or_else(|| {
            Fault::permanent(
                Code::BadRequest,
                Stage::Route,
                "header 'deadline' must be a Unix time in milliseconds, as decimal text",
            )
        })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match Duration::from_millis(deadline).checked_sub(now) {
        Some(left) if !left.is_zero() => Ok(Some(Instant::now() + left)),
        _ => Err(Fault::permanent(
            Code::DeadlineExceeded,
            Stage::Route,
            "the request's deadline had passed when its turn came; no model was called",
        )),
    }
}
