//! Starts `mlflow models serve`, for models that need an environment of their own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::child::{Child, Exit};
use super::environment::Environment;
use super::output_log::OutputLog;
use super::template::{Task, Template};
use crate::invocation::{HttpBackend, ServerOwner, in_words};
use crate::message::{Code, Fault, Stage};

/// Interval between two pings of a server that is loading.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Number of ports that are tried when another process takes the chosen one.
const PORT_ATTEMPTS: u32 = 3;

/// An order to start a server.
#[derive(Debug, Clone)]
pub(crate) struct ServerSpec {
    /// The model's name in messages, such as `sentiment/3`.
    pub(crate) shown: Arc<str>,
    /// The model that MLflow serves: an immutable URI, or a directory.
    pub(crate) model: String,
    /// The source of the model's libraries: `local`, `virtualenv`, `uv` or `conda`.
    pub(crate) env_manager: &'static str,
    /// The directory of the environments that MLflow makes; MLflow's own default if `None`.
    pub(crate) environments: Option<PathBuf>,
    /// The number of calls at once.
    pub(crate) concurrency: usize,
    /// The moment at which the server must be ready.
    pub(crate) deadline: Instant,
    /// The time to load in all; for messages.
    pub(crate) load_timeout: Duration,
}

/// A running server. Dropping it kills the server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
}

/// The reason why a server did not come up.
enum StartError {
    /// The server found its address taken, which another port may put right.
    PortTaken(Fault),
    Fault(Fault),
}

impl Server {
    /// Starts a server, and waits until it is ready. Dropping the server or this future kills the server's processes.
    pub(crate) async fn start(template: &Template, spec: &ServerSpec) -> Result<(Self, HttpBackend), Fault> {
        let mut environment = spec.environment().await?;
        let mut attempts = 1;
        loop {
            match Self::attempt(template, spec, environment.as_mut()).await {
                Ok(started) => return Ok(started),
                Err(StartError::PortTaken(_)) if attempts < PORT_ATTEMPTS => attempts += 1,
                Err(StartError::PortTaken(fault) | StartError::Fault(fault)) => return Err(fault),
            }
        }
    }

    /// Starts a server on a free port, once.
    async fn attempt(
        template: &Template,
        spec: &ServerSpec,
        mut environment: Option<&mut Environment>,
    ) -> Result<(Self, HttpBackend), StartError> {
        let (port, _reservation) = reserve_port().map_err(|error| spec.fault(&format!("no port is free: {error}")))?;
        let backend = spec.backend(port)?;
        let task = spec.task(port, environment.as_deref());
        let forked = timeout_at(spec.deadline, template.fork(&task)).await;
        let forked = forked.map_err(|_| spec.fault(&spec.not_ready("the process that starts it was busy")))?;
        let server = Self { child: forked.map_err(|error| error.fault(&spec.shown))? };
        server.child.log_output_to(OutputLog::new(Arc::clone(&spec.shown)));
        // The environment is marked as soon as it is complete, since the server may still fail to start in it.
        let ready = async {
            while !backend.ping().await {
                if server.child.output().environment_is_ready()
                    && let Some(environment) = environment.take()
                {
                    environment.finish();
                }
                sleep(POLL_INTERVAL).await;
            }
            if let Some(environment) = environment {
                environment.finish();
            }
        };
        let error = tokio::select! {
            biased;
            exit = server.gone() => server.ended_early(template.python(), spec, exit),
            () = ready => return Ok((server, backend)),
            () = sleep_until(spec.deadline) => server.too_slow(spec).into(),
        };
        // The server's memory is free only once it has ended, and until then it may still work on its environment.
        server.child.end().await;
        Err(error)
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Tells whether the server has ended, or is being killed.
    pub(crate) fn is_gone(&self) -> bool {
        self.child.is_gone()
    }

    /// Waits until the server has been reaped.
    pub(crate) fn gone(&self) -> impl Future<Output = Exit> + Send + use<> {
        self.child.gone()
    }

    /// Kills the server without waiting, and tells whether it was running until now.
    pub(crate) fn stop(&self) -> bool {
        let was_running = !self.is_gone();
        self.child.kill();
        was_running
    }

    /// Explains the end of a server that had not become ready.
    fn ended_early(&self, python: &str, spec: &ServerSpec, exit: Exit) -> StartError {
        let output = self.child.output();
        let fault = spec.ended_fault(python, &format!("its server ended ({exit})"), output.reason());
        if output.port_is_taken() { StartError::PortTaken(fault) } else { StartError::Fault(fault) }
    }

    /// Makes the fault of a server that missed its deadline.
    fn too_slow(&self, spec: &ServerSpec) -> Fault {
        let output = self.child.output();
        let last = output.last().map_or_else(String::new, |line| format!("its server's last line: {line}"));
        spec.fault(&spec.not_ready(&last))
    }
}

impl ServerSpec {
    /// Opens the directory in which MLflow makes the environment, unless the interpreter's own is used.
    async fn environment(&self) -> Result<Option<Environment>, Fault> {
        let Some(directory) = self.environments.as_deref().filter(|_| self.env_manager != "local") else {
            return Ok(None);
        };
        let opened = Environment::open(directory, self.env_manager, Path::new(&self.model));
        match timeout_at(self.deadline, opened).await {
            Ok(Ok(environment)) => Ok(Some(environment)),
            Ok(Err(error)) => Err(self.fault(&format!(
                "its environment cannot be kept in {}: {error}; let Signalbox write there, or set \
                 models.cache.directory to another directory",
                directory.display()
            ))),
            Err(_) => Err(self.fault(&self.not_ready("its environment was still being made for another model"))),
        }
    }

    /// Makes the command line and the environment of the server.
    fn task(&self, port: u16, place: Option<&Environment>) -> Task {
        let port = port.to_string();
        let arguments = ["models", "serve", "-m", &self.model, "-h", "127.0.0.1", "-p", &port];
        // The endpoint limits the time of a call; an hour (`-t`) stands for no limit.
        let more = ["--env-manager", self.env_manager, "-t", "3600"];
        // An access log would cost more than it tells, and the server must keep connections longer than our client
        // does.
        let environment = [("UVICORN_ACCESS_LOG", "false"), ("UVICORN_TIMEOUT_KEEP_ALIVE", "90")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Task::Serve {
            arguments: arguments.into_iter().chain(more).map(str::to_owned).collect(),
            environment: environment.into_iter().chain(place.into_iter().flat_map(Environment::variables)).collect(),
        }
    }

    fn backend(&self, port: u16) -> Result<HttpBackend, Fault> {
        let url = Url::parse(&format!("http://127.0.0.1:{port}/invocations"));
        let url = url.map_err(|error| self.fault(&error.to_string()))?;
        HttpBackend::new(url, Arc::clone(&self.shown), ServerOwner::Signalbox, self.concurrency)
    }

    /// Makes the fault of a server that ended before it was ready, from the reason that it gave, if any.
    fn ended_fault(&self, python: &str, ended: &str, reason: Option<&str>) -> Fault {
        let Some(reason) = reason else { return self.fault(ended) };
        if reason.contains("RESOURCE_DOES_NOT_EXIST") {
            let message = format!("{} cannot be loaded: {reason}", self.shown);
            return Fault::permanent(Code::ResourceDoesNotExist, Stage::Load, message);
        }
        if reason.ends_with("No module named mlflow") {
            return self.fault(&format!(
                "{python} (models.python, or the route's `python`) has no mlflow; install it (`{python} -m pip install mlflow`), or name an \
                 interpreter that has it and the model's libraries"
            ));
        }
        if reason.starts_with("ModuleNotFoundError") {
            return self.fault(&format!(
                "{reason}; install what the model needs for {python} (models.python, or the route's `python`)"
            ));
        }
        self.fault(&format!("{ended}: {reason}"))
    }

    fn not_ready(&self, last: &str) -> String {
        let last = if last.is_empty() { String::new() } else { format!("; {last}") };
        format!("it was not ready within models.load_timeout ({}){last}", in_words(self.load_timeout))
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

/// Finds a port of the loopback address that nothing listens on.
///
/// On Linux the port also stays ours until the socket is dropped, and the server can listen on it all the same, since
/// both allow the address to be reused; elsewhere the port may be gone when the server asks for it.
fn reserve_port() -> std::io::Result<(u16, Option<TcpSocket>)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let port = socket.local_addr()?.port();
    Ok((port, cfg!(target_os = "linux").then_some(socket)))
}
