//! Guarded programs: they end when this process does, also when it is killed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Script that runs the program; its standard input, a pipe from this process, is its lifeline.
const GUARD: &str = include_str!("guard.py");

/// Owns a running program, which is ended together with all that it started when this is dropped.
pub(super) struct GuardedProcess(Child);

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
        Ok(Self(command.stdout(log.try_clone()?).stderr(log).spawn()?))
    }

    /// Returns the exit status, if the program has ended.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }
}

/// Runs a program to its end. Each line of its standard output is handed to `line`, and all its output goes to the
/// file.
pub(super) fn run(command: &mut Command, log: &Path, mut line: impl FnMut(&str)) -> io::Result<ExitStatus> {
    let mut log = File::create(log)?;
    let mut guarded = GuardedProcess(command.stdout(Stdio::piped()).stderr(log.try_clone()?).spawn()?);
    let output = guarded.0.stdout.take().map(BufReader::new);
    for text in output.into_iter().flat_map(BufRead::lines) {
        let text = text?;
        writeln!(log, "{text}")?;
        line(text.trim());
    }
    guarded.0.wait()
}

impl Drop for GuardedProcess {
    fn drop(&mut self) {
        self.0.stdin = None;
        // The program ends within the guard's grace; there is nobody to tell if the wait itself fails.
        let _ = self.0.wait();
    }
}
