//! The deadline of a request: how much time is left, whether that is enough for the next step, and the fault that says
//! that it is not.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Code, Fault, Request, Stage, header, since_1970};

/// Ends the time for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

/// Names the step for which a request has not enough time.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// The request is begun.
    Beginning,
    /// The evaluation of conditions by Python.
    Deciding,
    /// The calls before the request, which take so long at least.
    Queueing(Duration),
    /// A call at a place that came free; so long took the quickest of the latest calls.
    Turn(Duration),
    /// The wait for a place at this model.
    Place(&'a str),
    /// The registry's answer about this model.
    Resolving(&'a str),
    /// The load of this version.
    Loading(&'a str),
    /// The answer of this model.
    Calling(&'a str),
}

impl Deadline {
    /// Waits for ever.
    pub const NONE: Self = Self(None);

    /// Reads the request's `deadline` header, if it has one.
    ///
    /// # Errors
    /// When it cannot be read (`BAD_REQUEST`), and when it has passed (`DEADLINE_EXCEEDED`).
    pub fn of(request: &Request) -> Result<Self, Fault> {
        let Some(value) = request.headers.get(header::DEADLINE) else { return Ok(Self::NONE) };
        let deadline = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let deadline = deadline.ok_or_else(|| {
            let message = "header 'deadline' must be a Unix time in milliseconds, as decimal text";
            Fault::permanent(Code::BadRequest, Stage::Route, message)
        })?;
        let deadline = Self::NONE.within(Duration::from_millis(deadline).saturating_sub(since_1970()));
        deadline.require(Duration::ZERO, Step::Beginning).map(|()| deadline)
    }

    /// Returns the earlier one of this deadline and the end of a timeout that begins now.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Self {
        let end = Instant::now() + timeout;
        Self(Some(self.0.map_or(end, |deadline| deadline.min(end))))
    }

    /// Returns the time that is left.
    pub fn left(self) -> Duration {
        self.left_at(Instant::now())
    }

    /// Returns the time that is left at a given moment.
    pub fn left_at(self, now: Instant) -> Duration {
        self.0.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now))
    }

    /// Tells whether more time is left than a step needs.
    pub fn allows(self, needed: Duration) -> bool {
        self.left() > needed
    }

    /// Tells whether the time is up.
    pub fn is_over(self) -> bool {
        !self.allows(Duration::ZERO)
    }

    /// Checks that more time is left than a step needs.
    ///
    /// # Errors
    /// When there is not.
    pub fn require(self, needed: Duration, step: Step<'_>) -> Result<(), Fault> {
        if self.allows(needed) { Ok(()) } else { Err(self.fault(step)) }
    }

    /// Awaits `work`; none when the time is up before.
    pub async fn until<T>(self, work: impl Future<Output = T>) -> Option<T> {
        match self.0 {
            Some(deadline) => timeout_at(deadline, work).await.ok(),
            None => Some(work.await),
        }
    }

    /// Makes the fault of a request that has not enough time for a step.
    pub fn fault(self, step: Step<'_>) -> Fault {
        let late_at = |stage, message| Fault::passing(Code::DeadlineExceeded, stage, message);
        match step {
            Step::Beginning => {
                let message = "the request's deadline had passed when its turn came; no model was called";
                Fault::permanent(Code::DeadlineExceeded, Stage::Route, message)
            }
            Step::Deciding => {
                late_at(Stage::Route, "Python had not evaluated the conditions when time was up".to_owned())
            }
            Step::Queueing(before) => {
                let message = format!(
                    "at least {before:.1?} of calls are waiting before this request, which has {:.0?} left; give the \
                     route more `workers`, more `threads` or a higher `max_concurrency`, or come back later",
                    self.left()
                );
                Fault::passing(Code::TemporarilyUnavailable, Stage::Invoke, message).with_retry_after(before)
            }
            Step::Turn(call) => {
                let message = format!(
                    "all places of the model were taken until there was less time left than the quickest of its latest \
                     calls took ({call:.1?})"
                );
                late_at(Stage::Invoke, message)
            }
            Step::Place(model) => {
                let message = format!(
                    "all places of {model} were taken until time was up; give the route more `workers`, more `threads` \
                     or a higher `max_concurrency`"
                );
                late_at(Stage::Invoke, message)
            }
            Step::Resolving(model) => {
                late_at(Stage::Load, format!("the registry had not said what {model} is when time was up"))
            }
            Step::Loading(version) => {
                late_at(Stage::Load, format!("{version} was still being loaded when time was up; it goes on loading"))
            }
            Step::Calling(model) => late_at(Stage::Invoke, format!("{model} had not answered when time was up")),
        }
    }
}
