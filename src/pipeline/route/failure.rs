//! The failures of a route, and the cause of each. Only a cause of the route's own opens breakers, is tried again and falls
//! back.

use crate::config::FallbackOn;
use crate::message::{Code, Deadline, Fault, Stage};

/// Tells why a route has not answered a request.
pub(in crate::pipeline) struct RouteFailure {
    pub(in crate::pipeline) fault: Fault,
    /// Cause that lies with the route; none when the caller is at fault.
    pub(in crate::pipeline) cause: Option<FallbackOn>,
    /// Tells whether the process that was to answer is gone.
    pub(in crate::pipeline) crashed: bool,
    /// Tells whether other requests were in the same call, one of which may be at fault.
    pub(in crate::pipeline) in_batch: bool,
}

/// Names the point on its way at which a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pipeline) enum FailurePoint {
    /// Waiting for the model to be loaded, or for a turn.
    Waiting,
    /// Calling the model.
    Calling {
        /// Tells whether there was no connection, or it broke.
        disconnected: bool,
    },
}

impl RouteFailure {
    /// Finds the cause of a fault. A request whose own time is up may have been too short of it for any route.
    pub(in crate::pipeline) fn of(fault: Fault, point: FailurePoint, deadline: Deadline) -> Self {
        let out_of_time = fault.code == Code::DeadlineExceeded && deadline.is_over();
        let cause = if out_of_time { None } else { cause_of(&fault, point) };
        Self { fault, cause, crashed: false, in_batch: false }
    }

    /// Fails a request that an open breaker has refused.
    pub(in crate::pipeline) fn breaker_open(fault: Fault) -> Self {
        Self { fault, cause: Some(FallbackOn::BreakerOpen), crashed: false, in_batch: false }
    }

    /// Tells whether time was up before there was an answer.
    pub(in crate::pipeline) fn is_timeout(&self) -> bool {
        self.fault.code == Code::DeadlineExceeded
    }

    /// Tells whether another call of the same route may be answered.
    pub(in crate::pipeline) fn is_worth_retry(&self) -> bool {
        self.fault.retryable && self.cause.is_some() && !self.crashed
    }
}

/// Finds the cause of a fault that lies with the route; none when the caller is at fault. A fault does not say whether the
/// request itself was out of time.
fn cause_of(fault: &Fault, point: FailurePoint) -> Option<FallbackOn> {
    match (fault.stage, fault.code, point) {
        (Stage::Route | Stage::Publish, ..) => None,
        (Stage::Invoke, Code::DeadlineExceeded, FailurePoint::Waiting) => Some(FallbackOn::Overload),
        (_, Code::DeadlineExceeded, _) => Some(FallbackOn::Timeout),
        // A model that is not found counts as well: the route names the model.
        (Stage::Load, ..) => Some(FallbackOn::LoadFailure),
        (Stage::Invoke, Code::TemporarilyUnavailable, FailurePoint::Calling { disconnected: true }) => {
            Some(FallbackOn::ServerError)
        }
        (Stage::Invoke, Code::TemporarilyUnavailable | Code::ResourceExhausted, _) => Some(FallbackOn::Overload),
        (Stage::Invoke, Code::ModelError | Code::InternalError, _) => Some(FallbackOn::ServerError),
        (
            Stage::Invoke,
            Code::BadRequest
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::ResourceDoesNotExist
            | Code::PayloadTooLarge
            | Code::UnsupportedMediaType
            | Code::ConditionFailed
            | Code::Cancelled,
            _,
        ) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invocation::meaning_of;

    const CALL: FailurePoint = FailurePoint::Calling { disconnected: false };

    #[test]
    fn cause_lies_with_route_unless_caller_is_at_fault() {
        let raised = br#"{"stack_trace": "Traceback (most recent call last):\nValueError: no\n"}"#;
        for (status, body, cause) in [
            (500, &b""[..], Some(FallbackOn::ServerError)),
            (502, b"", Some(FallbackOn::ServerError)),
            (400, raised, Some(FallbackOn::ServerError)),
            (404, b"", Some(FallbackOn::ServerError)),
            (503, b"", Some(FallbackOn::Overload)),
            (429, b"", Some(FallbackOn::Overload)),
            (504, b"", Some(FallbackOn::Timeout)),
            (400, b"", None),
            (413, b"", None),
            (415, b"", None),
            (422, b"", None),
        ] {
            assert_eq!(cause_of(&meaning_of(status, None, body).fault, CALL), cause, "{status}");
        }
    }

    #[test]
    fn cause_depends_on_point_of_failure() {
        let cause = |code, stage, point| cause_of(&Fault::passing(code, stage, ""), point);
        let gone = FailurePoint::Calling { disconnected: true };
        assert_eq!(cause(Code::TemporarilyUnavailable, Stage::Invoke, gone), Some(FallbackOn::ServerError));
        assert_eq!(cause(Code::DeadlineExceeded, Stage::Invoke, FailurePoint::Waiting), Some(FallbackOn::Overload));
        assert_eq!(cause(Code::DeadlineExceeded, Stage::Load, FailurePoint::Waiting), Some(FallbackOn::Timeout));
        for code in [Code::TemporarilyUnavailable, Code::ResourceDoesNotExist, Code::ModelError, Code::InternalError] {
            assert_eq!(cause(code, Stage::Load, FailurePoint::Waiting), Some(FallbackOn::LoadFailure), "{code}");
            assert_eq!(cause(code, Stage::Route, FailurePoint::Waiting), None, "{code}");
        }
    }
}
