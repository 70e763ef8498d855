//! One child of a template.

use std::fmt;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::Serialize;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::frame::{self, Frame};
use super::output::Output;
use super::output_log::OutputLog;
use crate::config::MOST_THREADS;

/// Longer answers are nonsense: whoever may answer at length keeps to a limit of its own below this.
const MAX_BODY_BYTES: usize = 256 << 20;

/// How long it may take to hear that a process has ended whose socket is closed already.
const EXIT_REPORT_LIMIT: Duration = Duration::from_secs(1);

/// How long a killed process may take to give back what it holds.
const REAP_LIMIT: Duration = Duration::from_secs(10);

/// A process forked from a template. Dropped, it is killed, and everything it has started with it.
#[derive(Debug)]
pub(crate) struct Child {
    state: Arc<ChildState>,
    /// None once it was already_taken.
    channel: Option<Channel>,
}

/// A socket of a child, on which it is asked one question at a time.
#[derive(Debug)]
pub(super) struct Channel {
    state: Arc<ChildState>,
    stream: UnixStream,
}

/// What is known of a child, whoever still holds it.
#[derive(Debug)]
pub(super) struct ChildState {
    pid: Pid,
    killed: AtomicBool,
    exit: watch::Sender<Option<Exit>>,
    output: Mutex<Output>,
    /// Where what it prints goes, once that is known.
    log: OnceLock<Arc<OutputLog>>,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The template has seen it.
    Seen(ExitStatus),
    /// The template was gone before it: killed, and no longer there.
    Unseen,
}

/// Why a child does not answer, and never will.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    /// Its process has ended.
    #[error("its process ended ({exit})")]
    Ended {
        /// How.
        exit: Exit,
        /// What it printed about that. It may hold anything, so callers are not told.
        reason: Option<String>,
    },
    /// It did not answer in time, so it was killed.
    #[error("it did not answer in time, and its process was killed")]
    TimedOut,
    /// Its answer makes no sense, so it was killed.
    #[error("its process was killed, since its answer makes no sense: {0}")]
    Garbled(String),
}

impl Child {
    /// Takes over a child that the template has just made.
    pub(super) fn adopt(pid: Pid, socket: OwnedFd) -> std::io::Result<Self> {
        let stream = std::os::unix::net::UnixStream::from(socket);
        stream.set_nonblocking(true)?;
        let state = ChildState {
            pid,
            killed: AtomicBool::new(false),
            exit: watch::Sender::new(None),
            output: Mutex::default(),
            log: OnceLock::new(),
        };
        let state = Arc::new(state);
        let channel = Channel { state: Arc::clone(&state), stream: UnixStream::from_std(stream)? };
        Ok(Self { state, channel: Some(channel) })
    }

    /// Its process id, which is that of its process group as well.
    pub(crate) fn pid(&self) -> u32 {
        self.state.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Asks one question, and waits for its answer. A child whose answer nobody waits for any longer is killed: it would
    /// come as the answer to the next question.
    pub(crate) async fn ask(&mut self, head: &impl Serialize, body: &[u8]) -> Result<Frame, Lost> {
        self.state.clear_output();
        self.channel()?.ask(&serialized(head)?, body).await
    }

    /// The same, with an answer by then or none. That the process has ended is told even if it takes longer to hear how.
    pub(crate) async fn ask_until(
        &mut self,
        head: &impl Serialize,
        body: &[u8],
        deadline: Instant,
    ) -> Result<Frame, Lost> {
        timeout_at(deadline, self.ask(head, body)).await.unwrap_or(Err(Lost::TimedOut))
    }

    /// Makes as many more sockets, at most [`MOST_THREADS`], and hands the child its ends of them, which it waits for. Any
    /// number of questions may be under way from then on, one on each.
    pub(super) async fn open_channels(&mut self, count: usize, deadline: Instant) -> Result<Vec<Channel>, Lost> {
        let garbled = |error: std::io::Error| Lost::Garbled(error.to_string());
        let pairs = (0..count).map(|_| UnixStream::pair()).collect::<std::io::Result<Vec<_>>>().map_err(garbled)?;
        let (ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let Channel { state, stream } = self.channel()?;
        let guard = KillUnlessAnswered(state);
        let handed = async {
            send_sockets(stream, theirs).await?;
            frame::read(stream, MAX_BODY_BYTES).await
        };
        let answer = timeout_at(deadline, handed).await.map_err(|_| Lost::TimedOut)?;
        guard.settle(answer).await?;
        Ok(ours.into_iter().map(|stream| Channel { state: Arc::clone(&self.state), stream }).collect())
    }

    /// The socket that it was made with. Nothing else can be asked of it then.
    pub(super) fn take_channel(&mut self) -> Result<Channel, Lost> {
        self.channel.take().ok_or_else(already_taken)
    }

    fn channel(&mut self) -> Result<&mut Channel, Lost> {
        self.channel.as_mut().ok_or_else(already_taken)
    }

    /// Has it killed, without waiting for that, with everything it has started.
    pub(crate) fn kill(&self) {
        self.state.kill();
    }

    /// Kills it, and waits until its process has been reaped, as long as that may take.
    pub(super) async fn end(&self) {
        self.kill();
        if timeout(REAP_LIMIT, self.gone()).await.is_err() {
            tracing::warn!(pid = self.pid(), "a process that was killed has not ended");
        }
    }

    /// Waits until its process has been reaped: only then is its memory free.
    pub(crate) fn gone(&self) -> impl Future<Output = Exit> + Send + use<> {
        let mut exit = self.state.exit.subscribe();
        async move { exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit).unwrap_or(Exit::Unseen) }
    }

    /// Whether it has ended, or is being killed.
    pub(crate) fn is_gone(&self) -> bool {
        self.state.killed.load(Ordering::Acquire) || self.state.exit.borrow().is_some()
    }

    /// From now on, what it prints is shown there.
    pub(super) fn log_output_to(&self, log: Arc<OutputLog>) {
        let _ = self.state.log.set(log);
    }

    /// What it has printed does not explain what comes of the next question.
    pub(super) fn clear_output(&self) {
        self.state.clear_output();
    }

    /// What it has printed, as far as that is kept.
    pub(crate) fn output(&self) -> MutexGuard<'_, Output> {
        self.state.output()
    }

    pub(super) fn state(&self) -> &Arc<ChildState> {
        &self.state
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Channel {
    /// Asks one question, and waits for its answer; dropped before, it has the child killed.
    pub(super) async fn ask(&mut self, head: &[u8], body: &[u8]) -> Result<Frame, Lost> {
        let guard = KillUnlessAnswered(&self.state);
        let answer = async {
            frame::write(&mut self.stream, head, body).await?;
            frame::read(&mut self.stream, MAX_BODY_BYTES).await
        };
        guard.settle(answer.await).await
    }
}

/// Sends sockets, together with one byte.
async fn send_sockets(stream: &UnixStream, sockets: Vec<UnixStream>) -> std::io::Result<()> {
    // Whoever gets them reads and writes them until that is done.
    let sockets = sockets.into_iter().map(|socket| {
        let socket = socket.into_std()?;
        socket.set_nonblocking(false)?;
        Ok(socket)
    });
    let sockets = sockets.collect::<std::io::Result<Vec<_>>>()?;
    let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let send_sockets = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_THREADS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        Ok(sendmsg(stream, &[IoSlice::new(b"\n")], &mut ancillary, SendFlags::empty())?)
    };
    stream.async_io(Interest::WRITABLE, send_sockets).await.map(drop)
}

fn already_taken() -> Lost {
    Lost::Garbled("another asks it".to_owned())
}

/// Names and numbers: they always serialise.
pub(super) fn serialized(head: &impl Serialize) -> Result<Vec<u8>, Lost> {
    serde_json::to_vec(head).map_err(|error| Lost::Garbled(error.to_string()))
}

/// A question without an answer.
struct KillUnlessAnswered<'a>(&'a ChildState);

impl KillUnlessAnswered<'_> {
    /// What came of it.
    async fn settle(self, answer: std::io::Result<Frame>) -> Result<Frame, Lost> {
        match answer {
            Ok(answer) => {
                std::mem::forget(self);
                Ok(answer)
            }
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(Lost::Garbled(error.to_string())),
            Err(_) => Err(self.0.wait_for_exit().await),
        }
    }
}

impl Drop for KillUnlessAnswered<'_> {
    fn drop(&mut self) {
        self.0.kill();
    }
}

impl ChildState {
    pub(super) fn kill(&self) {
        if self.exit.borrow().is_some() || self.killed.swap(true, Ordering::AcqRel) {
            return;
        }
        // It may have been reaped this moment, or not have come to make its own group yet.
        if kill_process_group(self.pid, Signal::KILL).is_err() {
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }

    /// Reads what it prints until it has ended. However much that is, the child never waits for long, and little of it
    /// is kept.
    pub(super) fn read_output(self: &Arc<Self>, pipe: OwnedFd) -> std::io::Result<JoinHandle<()>> {
        let (pipe, state) = (pipe::Receiver::from_owned_fd(pipe)?, Arc::clone(self));
        let pid = self.pid.as_raw_nonzero().get();
        Ok(tokio::spawn(super::output::read(pipe, move |line| {
            match state.log.get() {
                Some(log) => log.log_line(pid, line),
                None => tracing::debug!(pid, line = line.trim_end(), "a process of the template"),
            }
            state.output().push(line);
        })))
    }

    /// What it printed before has nothing to do with what it does from now on, unless it has ended over it.
    fn clear_output(&self) {
        if self.exit.borrow().is_none() {
            *self.output() = Output::default();
        }
    }

    /// It has ended.
    pub(super) fn record_exit(&self, exit: Exit) {
        self.exit.send_replace(Some(exit));
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        // Nothing panics while it is held.
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it ended, now that its socket is closed.
    async fn wait_for_exit(&self) -> Lost {
        let mut exit = self.exit.subscribe();
        let mut ended = async || {
            let ended = timeout(EXIT_REPORT_LIMIT, exit.wait_for(Option::is_some)).await;
            ended.ok().and_then(Result::ok).and_then(|exit| *exit)
        };
        let exit = match ended().await {
            Some(exit) => exit,
            // It has closed its socket and lives on.
            None => {
                self.kill();
                ended().await.unwrap_or(Exit::Unseen)
            }
        };
        Lost::Ended { exit, reason: self.output().reason().map(str::to_owned) }
    }
}

impl Lost {
    /// Why it is lost, with what it printed about that.
    pub(super) fn with_reason(&self) -> String {
        match self {
            Self::Ended { reason: Some(reason), .. } => format!("{self}: {reason}"),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seen(status) => status.fmt(formatter),
            Self::Unseen => formatter.write_str("with the process that it was forked from"),
        }
    }
}
