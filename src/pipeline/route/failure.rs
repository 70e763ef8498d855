//! What of a fault is the route's own doing. Only that opens breakers, is tried again and falls back.

use crate::config::FallbackOn;
use crate::message::{Code, Fault, Stage};

/// What a request was at when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pipeline) enum Step {
    /// Waiting for the model to be loaded, or for a turn.
    Wait,
    /// Calling the model.
    Call {
        /// Whether there was no connection, or it broke.
        disconnected: bool,
    },
}

/// Why the route could not answer; nothing when the caller is at fault. Whether the request itself was out of time, a
/// fault does not say.
pub(in crate::pipeline) fn cause_of(fault: &Fault, step: Step) -> Option<FallbackOn> {
    match (fault.stage, fault.code, step) {
        (Stage::Route | Stage::Publish, ..) => None,
        (Stage::Invoke, Code::DeadlineExceeded, Step::Wait) => Some(FallbackOn::Overload),
        (_, Code::DeadlineExceeded, _) => Some(FallbackOn::Timeout),
        // Even what is not found: it is the route that names the model.
        (Stage::Load, ..) => Some(FallbackOn::LoadFailure),
        (Stage::Invoke, Code::TemporarilyUnavailable, Step::Call { disconnected: true }) => {
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

    const CALL: Step = Step::Call { disconnected: false };

    #[test]
    fn what_a_model_answers_is_its_own_doing_unless_the_caller_is_at_fault() {
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
    fn where_it_failed_matters() {
        let cause = |code, stage, step| cause_of(&Fault::passing(code, stage, ""), step);
        let gone = Step::Call { disconnected: true };
        assert_eq!(cause(Code::TemporarilyUnavailable, Stage::Invoke, gone), Some(FallbackOn::ServerError));
        assert_eq!(cause(Code::DeadlineExceeded, Stage::Invoke, Step::Wait), Some(FallbackOn::Overload));
        assert_eq!(cause(Code::DeadlineExceeded, Stage::Load, Step::Wait), Some(FallbackOn::Timeout));
        for code in [Code::TemporarilyUnavailable, Code::ResourceDoesNotExist, Code::ModelError, Code::InternalError] {
            assert_eq!(cause(code, Stage::Load, Step::Wait), Some(FallbackOn::LoadFailure), "{code}");
            assert_eq!(cause(code, Stage::Route, Step::Wait), None, "{code}");
        }
    }
}
