//! What is wrong with a file, in the words and the form of a compiler: `gateway.yaml:7:13: path: message; help`.

use std::fmt::{self, Write as _};

/// A place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// Whether the file can be used in spite of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but it hardly means what was wanted.
    Warning,
}

/// One thing that is wrong. Its words never hold a value that came from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the file can be used all the same.
    pub severity: Severity,
    /// Where; none when the file as a whole cannot be read.
    pub at: Option<Position>,
    /// The key, as in `model_endpoints[0].routes[1].alias`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// All that is wrong with one file, in the order of its lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The file's name, as it was given.
    pub file: String,
    /// In the order of the file.
    pub problems: Vec<Problem>,
}

impl Problem {
    /// A problem that keeps the file from being used.
    pub(crate) fn error(at: impl Into<Option<Position>>, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, at: at.into(), path: path.into(), message: message.into(), help: None }
    }

    /// The same problem with advice.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Report {
    /// Sorts the problems by their place.
    pub(crate) fn new(file: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.at);
        Self { file: file.to_owned(), problems }
    }

    /// How many of the problems keep the file from being used.
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

/// A problem is one line, whatever a value that it quotes has in it.
fn write_in_line(formatter: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|character| match character.is_control() {
        true => write!(formatter, "{}", character.escape_debug()),
        false => formatter.write_char(character),
    })
}

impl fmt::Display for Report {
    /// A line for each problem, without a line end after the last.
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
