//! Runs a program beside the tests, which cannot outlive them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::{installed, wait_until};

/// Holds the program's life: its standard input ends with us.
const GUARD: &str = include_str!("../../src/cli/quickstart/guard.py");
/// Notes the program's own process id before it becomes the program.
const NOTE_PID: &str = r#"echo $$ >"$0.new" && mv "$0.new" "$0" && exec "$@""#;

/// Owns a running program: its id, and its output.
pub(crate) struct Process {
    guard: Child,
    pid: u32,
    log: PathBuf,
    log_before: usize,
}

impl Process {
    /// Starts a program whose output goes to `<directory>/<name>.log`, after what is there already.
    pub(crate) fn start<I: AsRef<OsStr>>(
        name: &str,
        directory: &Path,
        environment: &[(&str, OsString)],
        command: impl IntoIterator<Item = I>,
    ) -> Self {
        let log = directory.join(format!("{name}.log"));
        let pid_file = directory.join(format!("{name}.pid"));
        let _ = std::fs::remove_file(&pid_file);
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let log_before = usize::try_from(output.metadata().unwrap().len()).unwrap();
        let guard = Command::new(installed("SIGNALBOX_TEST_PYTHON", "mlflow/venv/bin/python"))
            .args(["-I", "-c", GUARD, "sh", "-c", NOTE_PID])
            .arg(&pid_file)
            .args(command)
            .envs(environment.iter().cloned())
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let pid = wait_until(&format!("the process id of {name}"), Duration::from_secs(30), || {
            std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok()
        });
        Self { guard, pid, log, log_before }
    }

    /// Returns the program's own process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the program's output over all its starts.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Returns the path of the output.
    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    /// Returns the exit status, if the program has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.guard.try_wait().unwrap()
    }

    /// Asks the program to end, and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.tell("terminate\n");
        wait_until("a program to end that was told to", Duration::from_secs(60), || self.ended())
    }

    /// Ends the program on the spot. Processes that it started are left to it.
    pub(crate) fn kill(&mut self) {
        self.tell("kill\n");
        self.guard.wait().unwrap();
    }

    /// Waits for something that `found` finds in what the program has written since this start. Panics with the log's
    /// end when the program ends before, or when `limit` is over.
    pub(crate) fn wait_for<T>(&mut self, what: &str, limit: Duration, found: impl Fn(&str) -> Option<T>) -> T {
        let outcome = wait_until(what, limit + Duration::from_secs(1), || {
            let ended = self.ended();
            let log = self.log();
            // A program may end right after the line that is waited for.
            found(&log[self.log_before..]).map(Ok).or_else(|| ended.map(|status| Err((status, log))))
        });
        outcome.unwrap_or_else(|(status, log)| panic!("no {what}: it ended with {status} and said:\n{log}"))
    }

    fn tell(&mut self, line: &str) {
        // A guard that has gone already has nothing left to obey for.
        if let Some(mut lifeline) = self.guard.stdin.as_ref() {
            let _ = lifeline.write_all(line.as_bytes());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.tell("kill all\n");
        self.guard.stdin = None;
        let _ = self.guard.wait();
    }
}
