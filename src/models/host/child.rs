//! Wraps one child of a template: its sockets, its output, its exit, and its end.

use parking_lot::{Mutex, MutexGuard};
use std::fmt;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
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

/// Bytes of the longest body that is accepted from a child; a longer one is taken for garbage, and the child is killed.
/// Children that may answer at length keep to a limit of their own below this.
const MAX_BODY_BYTES: usize = 256 << 20;

/// Time to hear from the template how a child ended, once the child's socket is closed; after that, the child is
/// killed.
const EXIT_REPORT_LIMIT: Duration = Duration::from_secs(1);

/// Time for a killed process to give back its memory; after that, only a warning is logged.
const REAP_LIMIT: Duration = Duration::from_secs(10);

/// A process forked from a template. Dropping it kills the process and everything that the process has started.
#[derive(Debug)]
pub(crate) struct Child {
    state: Arc<ChildState>,
    /// The socket that the child was made with; `None` once a caller has taken it.
    channel: Option<Channel>,
}

/// A socket of a child, which carries one question at a time.
#[derive(Debug)]
pub(super) struct Channel {
    state: Arc<ChildState>,
    stream: UnixStream,
}

/// The state of a child, shared by the child's handle, its channels and the template's supervisor.
#[derive(Debug)]
pub(super) struct ChildState {
    pub(super) pid: Pid,
    killed: AtomicBool,
    exit: watch::Sender<Option<Exit>>,
    output: Mutex<Output>,
    /// The log that shows the child's output; unset until the model's name is known.
    log: OnceLock<Arc<OutputLog>>,
}

/// The way in which a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The template has reaped the child, with this status.
    Seen(ExitStatus),
    /// The template was gone before the child: the child was killed, and is no longer there.
    Unseen,
}

/// The reason why a child does not answer, and never will.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    /// The process has ended.
    #[error("its process ended ({exit})")]
    Ended {
        /// The way in which the process ended.
        exit: Exit,
        /// The line of output that explains the end. Output may hold anything, so callers are not told.
        reason: Option<String>,
    },
    /// The child did not answer in time, so it was killed.
    #[error("it did not answer in time, and its process was killed")]
    TimedOut,
    /// The child's answer makes no sense, so it was killed.
    #[error("its process was killed, since its answer makes no sense: {0}")]
    Garbled(String),
}

impl Child {
    /// Adopts a child that the template has just forked.
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

    /// Returns the child's process id, which is the id of its process group as well.
    pub(crate) fn pid(&self) -> u32 {
        self.state.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Asks one question, and waits for the answer. Dropping the future kills the child: a late answer would pass for
    /// the answer to the next question.
    pub(crate) async fn ask(&mut self, head: &impl Serialize, body: &[u8]) -> Result<Frame, Lost> {
        self.state.clear_output();
        self.channel()?.ask(&serialized(head)?, body).await
    }

    /// Opens `count` more sockets, at most [`MOST_THREADS`], and hands the child its ends of them, for which the child
    /// waits. From then on each socket may carry a question at the same time.
    pub(super) async fn open_channels(&mut self, count: usize, deadline: Instant) -> Result<Vec<Channel>, Lost> {
        let garbled = |error: std::io::Error| Lost::Garbled(error.to_string());
        let pairs = (0..count).map(|_| UnixStream::pair()).collect::<std::io::Result<Vec<_>>>().map_err(garbled)?;
        let (ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let Channel { state, stream } = self.channel()?;
        let guard = KillUnlessAnswered(state);
        // The answer comes once the child's threads wait at their sockets.
        let handed = async {
            send_sockets(stream, theirs).await?;
            frame::read(stream, MAX_BODY_BYTES).await
        };
        let answer = timeout_at(deadline, handed).await.map_err(|_| Lost::TimedOut)?;
        guard.settle(answer).await?;
        Ok(ours.into_iter().map(|stream| Channel { state: Arc::clone(&self.state), stream }).collect())
    }

    /// Takes the socket that the child was made with; every later question through the child itself fails.
    pub(super) fn take_channel(&mut self) -> Result<Channel, Lost> {
        self.channel.take().ok_or_else(already_taken)
    }

    /// Takes the socket that the child was made with, for a caller that gets several answers to one question.
    pub(crate) fn take_stream(&mut self) -> Result<UnixStream, Lost> {
        self.take_channel().map(|channel| channel.stream)
    }

    fn channel(&mut self) -> Result<&mut Channel, Lost> {
        self.channel.as_mut().ok_or_else(already_taken)
    }

    /// Kills the child and everything that it has started, without waiting.
    pub(crate) fn kill(&self) {
        self.state.kill();
    }

    /// Kills the child, and waits until it has been reaped, for at most [`REAP_LIMIT`].
    pub(super) async fn end(&self) {
        self.kill();
        if timeout(REAP_LIMIT, self.gone()).await.is_err() {
            tracing::warn!(pid = self.pid(), "a process that was killed has not ended");
        }
    }

    /// Waits until the process has been reaped: only then is its memory free.
    pub(crate) fn gone(&self) -> impl Future<Output = Exit> + Send + use<> {
        let mut exit = self.state.exit.subscribe();
        async move { exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit).unwrap_or(Exit::Unseen) }
    }

    /// Tells whether the child has ended, or is being killed.
    pub(crate) fn is_gone(&self) -> bool {
        self.state.killed.load(Ordering::Acquire) || self.state.exit.borrow().is_some()
    }

    /// Shows the child's output in this log from now on.
    pub(super) fn log_output_to(&self, log: Arc<OutputLog>) {
        let _ = self.state.log.set(log);
    }

    /// Clears the recorded output, since old output does not explain the outcome of the next question.
    pub(super) fn clear_output(&self) {
        self.state.clear_output();
    }

    /// Returns the recorded end of the child's output.
    pub(crate) fn output(&self) -> MutexGuard<'_, Output> {
        self.state.output.lock()
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
    /// Asks one question, and waits for the answer. Dropping the future kills the child.
    pub(super) async fn ask(&mut self, head: &[u8], body: &[u8]) -> Result<Frame, Lost> {
        let guard = KillUnlessAnswered(&self.state);
        let answer = async {
            frame::write(&mut self.stream, head, body).await?;
            frame::read(&mut self.stream, MAX_BODY_BYTES).await
        };
        guard.settle(answer.await).await
    }
}

/// Sends sockets to a child as ancillary data of one byte.
async fn send_sockets(stream: &UnixStream, sockets: Vec<UnixStream>) -> std::io::Result<()> {
    // The child reads and writes its sockets in blocking mode.
    let sockets = sockets.into_iter().map(|socket| {
        let socket = socket.into_std()?;
        socket.set_nonblocking(false)?;
        Ok(socket)
    });
    let sockets = sockets.collect::<std::io::Result<Vec<_>>>()?;
    let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_THREADS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        Ok(sendmsg(stream, &[IoSlice::new(b"\n")], &mut ancillary, SendFlags::empty())?)
    };
    stream.async_io(Interest::WRITABLE, send).await.map(drop)
}

fn already_taken() -> Lost {
    Lost::Garbled("another asks it".to_owned())
}

/// Serialises the head of a question: names and numbers, which always serialise.
pub(super) fn serialized(head: &impl Serialize) -> Result<Vec<u8>, Lost> {
    serde_json::to_vec(head).map_err(|error| Lost::Garbled(error.to_string()))
}

/// A guard that kills the child when it is dropped before an answer has come.
struct KillUnlessAnswered<'a>(&'a ChildState);

impl KillUnlessAnswered<'_> {
    /// Disarms the guard if there is an answer, and finds out why there is none otherwise.
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
    /// Kills the child and everything that it has started, unless it has ended or is being killed.
    pub(super) fn kill(&self) {
        if self.exit.borrow().is_some() || self.killed.swap(true, Ordering::AcqRel) {
            return;
        }
        // The child may have been reaped this moment, or not have made its own process group yet.
        if kill_process_group(self.pid, Signal::KILL).is_err() {
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }

    /// Reads the child's output until it ends. The child never waits for long, however much it prints, and little of
    /// the output is kept.
    pub(super) fn read_output(self: &Arc<Self>, pipe: OwnedFd) -> std::io::Result<JoinHandle<()>> {
        let (pipe, state) = (pipe::Receiver::from_owned_fd(pipe)?, Arc::clone(self));
        let pid = self.pid.as_raw_nonzero().get();
        Ok(tokio::spawn(super::output::read(pipe, move |line| {
            match state.log.get() {
                Some(log) => log.log_line(pid, line),
                None => tracing::debug!(pid, line = line.trim_end(), "a process of the template"),
            }
            state.output.lock().push(line);
        })))
    }

    /// Clears the output of a child that still runs: output of the past does not explain what the child does from now
    /// on. The output of an ended child is kept, since it may explain the end.
    fn clear_output(&self) {
        if self.exit.borrow().is_none() {
            *self.output.lock() = Output::default();
        }
    }

    /// Records that the child has ended.
    pub(super) fn record_exit(&self, exit: Exit) {
        self.exit.send_replace(Some(exit));
    }

    /// Waits for the exit of a child whose socket is closed, and returns how it ended.
    async fn wait_for_exit(&self) -> Lost {
        let mut exit = self.exit.subscribe();
        let mut ended = async || {
            let ended = timeout(EXIT_REPORT_LIMIT, exit.wait_for(Option::is_some)).await;
            ended.ok().and_then(Result::ok).and_then(|exit| *exit)
        };
        let exit = match ended().await {
            Some(exit) => exit,
            // The child has closed its socket and lives on.
            None => {
                self.kill();
                ended().await.unwrap_or(Exit::Unseen)
            }
        };
        Lost::Ended { exit, reason: self.output.lock().reason().map(str::to_owned) }
    }
}

impl Lost {
    /// Describes the loss, together with the child's last words if there are any.
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
