//! Shares the threads of a host among calls: each thread answers one call at a time.

use parking_lot::Mutex;
use std::fmt;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::child::{Channel, Child, Lost, serialized};
use super::frame::Frame;
use super::protocol::HostRequest;

/// Time for a host to answer a liveness probe once a call on one of its threads has run out of time; after that, the
/// host is killed.
const LIVENESS_LIMIT: Duration = Duration::from_secs(5);

/// The sockets to a host's threads, one for each thread.
#[derive(Debug)]
pub(super) struct HostThreads {
    count: usize,
    /// The sockets of the idle threads.
    idle: Mutex<Vec<Channel>>,
    /// The socket for liveness probes; a host with a single thread cannot answer probes beside a call, and has none.
    control: Option<tokio::sync::Mutex<Channel>>,
}

/// A call that has run out of time and goes on in its thread. Dropping it kills the process.
pub(crate) struct Late(PendingAnswer);

/// A question on its way, together with the socket that carries it.
type PendingAnswer = Pin<Box<dyn Future<Output = Result<(Frame, Channel), Lost>> + Send>>;

/// The reason why a thread has not answered.
#[derive(Debug)]
pub(super) enum AskError {
    /// Every thread is busy with another call.
    AllBusy,
    /// The process has ended, or is ending.
    Lost(Lost),
    /// The call has run out of time.
    Late(Late),
}

impl HostThreads {
    /// Has a child that has loaded a model start `count` threads. A single thread is the child's main thread, which is
    /// asked over the child's first socket.
    pub(super) async fn start(child: &mut Child, count: usize, deadline: Instant) -> Result<Self, Lost> {
        let mut idle = Vec::new();
        let mut control = None;
        if count > 1 {
            idle = child.open_channels(count, deadline).await?;
            control = Some(child.take_channel()?.into());
        } else {
            idle.push(child.take_channel()?);
        }
        Ok(Self { count: idle.len(), idle: Mutex::new(idle), control })
    }

    /// Tells whether there is more than one thread.
    pub(super) fn are_several(&self) -> bool {
        self.count > 1
    }

    /// Tells whether every thread is idle.
    pub(super) fn are_idle(&self) -> bool {
        self.idle.lock().len() == self.count
    }

    /// Asks an idle thread, and waits for the answer. Dropping the future kills the process.
    pub(super) async fn ask(&self, head: Vec<u8>, body: Bytes, limit: Duration) -> Result<Frame, AskError> {
        let mut channel = self.idle.lock().pop().ok_or(AskError::AllBusy)?;
        let mut pending: PendingAnswer = Box::pin(async move {
            let answer = channel.ask(&head, &body).await?;
            Ok((answer, channel))
        });
        // A call that is late keeps its socket, which becomes idle only with its answer.
        match timeout(limit, &mut pending).await {
            Ok(Ok((answer, channel))) => {
                self.idle.lock().push(channel);
                Ok(answer)
            }
            Ok(Err(lost)) => Err(AskError::Lost(lost)),
            Err(_) => Err(AskError::Late(Late(pending))),
        }
    }

    /// Waits until the thread of a late call is idle again, or its process has ended.
    pub(super) async fn wait_out(&self, late: Late) {
        if let Ok((_, channel)) = late.0.await {
            self.idle.lock().push(channel);
        }
    }

    /// Probes the host, and returns once it has failed to answer in time. Dropping the probe kills the host, after
    /// `before_kill`.
    pub(super) async fn wait_until_unresponsive(&self, before_kill: impl FnOnce()) {
        if let (Some(control), Ok(question)) = (&self.control, serialized(&HostRequest::Ping {})) {
            let mut control = control.lock().await;
            let mut pending = pin!(control.ask(&question, b""));
            if timeout(LIVENESS_LIMIT, &mut pending).await.is_err() {
                return before_kill();
            }
        }
        std::future::pending().await
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Late").finish_non_exhaustive()
    }
}
