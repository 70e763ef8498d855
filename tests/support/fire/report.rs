//! Lists the findings of a checker.

use std::collections::BTreeMap;
use std::fmt;

/// Number of findings of each kind that are reported with their places.
const EXAMPLES: usize = 5;

/// Names the kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request without a reply.
    Lost,
    /// A reply that had been given before.
    Repeated,
    /// A reply to nothing that was sent.
    Foreign,
    /// A reply after that of a later request with the same key.
    Reordered,
    /// A reply from another endpoint or route than was due, in another partition, or with another's answer.
    Misrouted,
}

/// Holds the verdict on a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) sent: u64,
    /// Different requests that have a reply or a fault.
    pub(crate) answered: u64,
    /// The number of faults among the replies, by status.
    pub(crate) faults: BTreeMap<u16, u64>,
    pub(crate) dead_letters: u64,
    found: [Found; 5],
}

#[derive(Debug, Clone, Default)]
struct Found {
    count: u64,
    examples: Vec<String>,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Lost, Self::Repeated, Self::Foreign, Self::Reordered, Self::Misrouted];
}

impl Report {
    /// Counts the findings of this kind.
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.found[kind as usize].count
    }

    /// Formats the faults by status, such as `502:17 504:2`.
    pub(crate) fn faults_by_status(&self) -> String {
        let faults: Vec<_> = self.faults.iter().map(|(status, count)| format!("{status}:{count}")).collect();
        if faults.is_empty() { "0".to_owned() } else { faults.join(" ") }
    }

    pub(super) fn note(&mut self, kind: Kind, example: impl FnOnce() -> String) {
        let found = &mut self.found[kind as usize];
        found.count += 1;
        if found.examples.len() < EXAMPLES {
            found.examples.push(example());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, answered, faults) = (self.sent, self.answered, self.faults_by_status());
        writeln!(formatter, "{sent} sent, {answered} answered, faults {faults}, {} dead letters", self.dead_letters)?;
        for kind in Kind::ALL {
            let Found { count, examples } = &self.found[kind as usize];
            writeln!(formatter, "  {kind:?}: {count}")?;
            examples.iter().try_for_each(|example| writeln!(formatter, "    {example}"))?;
        }
        Ok(())
    }
}
