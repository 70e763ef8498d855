//! The call of a model for one request or a batch of them, the meaning of its answer, and the pure policies around calls.

mod backoff;
pub mod batch_size;
pub mod body;
pub mod breaker;
mod call;
mod exceptions;
mod http;
mod meaning;
pub mod rejection_rate;
pub mod retry;
mod spot_checks;
mod traceback;
pub mod row_independence;

pub use backoff::Backoff;
pub use call::{Answers, Call, Failure, Several, noop};
pub(crate) use exceptions::ExceptionLog;
pub use http::{HttpBackend, ServerOwner, http_client};
pub(crate) use http::{LARGEST_REPLY, in_words, read_body, root_cause, too_large};
pub(crate) use meaning::{Meaning, meaning_of};
pub use traceback::exception_of;
