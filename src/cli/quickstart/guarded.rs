//! Guarded programs: they end when this process does, also when it is killed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// Script that runs the program; its standard input, a pipe from this process, is its lifeline.
const GUARD: &str = include_str!("guard.py");

/// Owns a running program. It is ended, together with all that it started, when this is dropped.
pub(super) struct GuardedProcess {
    guard: Child,
    lifeline: Option<ChildStdin>,
}

/// Builds the command of `python` with those arguments, under the guard. The environment's `bin` comes first on its
/// path, for programs that MLflow looks up there, and its requests to this machine go through no proxy.
pub(super) fn command<I: AsRef<OsStr>>(python: &Path, arguments: impl IntoIterator<Item = I>) -> Command {
    #[expect(clippy::disallowed_methods, reason = "a path need not be Unicode")]
    let before = std::env::var_os("PATH").unwrap_or_default();
    let directories = python.parent().map(Path::to_path_buf).into_iter().chain(std::env::split_paths(&before));
    let mut command = Command::new(python);
    command.args(["-I", "-c", GUARD]).arg(python).args(arguments).stdin(Stdio::piped());
    command.env("PATH", std::env::join_paths(directories).unwrap_or(before));
    command.env("PYTHONUNBUFFERED", "1").env("MLFLOW_DISABLE_TELEMETRY", "true").env("NO_PROXY", "127.0.0.1,localhost");
    command
}

impl GuardedProcess {
    /// Starts the program with its output in a file.
    pub(super) fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let log = File::create(log)?;
        Self::spawn(command.stdout(log.try_clone()?).stderr(log))
    }

    /// Takes the lifeline out of the guard: waiting for a child closes its standard input.
    fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut guard = command.spawn()?;
        let lifeline = guard.stdin.take();
        Ok(Self { guard, lifeline })
    }

    /// Waits until the program has ended by itself.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.guard.wait().await
    }

    /// Ends the program, and waits until it is gone, which the guard sees to within its grace.
    pub(super) async fn end(mut self) {
        self.lifeline = None;
        // There is nobody to tell if the wait itself fails.
        let _ = self.guard.wait().await;
    }
}

/// Runs a program to its end. Each line of its standard output is handed to `line`, and all its output goes to the
/// file.
pub(super) async fn run(command: &mut Command, log: &Path, mut line: impl FnMut(&str)) -> io::Result<ExitStatus> {
    let mut log = File::create(log)?;
    let mut guarded = GuardedProcess::spawn(command.stdout(Stdio::piped()).stderr(log.try_clone()?))?;
    if let Some(output) = guarded.guard.stdout.take() {
        let mut lines = BufReader::new(output).lines();
        while let Some(text) = lines.next_line().await? {
            writeln!(log, "{text}")?;
            line(text.trim());
        }
    }
    guarded.ended().await
}
