//! Thread of a client: the loop that polls it, until it is told to stop.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::task::spawn_blocking;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Running thread, which stops, a moment later, when this is dropped.
#[derive(Debug)]
pub struct ClientThread {
    stop: DropGuard,
    thread: JoinHandle<()>,
}

impl ClientThread {
    /// Starts the thread. `run` looks at the token, and returns soon after that is cancelled.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(name: &str, run: impl FnOnce(&CancellationToken) + Send + 'static) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run(&stopped))?;
        Ok(Self { stop: stop.drop_guard(), thread })
    }

    /// Stops the thread and waits until its clients are gone.
    pub async fn stop(self) {
        drop(self.stop);
        let thread = self.thread;
        // A thread that panicked is gone as well.
        let _ = spawn_blocking(move || thread.join()).await;
    }
}
