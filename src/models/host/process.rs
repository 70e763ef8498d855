//! Supervises one run of a template: its process, its children, and the forks that callers wait for.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, test_kill_process, waitpid};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child as TokioChild, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::child::{Child, ChildState, Exit};
use super::control::{ReportReader, TemplateReport, TemplateRequest};
use super::output::{self, Output, truncated};
use super::template::{Task, TemplateError, TemplateSpec};

/// Python source of the template, and of each program that the template and its children run.
const TEMPLATE: &str = include_str!("python/template.py");
pub(super) const REQUIREMENTS: &str = include_str!("python/requirements.py");
const PROGRAMS: [(&str, &str); 12] = [
    ("channel", include_str!("python/channel.py")),
    ("prewarm", include_str!("python/prewarm.py")),
    ("mlflow_patches", include_str!("python/mlflow_patches.py")),
    ("large_pages", include_str!("python/large_pages.py")),
    ("model", include_str!("python/host.py")),
    ("bad_rows", include_str!("python/bad_rows.py")),
    ("blame", include_str!("python/blame.py")),
    ("independence", include_str!("python/independence.py")),
    ("estimators", include_str!("python/estimators.py")),
    ("onnx_graph", include_str!("python/onnx_graph.py")),
    ("client", include_str!("python/mlflow_client.py")),
    ("requirements", REQUIREMENTS),
];

/// Program that the interpreter is started with: it reads the template's source, whose length comes first, and runs it.
/// The source itself as an argument would stand in every list of processes. The program closes every descriptor that
/// Signalbox has open and that none of its libraries has closed to children.
const BOOTSTRAP: &str = "\
import os
for name in os.listdir('/dev/fd'):
    try:
        int(name) < 3 or os.close(int(name))
    except OSError:
        pass
length, text = int(os.read(0, 8)), b''
while len(text) < length:
    text += os.read(0, length - len(text)) or os._exit(70)
exec(compile(text, '<signalbox template>', 'exec'))";

/// Time for a template to end, with its children, once its socket is closed; after that, the template is killed.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Time for all imports; after that, the template counts as stuck and is killed.
const WARM_LIMIT: Duration = Duration::from_secs(300);

/// Time for a fork when everything is imported; after that, the template counts as stuck and is killed. Preloaded
/// modules are imported one at a time between forks, so a fork waits for one import at most.
const FORK_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of the longest output that is quoted about an interpreter that does not even begin.
const MAX_REASON_BYTES: usize = 200;

/// A running template.
#[derive(Debug)]
pub(super) struct TemplateProcess {
    python: String,
    pid: u32,
    requests: mpsc::UnboundedSender<String>,
    next_id: AtomicU64,
    forks: Mutex<HashMap<u64, PendingFork>>,
    warm: watch::Sender<bool>,
    warm_requested_at: OnceLock<Instant>,
    /// Tells whether the template has begun to read its requests.
    has_begun: AtomicBool,
    /// Tells whether the template has forked once, or imported everything.
    has_been_useful: AtomicBool,
    /// The reason that the template gave for its end.
    reason: Mutex<Option<String>>,
    output: Mutex<Output>,
    gone: CancellationToken,
}

/// A fork that a caller waits for, or has stopped waiting for.
#[derive(Debug)]
struct PendingFork {
    since: Instant,
    sender: oneshot::Sender<std::result::Result<Child, String>>,
}

/// A child that has not been reaped yet.
struct RunningChild {
    state: Arc<ChildState>,
    output: JoinHandle<()>,
}

impl TemplateProcess {
    /// Starts a template, which answers its requests in order.
    pub(super) fn start(spec: &TemplateSpec, tasks: &TaskTracker, stop: &CancellationToken) -> Result<Arc<Self>> {
        let (near, far) = StdUnixStream::pair()?;
        near.set_nonblocking(true)?;
        let mut command = Command::new(&spec.python);
        command.args(["-c", BOOTSTRAP]);
        command.env("PYTHONUNBUFFERED", "1");
        command.envs(spec.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::from(OwnedFd::from(far))).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A process group of its own keeps Ctrl-C at the terminal away from the template; Signalbox alone handles it.
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn()?;
        // The command holds our copy of the template's end of the socket, which would keep the connection open after
        // the template's death.
        drop(command);

        let (requests, to_send) = mpsc::unbounded_channel();
        let process = Arc::new(Self {
            python: spec.python.clone(),
            pid: child.id().unwrap_or_default(),
            requests,
            next_id: AtomicU64::new(0),
            forks: Mutex::default(),
            warm: watch::Sender::new(false),
            warm_requested_at: OnceLock::new(),
            has_begun: AtomicBool::new(false),
            has_been_useful: AtomicBool::new(false),
            reason: Mutex::default(),
            output: Mutex::default(),
            gone: CancellationToken::new(),
        });
        // The bootstrap program reads the template's source before the template reads requests.
        let _ = process.requests.send(format!("{:08}{TEMPLATE}", TEMPLATE.len()));
        process.send(&TemplateRequest::Begin {
            libraries: &spec.libraries,
            exclude: &spec.exclude,
            data_limit: spec.data_limit,
            programs: BTreeMap::from(PROGRAMS),
        });
        let stream = UnixStream::from_std(near)?;
        let supervisor = Supervisor { process: Arc::clone(&process), child, children: HashMap::new() };
        tasks.spawn(supervisor.run(stream, to_send, stop.clone()));
        Ok(process)
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells whether the template has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Waits until the template has imported everything.
    pub(super) async fn warm(&self) -> std::result::Result<(), TemplateError> {
        if !*self.warm.borrow() && self.warm_requested_at.set(Instant::now()).is_ok() {
            self.send(&TemplateRequest::Warm {});
        }
        let mut warm = self.warm.subscribe();
        tokio::select! {
            biased;
            _ = warm.wait_for(|warm| *warm) => Ok(()),
            () = self.gone.cancelled() => Err(self.error()),
        }
    }

    /// Forks a child.
    pub(super) async fn fork(&self, task: &Task) -> std::result::Result<Child, TemplateError> {
        let (kind, arguments, environment, program) = match task {
            Task::Model => ("model", &[][..], &[][..], None),
            Task::Clerk => ("client", &[][..], &[][..], None),
            Task::Program { name, source } => (*name, &[][..], &[][..], Some(*source)),
            Task::Serve { arguments, environment } => ("serve", &**arguments, &**environment, None),
        };
        if kind != "serve" {
            self.warm().await?;
        }
        // The id tells the reports of concurrent forks apart.
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.forks.lock().insert(id, PendingFork { since: Instant::now(), sender });
        self.send(&TemplateRequest::Fork { id, kind, arguments, environment, program });
        tokio::select! {
            biased;
            answer = answer => match answer {
                Ok(Ok(child)) => Ok(child),
                Ok(Err(reason)) => {
                    Err(TemplateError::Failed { python: self.python.clone(), reason: format!("cannot fork: {reason}") })
                }
                Err(_) => Err(self.error()),
            },
            () = self.gone.cancelled() => Err(self.error()),
        }
    }

    /// Tells the template which modules a child had to import.
    pub(super) fn preload(&self, modules: &[String]) {
        self.send(&TemplateRequest::Preload { modules });
    }

    /// Tells whether the template ended after it had been of use, so that another one may do better.
    pub(super) fn has_just_ended(&self) -> bool {
        self.is_gone() && self.failure().is_none()
    }

    /// Returns why the template ended, unless it had been of use until then.
    pub(super) fn failure(&self) -> Option<TemplateError> {
        (!self.has_been_useful.load(Ordering::Relaxed) || self.reason.lock().is_some()).then(|| self.error())
    }

    /// Explains the end of the template.
    fn error(&self) -> TemplateError {
        let python = self.python.clone();
        // The template's own reason says more than its output.
        let reported = self.reason.lock().clone();
        let reason = reported.or_else(|| self.output.lock().reason().map(str::to_owned));
        let reason = reason.as_deref().map(truncated);
        let reason = match reason {
            Some(reason) if reason.ends_with("No module named 'mlflow'") => return TemplateError::NoMlflow { python },
            _ if !self.has_begun.load(Ordering::Relaxed) => match reason {
                // A program that is no Python at all may well repeat the text that it was to run.
                Some(reason) if reason.len() < MAX_REASON_BYTES => format!("is no Python that can be used: {reason}"),
                _ => "is no Python that can be used".to_owned(),
            },
            Some(reason) => format!("cannot hold models: {reason}"),
            None => "has ended without a word".to_owned(),
        };
        TemplateError::Failed { python, reason }
    }

    /// Answers the caller of a fork. A child that no caller waits for any longer is dropped here, and so killed.
    fn answer_fork(&self, id: u64, outcome: std::result::Result<Child, String>) {
        let fork = self.forks.lock().remove(&id);
        if let Some(fork) = fork {
            let _ = fork.sender.send(outcome);
        }
    }

    fn send(&self, request: &TemplateRequest<'_>) {
        // Strings, numbers and lists of them always serialise; a template that is gone no longer listens.
        if let Ok(line) = serde_json::to_string(request) {
            let _ = self.requests.send(line + "\n");
        }
    }
}

/// A supervisor, which owns the template's process and knows its children.
struct Supervisor {
    process: Arc<TemplateProcess>,
    child: TokioChild,
    children: HashMap<Pid, RunningChild>,
}

impl Supervisor {
    /// Supervises the template until it and all its children have ended.
    async fn run(mut self, stream: UnixStream, to_send: mpsc::UnboundedReceiver<String>, stop: CancellationToken) {
        self.read_output();
        let (reading, writing) = stream.into_split();
        let why = tokio::select! {
            biased;
            ended = self.read_reports(&reading) => ended.err(),
            () = stop.cancelled() => None,
            () = write_requests(to_send, writing) => None,
        };
        if let Some(error) = why {
            tracing::error!(python = self.process.python, %error, "the template is killed");
            let _ = self.child.start_kill();
        }
        // A template that was not killed sees its socket close, kills its children, and ends.
        drop(reading);
        self.finish(stop.is_cancelled()).await;
    }

    /// Handles reports until the template ends or is stuck.
    async fn read_reports(&mut self, stream: &OwnedReadHalf) -> Result<()> {
        let mut reports = ReportReader::default();
        let stuck = wait_until_stuck(Arc::clone(&self.process));
        tokio::pin!(stuck);
        loop {
            let report = tokio::select! {
                report = reports.next(stream.as_ref()) => report?,
                () = &mut stuck => {
                    let reason = "takes too long to import something; exclude what hangs (models.template)".to_owned();
                    *self.process.reason.lock() = Some(reason.clone());
                    return Err(Error::new(ErrorKind::TimedOut, reason));
                }
            };
            let Some(report) = report else { return Ok(()) };
            self.handle_report(report, &mut reports)?;
        }
    }

    /// Updates the state of the template, of a fork or of a child by one report.
    fn handle_report(&mut self, report: TemplateReport, reports: &mut ReportReader) -> Result<()> {
        let process = &self.process;
        let python = &*process.python;
        match report {
            TemplateReport::Begun {} => process.has_begun.store(true, Ordering::Relaxed),
            TemplateReport::Warmed { seconds } => {
                tracing::info!(python, pid = process.pid, seconds, "the template is ready to fork");
                process.has_been_useful.store(true, Ordering::Relaxed);
                process.warm.send_replace(true);
            }
            TemplateReport::Failed { reason } => *process.reason.lock() = Some(reason),
            TemplateReport::Forked { id, pid } => {
                let (socket, pipe) = (reports.take_descriptor()?, reports.take_descriptor()?);
                let pid = Pid::from_raw(pid).ok_or_else(|| Error::new(ErrorKind::InvalidData, "no process id"))?;
                let child = Child::adopt(pid, socket)?;
                let state = Arc::clone(child.state());
                let output = state.read_output(pipe)?;
                self.children.insert(pid, RunningChild { state, output });
                process.has_been_useful.store(true, Ordering::Relaxed);
                process.answer_fork(id, Ok(child));
            }
            TemplateReport::Refused { id, reason } => process.answer_fork(id, Err(reason)),
            TemplateReport::Exited { pid, status } => {
                if let Some(child) = Pid::from_raw(pid).and_then(|pid| self.children.remove(&pid)) {
                    tokio::spawn(child.record_exit(Exit::Seen(ExitStatus::from_raw(status))));
                }
            }
            TemplateReport::Noticed { warning: true, message } => tracing::warn!(python, "{message}"),
            TemplateReport::Noticed { warning: false, message } => tracing::debug!(python, "{message}"),
        }
        Ok(())
    }

    /// Waits for the end of the template, and leaves no child behind.
    async fn finish(mut self, wanted: bool) {
        let status = match timeout(END_LIMIT, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                let _ = self.child.start_kill();
                self.child.wait().await
            }
        };
        let process = &self.process;
        if !wanted {
            let reason = process.output.lock().reason().map(str::to_owned).unwrap_or_default();
            let status = status.map(|status| status.to_string()).unwrap_or_default();
            let (python, children) = (&*process.python, self.children.len());
            let reason = if process.has_begun.load(Ordering::Relaxed) { reason } else { process.error().to_string() };
            tracing::warn!(python, status, reason, children, "the template has ended; the next load starts it again");
        }
        // Every child is killed before any is waited for, so that they end at the same time.
        for child in self.children.values() {
            child.state.kill();
        }
        // Callers see the end once every child is being killed, so that none of them trusts another answer.
        process.gone.cancel();
        process.forks.lock().clear();
        // The template cannot reap its children any longer, so each exit is found out by looking.
        let give_up = Instant::now() + END_LIMIT;
        for child in self.children.into_values() {
            while Instant::now() < give_up && is_running(child.state.pid) {
                sleep(Duration::from_millis(5)).await;
            }
            child.record_exit(Exit::Unseen).await;
        }
    }

    fn read_output(&mut self) {
        if let Some(pipe) = self.child.stdout.take() {
            tokio::spawn(output::read(pipe, self.output_sink()));
        }
        if let Some(pipe) = self.child.stderr.take() {
            tokio::spawn(output::read(pipe, self.output_sink()));
        }
    }

    /// Returns a function that logs and records a line of the template's output.
    fn output_sink(&self) -> impl FnMut(&str) + Send + 'static {
        let process = Arc::clone(&self.process);
        move |line| {
            tracing::debug!(python = process.python, line = line.trim_end(), "the template");
            process.output.lock().push(line);
        }
    }
}

impl RunningChild {
    /// Records the exit of a child after all of its output has been read.
    async fn record_exit(self, exit: Exit) {
        let _ = timeout(Duration::from_secs(1), self.output).await;
        self.state.record_exit(exit);
    }
}

/// Writes requests to the template until it no longer listens.
async fn write_requests(mut lines: mpsc::UnboundedReceiver<String>, mut to: OwnedWriteHalf) {
    while let Some(line) = lines.recv().await {
        if to.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Returns once an import or a fork has taken so long that it counts as never ending.
async fn wait_until_stuck(process: Arc<TemplateProcess>) {
    loop {
        sleep(FORK_LIMIT / 10).await;
        let is_warm = *process.warm.borrow();
        let limit = if is_warm { FORK_LIMIT } else { WARM_LIMIT };
        let warming = process.warm_requested_at.get().copied().filter(|_| !is_warm);
        let forking = process.forks.lock().values().map(|fork| fork.since).min();
        if warming.into_iter().chain(forking).any(|since| since.elapsed() > limit) {
            return;
        }
    }
}

/// Tells whether a process still runs, and is no zombie. Where Signalbox is the first process of a container, an orphan
/// has become its own child, which is reaped here.
fn is_running(pid: Pid) -> bool {
    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    test_kill_process(pid).is_ok()
}
