//! Starts `mlflow models serve`, for models that need an environment of their own.

use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::child::{Child, Exit};
use super::environment::Environment;
use super::load::not_ready;
use super::output_log::OutputLog;
use super::template::{Task, Template, TemplateError};
use crate::invocation::{HttpBackend, ServerOwner};
use crate::message::Fault;
use crate::models::faults::{cannot_load, not_found};

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

/// The reason why a server did not come up.
struct StartError {
    fault: Fault,
    /// Tells whether the server found its address taken, which another port may put right.
    port_is_taken: bool,
}

impl ServerSpec {
    /// Starts a server, and waits until it is ready. Dropping the server or this future kills the server's processes.
    pub(crate) async fn start(&self, template: &Template) -> Result<(Child, HttpBackend), Fault> {
        let mut environment = self.environment().await?;
        let mut attempts = 1;
        loop {
            match self.attempt(template, environment.as_mut()).await {
                Err(error) if error.port_is_taken && attempts < PORT_ATTEMPTS => attempts += 1,
                outcome => return outcome.map_err(|error| error.fault),
            }
        }
    }

    /// Starts a server on a free port, once.
    async fn attempt(
        &self,
        template: &Template,
        mut environment: Option<&mut Environment>,
    ) -> Result<(Child, HttpBackend), StartError> {
        let (port, _reservation) = reserve_port().map_err(|error| self.fault(format!("no port is free: {error}")))?;
        let backend = self.backend(port)?;
        let task = self.task(port, environment.as_deref());
        let forked = timeout_at(self.deadline, template.fork(&task)).await;
        let forked = forked.map_err(|_| self.not_ready("; the process that starts it was busy"))?;
        let server = forked.map_err(|error| self.fault(error))?;
        server.log_output_to(OutputLog::new(Arc::clone(&self.shown)));
        // The environment is marked as soon as it is complete, since the server may still fail to start in it.
        let ready = async {
            while !backend.ping().await {
                if server.output().environment_is_ready
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
            exit = server.gone() => self.ended_early(&server, template.python(), exit),
            () = ready => return Ok((server, backend)),
            () = sleep_until(self.deadline) => {
                let output = server.output();
                let last = output.last().map_or_else(String::new, |line| format!("; its server's last line: {line}"));
                self.not_ready(&last).into()
            }
        };
        // The server's memory is free only once it has ended, and until then it may still work on its environment.
        server.end().await;
        Err(error)
    }

    /// Opens the directory in which MLflow makes the environment, unless the interpreter's own is used.
    async fn environment(&self) -> Result<Option<Environment>, Fault> {
        let Some(directory) = self.environments.as_deref().filter(|_| self.env_manager != "local") else {
            return Ok(None);
        };
        let opened = Environment::open(directory, self.env_manager, Path::new(&self.model));
        match timeout_at(self.deadline, opened).await {
            Ok(Ok(environment)) => Ok(Some(environment)),
            Ok(Err(error)) => Err(self.fault(format!(
                "its environment cannot be kept in {}: {error}; let Signalbox write there, or set \
                 models.cache.directory to another directory",
                directory.display()
            ))),
            Err(_) => Err(self.not_ready("; its environment was still being made for another model")),
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
        let url = url.map_err(|error| self.fault(error))?;
        HttpBackend::new(url, Arc::clone(&self.shown), ServerOwner::Signalbox, self.concurrency)
    }

    /// Explains the end of a server that had not become ready.
    fn ended_early(&self, server: &Child, python: &str, exit: Exit) -> StartError {
        let output = server.output();
        let fault = match output.reason() {
            Some(reason) if reason.contains("RESOURCE_DOES_NOT_EXIST") => {
                not_found(format!("{} cannot be loaded: {reason}", self.shown))
            }
            Some(reason) if reason.ends_with("No module named mlflow") => {
                self.fault(TemplateError::NoMlflow { python: python.to_owned() })
            }
            Some(reason) if reason.starts_with("ModuleNotFoundError") => self.fault(format!(
                "{reason}; install what the model needs for {python} (models.python, or the route's `python`)"
            )),
            Some(reason) => self.fault(format!("its server ended ({exit}): {reason}")),
            None => self.fault(format!("its server ended ({exit})")),
        };
        StartError { fault, port_is_taken: output.port_is_taken }
    }

    fn not_ready(&self, last: &str) -> Fault {
        self.fault(not_ready(self.load_timeout, last))
    }

    fn fault(&self, why: impl Display) -> Fault {
        cannot_load(&self.shown, why)
    }
}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> Self {
        Self { fault, port_is_taken: false }
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
