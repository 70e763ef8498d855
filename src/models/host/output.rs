//! Keeps the end of what a process has printed, as far as it explains why the process has ended.

use std::collections::VecDeque;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use crate::invocation::exception_of;

/// Number of lines that are kept.
const MAX_LINES: usize = 20;

/// Bytes of a line that messages show; the rest is cut.
const MAX_SHOWN_BYTES: usize = 300;

/// Bytes of the longest line; a longer one counts as several lines.
const MAX_LINE_BYTES: u64 = 8192;

/// The end of what a process has printed.
#[derive(Debug, Default)]
pub(crate) struct Output {
    lines: VecDeque<String>,
    exception: Option<String>,
    /// Tells whether another process listens on the server's port.
    pub(super) port_is_taken: bool,
    /// Tells whether `mlflow models serve` has finished making an environment.
    pub(super) environment_is_ready: bool,
    /// Tells whether the last line was a warning of Python's: an indented line below it is the code that the warning
    /// is about.
    follows_warning: bool,
}

/// Reads a pipe until it ends, and passes on each line.
pub(super) async fn read(pipe: impl AsyncRead + Unpin, mut push: impl FnMut(&str)) {
    let mut pipe = BufReader::with_capacity(64 << 10, pipe);
    let mut line = Vec::new();
    // A failed read ends the loop as the end of the pipe does: nothing more is to be had.
    while let Ok(1..) = (&mut pipe).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
        push(&String::from_utf8_lossy(&line));
        line.clear();
    }
}

impl Output {
    /// Records one more line.
    pub(super) fn push(&mut self, line: &str) {
        let line = line.trim_end();
        self.port_is_taken |= line.contains("address already in use");
        // MLflow prints this about every command that it runs in an environment; by then the environment exists.
        self.environment_is_ready |= line.contains("=== Running command");
        // `mlflow models serve` ends with an exception of its own about the command that it has run, which explains
        // nothing.
        if exception_of(line).is_some_and(|exception| !exception.starts_with("Exception: Command '[")) {
            self.exception = Some(line.to_owned());
        }
        let about_warning = is_warning(line) || (self.follows_warning && line.starts_with(' '));
        self.follows_warning = is_warning(line);
        if about_warning || line.trim().is_empty() {
            return;
        }
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }

    /// Returns the line that says most about a failure: the last exception, else the last line.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.exception.as_deref().map(truncated).or_else(|| self.last())
    }

    /// Returns the last line that is no warning.
    pub(crate) fn last(&self) -> Option<&str> {
        self.lines.back().map(|line| truncated(line.trim()))
    }

    /// Returns the last lines.
    #[cfg(test)]
    pub(crate) fn tail(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

/// Cuts a line that may be long.
pub(super) fn truncated(line: &str) -> &str {
    &line[..line.floor_char_boundary(MAX_SHOWN_BYTES)]
}

/// Tells whether a line is a warning in Python's format: `/a/file.py:7: UserWarning: …`.
fn is_warning(line: &str) -> bool {
    line.split(": ").nth(1).is_some_and(|kind| kind.ends_with("Warning") && !kind.contains(' '))
        && line.split(": ").next().is_some_and(|place| place.contains(':') && !place.contains(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str) -> Output {
        let mut output = Output::default();
        text.lines().for_each(|line| output.push(line));
        output
    }

    #[test]
    fn reason_is_the_models_exception_when_mlflow_raises_another() {
        let output = output(
            "INFO mlflow.pyfunc.backend: === Running command\nTraceback (most recent call last):\n  File \"x\"\n\
             ModuleNotFoundError: No module named 'torch'\nTraceback (most recent call last):\n  File \"cli.py\"\n\
             Exception: Command '['bash', '-c', 'exec uvicorn']' returned non zero return code. Return code = 1\n",
        );
        assert_eq!(output.reason(), Some("ModuleNotFoundError: No module named 'torch'"));
        assert!(!output.port_is_taken && output.environment_is_ready);
    }

    #[test]
    fn reason_is_the_last_line_when_there_is_no_exception() {
        assert_eq!(
            output("a\n/usr/bin/python: No module named mlflow\n\n").reason(),
            Some("/usr/bin/python: No module named mlflow")
        );
        assert_eq!(output("").reason(), None);
    }

    #[test]
    fn reason_skips_warnings_and_cuts_lines_when_they_are_long() {
        let follows_warning = "loading\n/a/mlflow/x.py:12: UserWarning: this and that\n  color_warning(\n\
                      <stdin>:1: FutureWarning: gone soon\n  warnings.warn(\n";
        assert_eq!(output(follows_warning).reason(), Some("loading"));
        assert_eq!(
            output(&format!("{follows_warning}OSError: no such file: /x\n")).reason(),
            Some("OSError: no such file: /x")
        );
        assert_eq!(output(&format!("{follows_warning}  indented\n")).last(), Some("indented"));
        assert_eq!(output(&"é".repeat(400)).reason().map(str::len), Some(MAX_SHOWN_BYTES));
    }

    #[test]
    fn output_keeps_the_last_lines_when_there_are_many() {
        let output = output(&(0..100).map(|line| format!("{line}\n")).collect::<String>());
        assert_eq!(output.tail().collect::<Vec<_>>().len(), MAX_LINES);
        assert_eq!(output.reason(), Some("99"));
    }

    #[test]
    fn output_reports_a_taken_port_when_binding_fails() {
        let line =
            "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 1): address already in use";
        assert!(output(line).port_is_taken);
    }
}
