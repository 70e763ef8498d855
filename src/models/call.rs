//! Calls of a model: their kinds, and their failures.

use std::time::Duration;

use tokio::time::sleep;

use crate::message::Fault;

/// Interval at which a spare call looks for a free place; the call may wait that much longer than it must.
const SPARE_POLL: Duration = Duration::from_millis(5);

/// Kind of a call, which decides on how it waits for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    /// A request, which waits in order of arrival.
    Request,
    /// A request that may crash its process: it waits like any other, and then until no other call is in the same
    /// process.
    Alone,
    /// A call that no request waits for, such as that of a shadow.
    Spare,
}

/// Failure of a call that got no prediction.
#[derive(Debug, Clone)]
pub struct CallFailure {
    /// The fault that the caller is told.
    pub fault: Fault,
    /// True if the process that was to answer is gone, through no fault of the request's as far as is known: another
    /// lease gets another process.
    pub crashed: bool,
    /// True if other calls were in the process that is gone, so that one of them may have crashed it.
    pub in_company: bool,
    /// True if there was no connection to the server or process, or the connection broke.
    pub disconnected: bool,
}

impl CallKind {
    /// Waits until the call may ask for a place; a request may at once. `free` returns how many places are free and how
    /// many there are, or none once there are none any more.
    ///
    /// A spare call does not queue for a place: requests that come later go first. A request may come between looking
    /// and taking; then the spare call is the one call that is ahead of a request.
    pub(super) async fn wait(self, free: impl Fn() -> Option<(usize, usize)>) {
        while self == Self::Spare && free().is_some_and(|(free, places)| free <= usize::from(places > 1)) {
            sleep(SPARE_POLL).await;
        }
    }
}
