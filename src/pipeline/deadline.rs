//! Deadlines: how long a request, a route and a single call may take.

use std::time::Duration;

use tokio::time::Instant;

use crate::message::{Code, Fault, Request, Stage, header, since_1970};

/// Limits the time for the answer of one route.
#[derive(Clone, Copy)]
pub(super) struct TimeLimits {
    /// Timeout of one call of the model.
    pub(super) call: Duration,
    /// Time that a call is given at least before its model is blamed for a request that ran out of time.
    pub(super) fair_call: Duration,
    /// Deadline of the request; none when the request waits for ever.
    pub(super) request: Option<Instant>,
    /// Deadline of the request at this route.
    pub(super) route: Option<Instant>,
}

impl TimeLimits {
    /// Starts the clock of a route with this timeout.
    pub(super) fn new(call: Duration, route: Option<Duration>, request: Option<Instant>) -> Self {
        let fair_call = route.map_or(call, |route| route.min(call)) / 2;
        let route = route.map(|route| Instant::now() + route);
        Self { call, fair_call, request, route: route.into_iter().chain(request).min() }
    }

    /// Returns the time that is left for this route.
    pub(super) fn left(self) -> Option<Duration> {
        self.route.map(|route| route.saturating_duration_since(Instant::now()))
    }
}

/// Tells whether a deadline has passed.
pub(super) fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

/// Reads the request's `deadline` header, if it has one.
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
    let now = since_1970();
    match Duration::from_millis(deadline).checked_sub(now) {
        Some(left) if !left.is_zero() => Ok(Some(Instant::now() + left)),
        _ => Err(Fault::permanent(
            Code::DeadlineExceeded,
            Stage::Route,
            "the request's deadline had passed when its turn came; no model was called",
        )),
    }
}
