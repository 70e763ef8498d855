//! Tasks that outlive the request that started them, and end when Signalbox stops.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tracks background tasks, so that stopping can cancel them and wait for their end.
#[derive(Debug, Clone, Default)]
pub(super) struct Background {
    /// Every task that may own a process; stopping waits for all of them.
    pub(super) tasks: TaskTracker,
    /// Cancelled when Signalbox stops.
    pub(super) closing: CancellationToken,
}

impl Background {
    /// Spawns work that is dropped when Signalbox stops.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing.clone();
        // Biased, so that no work that wakes at the same time takes the end of Signalbox for a failure.
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = closing.cancelled() => {}
                () = work => {}
            }
        });
    }
}
