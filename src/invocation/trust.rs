//! Whether a model answers each row as if it were alone, and who says so.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::Serialize;

use super::body::{Key, Payload};
use super::looks::Looks;

/// The one who says that a model answers each row as if it were alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Voucher {
    /// The model itself: it is made of nothing else.
    Model,
    /// The tag `signalbox.batch: rows` of its version, or of the metadata that it was logged with.
    Tag,
    /// `batch:` of a route.
    Route,
}

/// The outcome of a host's look at what its model is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Finding {
    /// Nobody has looked.
    #[default]
    Unknown,
    /// All of it is known to answer each row by itself.
    Independent,
    /// Something of it is not; what.
    Doubtful(Arc<str>),
    /// Something of it is not, and the metadata that it was logged with says that it does so all the same.
    Declared,
}

/// The ways to call a model for several requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joining {
    /// Not at all.
    No,
    /// Together: what they are answered follows from what the model is.
    Known,
    /// Together, since somebody says so; and some of them alone as well, to see that it is so.
    Watched,
    /// Together, since somebody says so who does not want it looked at.
    Unwatched,
}

/// The reason why a model is called singly though somebody vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objection {
    /// Its answer has not one entry for each row.
    NotByRow,
    /// A row's answer depends on the other rows.
    NotAlone,
}

/// The knowledge about one version of a model.
#[derive(Debug, Default)]
pub struct Trust {
    finding: OnceLock<Finding>,
    is_tagged: AtomicBool,
    /// The forms of payloads (see [`Payload::form`]) that there is an objection to, one bit each.
    not_by_row: AtomicU8,
    not_alone: AtomicU8,
    looks: Mutex<Looks>,
}

impl Trust {
    /// Takes note of what a host has found out. A version is what it is: the first who looks has said it.
    pub fn find(&self, finding: &Finding) {
        if *finding != Finding::Unknown {
            let _ = self.finding.set(finding.clone());
        }
    }

    /// Takes note of whether its version has the tag.
    pub fn tag(&self, is_tagged: bool) {
        self.is_tagged.store(is_tagged, Ordering::Relaxed);
    }

    /// Whether it is known that nobody vouches for it; `by_route` when the route does that asks.
    pub fn is_called_singly(&self, by_route: bool) -> bool {
        self.finding.get().is_some() && self.voucher(by_route).is_none()
    }

    /// How payloads of this form may be called together for a route, which vouches for the model itself or does not, and
    /// wants it looked at or not.
    pub fn joining(&self, form: usize, by_route: bool, verify: bool) -> Joining {
        let objects = |forms: &AtomicU8| forms.load(Ordering::Relaxed) & bit(form) != 0;
        match self.voucher(by_route) {
            None => Joining::No,
            Some(_) if objects(&self.not_by_row) => Joining::No,
            Some(Voucher::Model) => Joining::Known,
            Some(_) if !verify => Joining::Unwatched,
            Some(_) if objects(&self.not_alone) => Joining::No,
            Some(_) => Joining::Watched,
        }
    }

    /// Who vouches for it.
    fn voucher(&self, by_route: bool) -> Option<Voucher> {
        match self.finding.get() {
            Some(Finding::Independent) => Some(Voucher::Model),
            _ if by_route => Some(Voucher::Route),
            Some(Finding::Declared) => Some(Voucher::Tag),
            _ if self.is_tagged.load(Ordering::Relaxed) => Some(Voucher::Tag),
            _ => None,
        }
    }

    /// Which of these payloads, all of this key and called together, are to be called alone as well.
    pub fn looks(&self, key: &Key, payloads: &[&Payload]) -> Vec<usize> {
        // Nothing panics while it is held.
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).choose(key, payloads)
    }

    /// Takes note that it is not so for payloads of a form. Tells whether that is new.
    pub fn object(&self, form: usize, objection: Objection) -> bool {
        let forms = match objection {
            Objection::NotByRow => &self.not_by_row,
            Objection::NotAlone => &self.not_alone,
        };
        forms.fetch_or(bit(form), Ordering::Relaxed) & bit(form) == 0
    }

    /// Who says that its requests go together, or else why they do not; neither where it is not known yet. `by_route` when
    /// one of its routes says so.
    pub fn report(&self, by_route: bool) -> (Option<Voucher>, Option<String>) {
        let objects = |forms: &AtomicU8| forms.load(Ordering::Relaxed) != 0;
        match (self.voucher(by_route), self.finding.get()) {
            (Some(_), _) if objects(&self.not_by_row) => (None, Some(Objection::NotByRow.to_string())),
            (Some(_), _) if objects(&self.not_alone) => (None, Some(Objection::NotAlone.to_string())),
            (Some(voucher), _) => (Some(voucher), None),
            (None, Some(Finding::Doubtful(why))) => (None, Some(why.to_string())),
            (None, _) => (None, None),
        }
    }
}

/// Payloads of a form beyond those that there are are never joined with others in the first place.
fn bit(form: usize) -> u8 {
    1 << (form % 8)
}

impl fmt::Display for Objection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotByRow => "its answers have not one entry for each row",
            Self::NotAlone => {
                "it answers a row otherwise when other rows are called with it, and by more than rounding; if that may be, \
                 `batch: {verify: false}` says so"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joinings(trust: &Trust) -> [Joining; 3] {
        [(false, true), (true, true), (true, false)].map(|(by_route, verify)| trust.joining(1, by_route, verify))
    }

    #[test]
    fn nobody_is_joined_unless_somebody_vouches() {
        let trust = Trust::default();
        assert_eq!(joinings(&trust), [Joining::No, Joining::Watched, Joining::Unwatched]);
        assert!(!trust.is_called_singly(false), "nobody has looked yet");
        trust.find(&Finding::Unknown);
        trust.find(&Finding::Doubtful("it may do anything".into()));
        assert_eq!(joinings(&trust), [Joining::No, Joining::Watched, Joining::Unwatched]);
        assert_eq!((trust.is_called_singly(false), trust.is_called_singly(true)), (true, false));
        assert_eq!(trust.report(false), (None, Some("it may do anything".to_owned())));
        assert_eq!(trust.report(true), (Some(Voucher::Route), None));
        trust.tag(true);
        assert_eq!(joinings(&trust), [Joining::Watched, Joining::Watched, Joining::Unwatched]);
        assert_eq!(trust.report(false), (Some(Voucher::Tag), None));
        trust.tag(false);
        assert_eq!(joinings(&trust)[0], Joining::No);
    }

    #[test]
    fn what_follows_from_the_model_needs_nobody_else() {
        let trust = Trust::default();
        trust.find(&Finding::Independent);
        trust.find(&Finding::Doubtful("it is too late".into()));
        assert_eq!(joinings(&trust), [Joining::Known; 3]);
        assert_eq!(trust.report(true), (Some(Voucher::Model), None));
    }

    #[test]
    fn trust_is_lost_by_form_once_and_for_all() {
        let trust = Trust::default();
        trust.tag(true);
        assert!(trust.object(1, Objection::NotAlone) && !trust.object(1, Objection::NotAlone));
        assert_eq!(joinings(&trust), [Joining::No, Joining::No, Joining::Unwatched]);
        assert_eq!(trust.joining(2, false, true), Joining::Watched);
        let (voucher, why) = trust.report(false);
        assert!(voucher.is_none() && why.is_some_and(|why| why.contains("verify: false")));
        assert!(trust.object(1, Objection::NotByRow));
        assert_eq!(joinings(&trust), [Joining::No; 3]);
    }
}
