//! Whether a model answers each row as if it were alone. That is found out with its own requests before any answer depends
//! on it, and looked after from then on.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often payloads that differ must have been answered the same, apart and together.
const PROOFS: u32 = 3;

/// From this call on, one in so many is looked at.
const LOOK_EVERY: u64 = 256;

/// Forms that payloads are written in, and that models may treat otherwise.
const FORMS: usize = 8;

/// What is known of one version of a model.
#[derive(Debug, Default)]
pub struct Trust(Mutex<[Evidence; FORMS]>);

#[derive(Debug, Default)]
struct Evidence {
    /// How often payloads that were equal agreed, which proves it for payloads that are equal.
    equal: u32,
    different: u32,
    joined: u64,
    /// Why it is called singly.
    objection: Option<Objection>,
}

/// How payloads may be called together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joining {
    /// Not at all.
    No,
    /// Each alone first, and then together, to see that it comes to the same.
    Proven,
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
        let is_proven = evidence.different >= PROOFS || !differ && evidence.equal > 0;
        if !is_proven {
            return Joining::Proven;
        }
        evidence.joined += 1;
        match evidence.joined {
            joined if joined.is_power_of_two() || joined % LOOK_EVERY == 0 => Joining::Sampled,
            _ => Joining::Trusted,
        }
    }

    /// Whether answers to this form have had one entry for each row.
    pub fn is_by_row(&self, form: usize) -> bool {
        self.evidence().get(form).is_some_and(|evidence| evidence.objection != Some(Objection::NotByRow))
    }

    /// It came to the same.
    pub fn agreed(&self, form: usize, differ: bool) {
        if let Some(evidence) = self.evidence().get_mut(form) {
            let count = if differ { &mut evidence.different } else { &mut evidence.equal };
            *count = count.saturating_add(1);
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
            Self::NotAlone => "it answers a row otherwise when other rows are called with it",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_earned_by_form_and_by_what_was_seen() {
        let trust = Trust::default();
        assert_eq!(trust.joining(1, true), Joining::Proven);
        trust.agreed(1, false);
        assert_eq!(trust.joining(1, false), Joining::Sampled);
        for _ in 0..PROOFS {
            assert_eq!(trust.joining(1, true), Joining::Proven);
            trust.agreed(1, true);
        }
        let joinings: Vec<_> = (0..10_000).map(|_| trust.joining(1, true)).collect();
        let sampled = joinings.iter().filter(|joining| **joining == Joining::Sampled).count();
        assert!((40..60).contains(&sampled), "{sampled}");
        assert!(joinings.iter().all(|joining| matches!(joining, Joining::Sampled | Joining::Trusted)));
        assert_eq!(trust.joining(2, true), Joining::Proven);
        assert_eq!(trust.joining(FORMS, true), Joining::No);
    }

    #[test]
    fn trust_is_lost_once_and_for_all() {
        let trust = Trust::default();
        (0..10).for_each(|_| trust.agreed(0, true));
        assert_eq!(trust.objection(), None);
        assert!(trust.object(0, Objection::NotAlone));
        assert!(!trust.object(0, Objection::NotByRow));
        trust.agreed(0, true);
        assert_eq!((trust.joining(0, true), trust.joining(0, false)), (Joining::No, Joining::No));
        assert!(trust.objection().is_some());
        assert_eq!(trust.joining(1, true), Joining::Proven);
    }
}
