//! Waiting until an optional deadline.

use tokio::time::{Instant, timeout_at};

/// Awaits `work` until the deadline, if there is one; none when the deadline comes first.
pub(crate) async fn until<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}
