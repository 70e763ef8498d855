//! The process that holds a loaded model: `mlflow models serve`, under a supervisor of ours.
//!
//! The supervisor (`host.py`) stops the server when its standard input closes. We hold the other end, so the server
//! ends with us however we end, even when we are killed.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::TcpSocket;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::output::Output;
use crate::invocation::{Concern, HttpBackend, in_words};
use crate::message::{Code, Fault, Stage};

/// The supervisor's text.
const SUPERVISOR: &str = include_str!("host.py");

/// How long the server has to end by itself before the supervisor forces it.
const GRACE: Duration = Duration::from_secs(5);

/// How long the supervisor has before it is killed as well. It forces the server, and leaves a second later.
const SUPERVISOR_GRACE: Duration = Duration::from_secs(8);

/// How often a server that is loading is asked whether it is ready.
const POLL: Duration = Duration::from_millis(100);

/// Longer lines of the server's output are taken for several.
const LONGEST_LINE: u64 = 8192;

/// How often another port is tried when something else has taken the one that was chosen.
const PORT_ATTEMPTS: u32 = 3;

/// What to start.
#[derive(Debug, Clone)]
pub(super) struct HostSpec {
    /// The model's URI as configured: what messages call it.
    pub shown: Arc<str>,
    /// What MLflow is told to serve: an immutable URI, or a directory.
    pub model: String,
    /// The interpreter.
    pub python: String,
    /// MLflow's tracking server.
    pub tracking_uri: String,
    /// Calls at once.
    pub concurrency: usize,
    /// When the server must be ready.
    pub deadline: Instant,
    /// How long that is in all; for messages.
    pub load_timeout: Duration,
}

/// A running server. Dropped, it is stopped.
#[derive(Debug)]
pub(super) struct Host {
    state: Arc<State>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// It answered once.
    ready: AtomicBool,
    /// It has ended, or is being stopped.
    gone: AtomicBool,
    output: Mutex<Output>,
}

/// Why a server did not come up.
enum StartError {
    /// It says that an address is taken, which another port may put right.
    PortTaken(Fault),
    Fault(Fault),
}

impl Host {
    /// Starts a server, and waits until it is ready. Its processes are watched by a task in `tasks`, and stopped when
    /// the host is dropped (so also when this future is), or when `closing` is cancelled.
    pub(super) async fn start(
        spec: &HostSpec,
        tasks: &TaskTracker,
        closing: &CancellationToken,
    ) -> Result<(Self, HttpBackend), Fault> {
        let mut attempts = 1;
        loop {
            match Self::attempt(spec, tasks, closing).await {
                Ok(started) => return Ok(started),
                Err(StartError::PortTaken(_)) if attempts < PORT_ATTEMPTS => attempts += 1,
                Err(StartError::PortTaken(fault) | StartError::Fault(fault)) => return Err(fault),
            }
        }
    }

    async fn attempt(
        spec: &HostSpec,
        tasks: &TaskTracker,
        closing: &CancellationToken,
    ) -> Result<(Self, HttpBackend), StartError> {
        let (port, _reservation) = reserve_port().map_err(|error| spec.fault(&format!("no port is free: {error}")))?;
        let backend = spec.backend(port)?;
        let mut child = spec.command(port).spawn().map_err(|error| spec.not_started(&error))?;
        let state = Arc::new(State::default());
        let host = Self { state: Arc::clone(&state), stop: closing.child_token() };
        let (ended, mut end) = watch::channel(None);
        let watcher = Watcher {
            stdin: child.stdin.take(),
            child,
            state,
            stop: host.stop.clone(),
            model: Arc::clone(&spec.shown),
        };
        tasks.spawn(watcher.run(ended));

        let ready = async {
            while !backend.ping().await {
                sleep(POLL).await;
            }
        };
        tokio::select! {
            biased;
            // An error means that the watcher is gone, and the server with it.
            status = end.wait_for(Option::is_some) => {
                let status = status.ok().and_then(|status| *status);
                return Err(host.ended_early(spec, status));
            }
            () = ready => {}
            () = tokio::time::sleep_until(spec.deadline) => {
                return Err(host.too_slow(spec).into());
            }
        }
        host.state.ready.store(true, Ordering::Relaxed);
        Ok((host, backend))
    }

    /// Whether it has ended, or is being stopped.
    pub(super) fn is_gone(&self) -> bool {
        self.state.gone.load(Ordering::Acquire)
    }

    /// Has it stopped, without waiting for that. Tells whether it was running until now.
    pub(super) fn stop(&self) -> bool {
        let was_running = !self.state.gone.swap(true, Ordering::AcqRel);
        self.stop.cancel();
        was_running
    }

    fn ended_early(&self, spec: &HostSpec, status: Option<ExitStatus>) -> StartError {
        let output = self.state.output();
        let ended = status.map_or("its server was stopped".to_owned(), |status| format!("its server ended ({status})"));
        let fault = spec.ended(&ended, output.reason());
        if output.port_is_taken() { StartError::PortTaken(fault) } else { StartError::Fault(fault) }
    }

    fn too_slow(&self, spec: &HostSpec) -> Fault {
        let output = self.state.output();
        let last =
            output.tail().last().map_or_else(String::new, |line| format!("; its server's last line: {}", short(line)));
        spec.fault(&format!("it was not ready within models.load_timeout ({}){last}", in_words(spec.load_timeout)))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    fn output(&self) -> std::sync::MutexGuard<'_, Output> {
        // Nothing panics while it is held.
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostSpec {
    fn command(&self, port: u16) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["-c", SUPERVISOR, &GRACE.as_secs().to_string()]);
        command.args(["models", "serve", "-m", &self.model, "-h", "127.0.0.1", "-p", &port.to_string()]);
        // How long a call may take is for the endpoint to say; an hour stands for no limit.
        command.args(["--env-manager", "local", "-t", "3600"]);
        command.env("MLFLOW_TRACKING_URI", &self.tracking_uri);
        // A line for each request would cost more than it tells, and connections are kept longer than we keep them.
        command.env("UVICORN_ACCESS_LOG", "false").env("UVICORN_TIMEOUT_KEEP_ALIVE", "90");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A Ctrl-C at the terminal is for us alone.
        command.process_group(0);
        command
    }

    fn backend(&self, port: u16) -> Result<HttpBackend, Fault> {
        let url = Url::parse(&format!("http://127.0.0.1:{port}/invocations"));
        let url = url.map_err(|error| self.fault(&error.to_string()))?;
        HttpBackend::new(url, Arc::clone(&self.shown), Concern::Ours, self.concurrency)
    }

    fn not_started(&self, error: &std::io::Error) -> Fault {
        let python = &self.python;
        match error.kind() {
            ErrorKind::NotFound => self.fault(&format!(
                "there is no Python at {python} (models.python); make one (`python3 -m venv .venv && .venv/bin/pip \
                 install mlflow`), or name one that has mlflow and the model's libraries"
            )),
            _ => self.fault(&format!("{python} (models.python) cannot be started: {error}")),
        }
    }

    /// The fault of a server that ended before it was ready, for this reason as far as it gave one.
    fn ended(&self, ended: &str, reason: Option<&str>) -> Fault {
        let python = &self.python;
        let Some(reason) = reason.map(short) else { return self.fault(ended) };
        if reason.contains("RESOURCE_DOES_NOT_EXIST") {
            let message = format!("{} cannot be loaded: {reason}", self.shown);
            return Fault::permanent(Code::ResourceDoesNotExist, Stage::Load, message);
        }
        if reason.ends_with("No module named mlflow") {
            return self.fault(&format!(
                "{python} (models.python) has no mlflow; install it (`{python} -m pip install mlflow`), or name an \
                 interpreter that has it and the model's libraries"
            ));
        }
        if reason.starts_with("ModuleNotFoundError") {
            return self.fault(&format!("{reason}; install what the model needs for {python} (models.python)"));
        }
        self.fault(&format!("{ended}: {reason}"))
    }

    fn fault(&self, why: &str) -> Fault {
        let message = format!("{} cannot be loaded: {why}", self.shown);
        Fault::passing(Code::TemporarilyUnavailable, Stage::Load, message)
    }
}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Owns the supervisor and the pipe it lives by.
struct Watcher {
    child: Child,
    stdin: Option<ChildStdin>,
    state: Arc<State>,
    stop: CancellationToken,
    model: Arc<str>,
}

impl Watcher {
    /// Runs until every process of the server has ended, then says how it ended.
    async fn run(mut self, ended: watch::Sender<Option<ExitStatus>>) {
        let stdout = self.child.stdout.take().map(|stdout| self.reader(stdout));
        let stderr = self.child.stderr.take().map(|stderr| self.reader(stderr));
        let readers = async {
            for reader in [stdout, stderr].into_iter().flatten() {
                // They end when the pipes do; a failure has nothing more to tell.
                let _ = reader.await;
            }
        };
        let by_itself = tokio::select! {
            status = self.child.wait() => Some(status),
            () = self.stop.cancelled() => None,
        };
        self.state.gone.store(true, Ordering::Release);
        let was_ready = self.state.ready.load(Ordering::Relaxed);
        let stopped = by_itself.is_none();
        let status = match by_itself {
            Some(status) => status,
            None => self.finish().await,
        };
        let _ = timeout(Duration::from_secs(1), readers).await;
        let model = &*self.model;
        if stopped {
            tracing::info!(model, "model's server stopped");
        } else if was_ready {
            let reason = self.state.output().reason().map(short).unwrap_or_default().to_owned();
            let status = status.as_ref().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(model, status, reason, "model's server ended by itself; the next request starts it again");
        }
        ended.send_replace(Some(status.unwrap_or_default()));
    }

    /// Has the supervisor stop the server, and waits for both.
    async fn finish(&mut self) -> std::io::Result<ExitStatus> {
        drop(self.stdin.take());
        if let Ok(status) = timeout(SUPERVISOR_GRACE, self.child.wait()).await {
            return status;
        }
        tracing::error!(model = &*self.model, "model's server does not stop; its supervisor is killed");
        self.child.kill().await?;
        self.child.wait().await
    }

    fn reader(&self, pipe: impl AsyncRead + Unpin + Send + 'static) -> tokio::task::JoinHandle<()> {
        let (state, model) = (Arc::clone(&self.state), Arc::clone(&self.model));
        tokio::spawn(async move {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while let Ok(1..) = (&mut pipe).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
                let text = String::from_utf8_lossy(&line);
                tracing::debug!(model = &*model, line = text.trim_end(), "model's server");
                state.output().push(&text);
                line.clear();
            }
        })
    }
}

/// A port of the loopback address that nothing listens on.
///
/// On Linux it also stays ours until the socket is dropped, and the server can listen on it all the same, since both
/// allow the address to be reused; elsewhere it may be gone when the server asks for it.
fn reserve_port() -> std::io::Result<(u16, Option<TcpSocket>)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let port = socket.local_addr()?.port();
    Ok((port, cfg!(target_os = "linux").then_some(socket)))
}

/// The start of a line that may be long.
fn short(line: &str) -> &str {
    &line[..line.floor_char_boundary(500)]
}
