//! The threads of a host, at each of which one call at a time is under way.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::child::{Child, Line, Lost, serialized};
use super::frame::Answer;

/// How long a process may take to show that it still runs Python, when a call in one of its threads has run out of time.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// The sockets on which a host is asked, one for each thread.
#[derive(Debug)]
pub(super) struct Threads {
    count: usize,
    /// Those of the threads that are free.
    free: Mutex<Vec<Line>>,
    /// Where the host is asked for a sign of life, which a single thread cannot give beside a call.
    control: Option<tokio::sync::Mutex<Line>>,
}

/// A call that has run out of time and goes on in its thread. Dropped, it has the process killed.
pub(crate) struct Late(Asking);

/// A question on its way, and the socket that it is asked on.
type Asking = Pin<Box<dyn Future<Output = Result<(Answer, Line), Lost>> + Send>>;

/// Why a thread has not answered.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// All of them are at other calls.
    NoneFree,
    /// Its process has gone, or goes.
    Lost(Lost),
    /// It had not when time was up.
    Late(Late),
}

/// What the main thread is asked beside others.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Question {
    ShowLife {},
}

impl Threads {
    /// Has a child that has loaded a model start so many. A single one is its main thread, which is asked as before.
    pub(super) async fn start(child: &mut Child, count: usize, deadline: Instant) -> Result<Self, Lost> {
        let mut free = Vec::new();
        let mut control = None;
        if count > 1 {
            free = child.more_lines(count, deadline).await?;
            control = Some(child.take_line()?.into());
        } else {
            free.push(child.take_line()?);
        }
        Ok(Self { count: free.len(), free: Mutex::new(free), control })
    }

    /// Whether there is more than one.
    pub(super) fn are_several(&self) -> bool {
        self.count > 1
    }

    /// Whether nothing is asked.
    pub(super) fn are_free(&self) -> bool {
        self.free().len() == self.count
    }

    /// Asks one that is free, and waits for its answer; dropped before, this has the process killed.
    pub(super) async fn ask(&self, head: Vec<u8>, body: Bytes, limit: Duration) -> Result<Answer, NoAnswer> {
        let mut line = self.free().pop().ok_or(NoAnswer::NoneFree)?;
        let mut asking: Asking = Box::pin(async move {
            let answer = line.ask(&head, &body).await?;
            Ok((answer, line))
        });
        match timeout(limit, &mut asking).await {
            Ok(Ok((answer, line))) => {
                self.free().push(line);
                Ok(answer)
            }
            Ok(Err(lost)) => Err(NoAnswer::Lost(lost)),
            Err(_) => Err(NoAnswer::Late(Late(asking))),
        }
    }

    /// Waits until the thread of a late call is free again, or its process has ended.
    pub(super) async fn wait_out(&self, late: Late) {
        if let Ok((_, line)) = late.0.await {
            self.free().push(line);
        }
    }

    /// Comes to an end when the process gives no sign of life in time. It is killed then, after `found`.
    pub(super) async fn lifeless(&self, found: impl FnOnce()) {
        if let (Some(control), Ok(question)) = (&self.control, serialized(&Question::ShowLife {})) {
            let mut control = control.lock().await;
            let mut asking = pin!(control.ask(&question, b""));
            if timeout(SIGN_OF_LIFE, &mut asking).await.is_err() {
                return found();
            }
        }
        std::future::pending().await
    }

    fn free(&self) -> MutexGuard<'_, Vec<Line>> {
        // Nothing panics while it is held.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Late").finish_non_exhaustive()
    }
}
