//! Which letters a run sends back.

use serde::{Deserialize, Serialize};

use super::letter::{Letter, Verdict};

/// Which letters are to be sent back. What is empty leaves none out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// The codes of their faults, such as `MODEL_ERROR`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<String>,
    /// Their endpoints.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// Not those that became dead letters before, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// Not those that did then or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

/// Everything that decides whether a run sends a letter back. It says the same of the same letter for ever, so whoever
/// knows the choices of earlier runs, and how far they came, knows which letters were sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Choice {
    #[serde(flatten)]
    pub(super) filter: Filter,
    /// The topic that they have come from.
    pub(super) requests: String,
    /// The endpoint of a letter that names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) only_endpoint: Option<String>,
}

impl Choice {
    /// Whether it takes this letter.
    pub(super) fn takes(&self, letter: &Letter) -> bool {
        matches!(letter.verdict(self), Verdict::Chosen { .. })
    }

    /// Whether it takes every letter that the other one takes.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let all_of = |mine: &[String], others: &[String]| {
            mine.is_empty() || !others.is_empty() && others.iter().all(|wanted| mine.contains(wanted))
        };
        let (mine, others) = (&self.filter, &other.filter);
        self.requests == other.requests
            && self.only_endpoint == other.only_endpoint
            && all_of(&mine.codes, &others.codes)
            && all_of(&mine.endpoints, &others.endpoints)
            && mine.since.is_none_or(|mine| others.since.is_some_and(|others| mine <= others))
            && mine.until.is_none_or(|mine| others.until.is_some_and(|others| mine >= others))
    }
}
