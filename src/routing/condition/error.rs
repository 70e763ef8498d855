//! What can be wrong with a condition: when it is loaded, and when it meets a request.

use thiserror::Error;

/// Why a condition is refused when it is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {message}{}", .hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub struct ConditionProblem {
    /// The line inside the condition's text, from 1.
    pub line: usize,
    /// The column in that line, in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// Why a condition gave no answer for a request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConditionError {
    /// The request does not fit the condition: a missing key, a wrong type. The message names what was asked for, and
    /// never holds a value of the request.
    #[error("{0}")]
    Failed(String),
    /// It took more work, depth or memory than a condition may take.
    #[error("{0}")]
    Exceeded(String),
}

/// What evaluating gives.
pub(super) type Result<T, E = ConditionError> = std::result::Result<T, E>;

impl ConditionProblem {
    /// A problem at a byte offset of `source`.
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
    /// Python's `TypeError`.
    pub(super) fn wrong_type(message: impl AsRef<str>) -> Self {
        Self::Failed(format!("TypeError: {}", message.as_ref()))
    }

    /// Python's `ValueError`.
    pub(super) fn wrong_value(message: impl AsRef<str>) -> Self {
        Self::Failed(format!("ValueError: {}", message.as_ref()))
    }

    /// A whole number left the 64 bits that a condition computes with; Python's would have grown.
    pub(super) fn overflow() -> Self {
        Self::Failed("OverflowError: a number is beyond 64 bits".to_owned())
    }

    /// The same error, with the place in the request in front.
    pub(super) fn with_place(self, place: &str) -> Self {
        match self {
            Self::Failed(message) => Self::Failed(format!("{place}: {message}")),
            Self::Exceeded(message) => Self::Exceeded(format!("{place}: {message}")),
        }
    }
}
