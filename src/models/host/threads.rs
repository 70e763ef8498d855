//! The threads of a host, at each of which one call at a time is under way.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::child::{Channel, Child, Lost, serialized};
use super::frame::Frame;
use super::protocol::HostRequest;

/// How long a process may take to show that it still runs Python, when a call in one of its threads has run out of time.
const LIVENESS_LIMIT: Duration = Duration::from_secs(5);

/// The sockets on which a host is asked, one for each thread.
#[derive(Debug)]
pub(super) struct HostThreads {
    count: usize,
    /// Those of the threads that are idle.
    idle: Mutex<Vec<Channel>>,
    /// Where the host is asked for a sign of life, which a single thread cannot give beside a call.
    control: Option<tokio::sync::Mutex<Channel>>,
}

/// A call that has run out of time and goes on in its thread. Dropped, it has the process killed.
pub(crate) struct Late(PendingAnswer);

/// A question on its way, and the socket that it is asked on.
type PendingAnswer = Pin<Box<dyn Future<Output = Result<(Frame, Channel), Lost>> + Send>>;

/// Why a thread has not answered.
#[derive(Debug)]
pub(super) enum AskError {
    /// All of them are at other calls.
    AllBusy,
    /// Its process has gone, or goes.
    Lost(Lost),
    /// It had not when time was up.
    Late(Late),
}

impl HostThreads {
    /// Has a child that has loaded a model start so many. A single one is its main thread, which is asked as before.
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

    /// Whether there is more than one.
    pub(super) fn are_several(&self) -> bool {
        self.count > 1
    }

    /// Whether nothing is asked.
    pub(super) fn are_idle(&self) -> bool {
        self.idle().len() == self.count
    }

    /// Asks one that is idle, and waits for its answer; dropped before, this has the process killed.
    pub(super) async fn ask(&self, head: Vec<u8>, body: Bytes, limit: Duration) -> Result<Frame, AskError> {
        let mut channel = self.idle().pop().ok_or(AskError::AllBusy)?;
        let mut pending: PendingAnswer = Box::pin(async move {
            let answer = channel.ask(&head, &body).await?;
            Ok((answer, channel))
        });
        match timeout(limit, &mut pending).await {
            Ok(Ok((answer, channel))) => {
                self.idle().push(channel);
                Ok(answer)
            }
            Ok(Err(lost)) => Err(AskError::Lost(lost)),
            Err(_) => Err(AskError::Late(Late(pending))),
        }
    }

    /// Waits until the thread of a late call is idle again, or its process has ended.
    pub(super) async fn wait_out(&self, late: Late) {
        if let Ok((_, channel)) = late.0.await {
            self.idle().push(channel);
        }
    }

    /// Comes to an end when the process gives no sign of life in time. It is killed then, after `before_kill`.
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

    fn idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        // Nothing panics while it is held.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Late").finish_non_exhaustive()
    }
}
