//! Findings: what was tried, what was found, and the cure.

use std::fmt::{self, Display, Formatter};

/// The outcome of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// All is well.
    Ok,
    /// Signalbox starts, but something will not go as its owner wants.
    Warning,
    /// Signalbox does not start, or some requests cannot be answered.
    Failed,
}

/// The result of one check, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Outcome of the check.
    pub outcome: Outcome,
    /// Thing that was tried, in a word or two.
    pub what: String,
    /// Result, and what to do about it.
    pub found: String,
}

impl Finding {
    pub(super) fn ok(what: impl Into<String>, found: impl Display) -> Self {
        Self::new(Outcome::Ok, what, found)
    }

    pub(super) fn warning(what: impl Into<String>, found: impl Display) -> Self {
        Self::new(Outcome::Warning, what, found)
    }

    pub(super) fn failed(what: impl Into<String>, found: impl Display) -> Self {
        Self::new(Outcome::Failed, what, found)
    }

    fn new(outcome: Outcome, what: impl Into<String>, found: impl Display) -> Self {
        // What others say may have several lines; a finding has one.
        let found = found.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Self { outcome, what: what.into(), found }
    }
}

impl Outcome {
    /// Returns the word that a line begins with.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        }
    }
}

impl Display for Finding {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:<8} {}: {}", self.outcome.word(), self.what, self.found)
    }
}

/// Counts a thing in words.
pub(super) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_is_one_line() {
        let finding = Finding::failed("broker", "no\n  answer");
        assert_eq!(finding.to_string(), "FAILED   broker: no answer");
        assert_eq!(Finding::ok("port", "free").to_string(), "ok       port: free");
    }
}
