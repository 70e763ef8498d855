//! The report of a file's problems, in the words and the form of a compiler: `gateway.yaml:7:13: path: message; help`.

use std::fmt::{self, Write as _};

/// A place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line number, from 1.
    pub line: usize,
    /// Column number, from 1, in characters.
    pub column: usize,
}

/// The severity of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but hardly means what was wanted.
    Warning,
}

/// One problem of a file. Its words never hold a value that came from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Severity of the problem.
    pub severity: Severity,
    /// Place of the problem; none when the file as a whole cannot be read.
    pub at: Option<Position>,
    /// Key of the problem, as in `model_endpoints[0].routes[1].alias`; empty for the file as a whole.
    pub path: String,
    /// The problem in words.
    pub message: String,
    /// Advice to the author.
    pub help: Option<String>,
}

/// All problems of one file, in the order of its lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Name of the file, as it was given.
    pub file: String,
    /// Problems in the order of the file.
    pub problems: Vec<Problem>,
}

impl Problem {
    /// Makes a problem that keeps the file from being used.
    pub(crate) fn error(at: impl Into<Option<Position>>, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, at: at.into(), path: path.into(), message: message.into(), help: None }
    }

    /// Adds advice to the problem.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Report {
    /// Makes a report, with the problems sorted by their place.
    pub(crate) fn new(file: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.at);
        Self { file: file.to_owned(), problems }
    }

    /// Counts the problems that keep the file from being used.
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.at {
            write!(formatter, "{line}:{column}: ")?;
        }
        if self.severity == Severity::Warning {
            formatter.write_str("warning: ")?;
        }
        if !self.path.is_empty() {
            write_in_line(formatter, &self.path)?;
            formatter.write_str(": ")?;
        }
        write_in_line(formatter, &self.message)?;
        match &self.help {
            Some(help) => {
                formatter.write_str("; ")?;
                write_in_line(formatter, help)
            }
            None => Ok(()),
        }
    }
}

/// Writes a text in one line: a problem is one line, whatever a value that it quotes has in it.
fn write_in_line(formatter: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|character| match character.is_control() {
        true => write!(formatter, "{}", character.escape_debug()),
        false => formatter.write_char(character),
    })
}

impl fmt::Display for Report {
    /// Writes a line for each problem, without a line end after the last.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            let gap = if problem.at.is_some() { "" } else { " " };
            write!(formatter, "{separator}{}:{gap}{problem}", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
