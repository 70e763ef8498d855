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
        self.tasks.spawn(self.closing.clone().run_until_cancelled_owned(work));
    }
}
