//! The errors of a condition: when it is loaded, and when it meets a request.

use thiserror::Error;

/// The reason for which a condition is refused when it is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {message}{}", .hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub struct ConditionProblem {
    /// Line inside the condition's text, from 1.
    pub line: usize,
    /// Column in that line, in characters, from 1.
    pub column: usize,
    /// Error in words.
    pub message: String,
    /// Text to write instead.
    pub hint: Option<String>,
}

/// The reason for which a condition gave no answer for a request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConditionError {
    /// The request does not fit the condition: a missing key, a wrong type. The message names the part of the request,
    /// and never holds a value of it.
    #[error("{0}")]
    Failed(String),
    /// The condition took more work, depth or memory than it may.
    #[error("{0}")]
    Exceeded(String),
    /// Condition cannot be evaluated now; later that may be possible.
    #[error("{0}")]
    Unavailable(String),
}

/// Longest message that was not written here, in characters.
const LONGEST: usize = 200;

/// The result of an evaluation.
pub(super) type Result<T, E = ConditionError> = std::result::Result<T, E>;

impl ConditionProblem {
    /// Makes a problem at a byte offset of `source`.
    pub(super) fn at(source: &str, offset: usize, message: impl Into<String>, hint: Option<&str>) -> Self {
        let before = source.char_indices().take_while(|(at, _)| *at < offset).map(|(_, character)| character);
        let (mut line, mut column) = (1, 1);
        for character in before {
            (line, column) = if character == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        Self { line, column, message: message.into(), hint: hint.map(str::to_owned) }
    }
}

impl ConditionError {
    /// Makes the error of a condition that does not fit the request, such as `KeyError: 'a'`. Only the beginning of the
    /// first line of a long message is kept.
    pub fn failed(message: &str) -> Self {
        Self::Failed(shortened(message))
    }

    /// Makes the error of a condition that took more than it may. Only the beginning of the first line of a long message
    /// is kept.
    pub fn exceeded(message: &str) -> Self {
        Self::Exceeded(shortened(message))
    }

    /// Makes Python's `TypeError`.
    pub(super) fn wrong_type(message: impl AsRef<str>) -> Self {
        Self::Failed(format!("TypeError: {}", message.as_ref()))
    }

    /// Makes Python's `ValueError`.
    pub(super) fn wrong_value(message: impl AsRef<str>) -> Self {
        Self::Failed(format!("ValueError: {}", message.as_ref()))
    }

    /// Makes the error of a whole number that left the 64 bits in which a condition computes; Python's would have
    /// grown.
    pub(super) fn overflow() -> Self {
        Self::Failed("OverflowError: a number is beyond 64 bits".to_owned())
    }

    /// Puts the place in the request in front of the error.
    pub(super) fn with_place(self, place: &str) -> Self {
        match self {
            Self::Failed(message) => Self::Failed(format!("{place}: {message}")),
            Self::Exceeded(message) => Self::Exceeded(format!("{place}: {message}")),
            Self::Unavailable(message) => Self::Unavailable(format!("{place}: {message}")),
        }
    }
}

fn shortened(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line.to_owned(),
    }
}
