//! Whether a model answers each row as if it were alone. That is found out with its own requests before any answer depends
//! on it, and looked after from then on.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many requests that differ must have been answered the same, apart and together. Many, since some libraries'
/// arithmetic depends on the number of rows in the last digit of some results.
const PROOFS: usize = 60;

/// How many of them are called both ways at once, at first and later.
const FEWEST: usize = 4;
const MOST: usize = 32;

/// So many calls are looked at then, and after that one in so many.
const LOOKS: u64 = 32;
const LOOK_EVERY: u64 = 64;

/// Forms that payloads are written in, and that models may treat otherwise.
const FORMS: usize = 8;

/// What is known of one version of a model.
#[derive(Debug, Default)]
pub struct Trust(Mutex<[Evidence; FORMS]>);

#[derive(Debug, Default)]
struct Evidence {
    /// Whether payloads that were equal agreed, which proves it for payloads that are equal.
    equal: bool,
    /// How many that were different did.
    different: usize,
    joined: u64,
    /// Why it is called singly.
    objection: Option<Objection>,
}

/// How payloads may be called together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joining {
    /// Not at all.
    No,
    /// So many of them: each alone first, and then together, to see that it comes to the same.
    Proven(usize),
    /// Together; and then one of them alone, to see that it still does.
    Sampled,
    /// Together.
    Trusted,
}

/// Why a model is called singly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objection {
    /// Its answer has not one entry for each row.
    NotByRow,
    /// A row's answer depends on the other rows.
    NotAlone,
}

impl Trust {
    /// How payloads of this form may be called together, for which the time has come. `differ` unless they are all equal.
    pub fn joining(&self, form: usize, differ: bool) -> Joining {
        let mut evidence = self.evidence();
        let Some(evidence) = evidence.get_mut(form).filter(|evidence| evidence.objection.is_none()) else {
            return Joining::No;
        };
        let is_proven = evidence.different >= PROOFS || !differ && evidence.equal;
        if !is_proven {
            return Joining::Proven(evidence.different.clamp(FEWEST, MOST));
        }
        evidence.joined += 1;
        match evidence.joined {
            joined if joined <= LOOKS || joined % LOOK_EVERY == 0 => Joining::Sampled,
            _ => Joining::Trusted,
        }
    }

    /// Whether answers to this form have had one entry for each row.
    pub fn is_by_row(&self, form: usize) -> bool {
        self.evidence().get(form).is_some_and(|evidence| evidence.objection != Some(Objection::NotByRow))
    }

    /// It came to the same for so many that were different.
    pub fn agreed(&self, form: usize, different: usize) {
        if let Some(evidence) = self.evidence().get_mut(form) {
            evidence.equal = true;
            if different > 1 {
                evidence.different = evidence.different.saturating_add(different);
            }
        }
    }

    /// It did not. Tells whether that is new.
    pub fn object(&self, form: usize, objection: Objection) -> bool {
        self.evidence().get_mut(form).is_some_and(|evidence| evidence.objection.replace(objection).is_none())
    }

    /// Why the model is called singly, if it is for payloads of any form.
    pub fn objection(&self) -> Option<Objection> {
        self.evidence().iter().find_map(|evidence| evidence.objection)
    }

    fn evidence(&self) -> MutexGuard<'_, [Evidence; FORMS]> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotByRow => "its answers have not one entry for each row",
            Self::NotAlone => {
                "it answers a row otherwise when other rows are called with it; if only in the last digits, `batch: {verify: \
                 false}` allows that"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_earned_by_form_and_by_what_was_seen() {
        let trust = Trust::default();
        assert_eq!(trust.joining(1, true), Joining::Proven(4));
        trust.agreed(1, 1);
        assert_eq!((trust.joining(1, false), trust.joining(1, true)), (Joining::Sampled, Joining::Proven(4)));
        let mut sizes = Vec::new();
        while let Joining::Proven(size) = trust.joining(1, true) {
            sizes.push(size);
            trust.agreed(1, size);
        }
        assert_eq!(sizes, [4, 4, 8, 16, 32]);
        let joinings: Vec<_> = (0..10_000).map(|_| trust.joining(1, true)).collect();
        let sampled = joinings.iter().filter(|joining| **joining == Joining::Sampled).count();
        assert!((150..250).contains(&sampled), "{sampled}");
        assert!(joinings.iter().all(|joining| matches!(joining, Joining::Sampled | Joining::Trusted)));
        assert_eq!(trust.joining(2, true), Joining::Proven(4));
        assert_eq!(trust.joining(FORMS, true), Joining::No);
    }

    #[test]
    fn trust_is_lost_once_and_for_all() {
        let trust = Trust::default();
        trust.agreed(0, 100);
        assert_eq!(trust.objection(), None);
        assert!(trust.object(0, Objection::NotAlone));
        assert!(!trust.object(0, Objection::NotByRow));
        trust.agreed(0, 100);
        assert_eq!((trust.joining(0, true), trust.joining(0, false)), (Joining::No, Joining::No));
        assert!(trust.objection().is_some());
        assert_eq!(trust.joining(1, true), Joining::Proven(4));
    }
}
