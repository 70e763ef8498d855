//! Row independence: a model with it answers each row as if the row were alone, and so may be called for several requests.

use parking_lot::Mutex;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use super::body::{JoinKey, Payload};
use super::spot_checks::SpotChecks;

/// Names the source of the claim that a model answers each row as if the row were alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Voucher {
    /// The model itself: all of its parts are known to do so.
    Model,
    /// The tag `signalbox.batch: rows` of its version, or of the metadata that it was logged with.
    Tag,
    /// `batch:` of a route.
    Route,
}

/// Tells the outcome of a host's inspection of its model's parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Finding {
    /// No inspection yet.
    #[default]
    Unknown,
    /// All parts are known to answer each row by itself.
    Independent,
    /// Some part is not; the text names it.
    Doubtful(Arc<str>),
    /// Some part is not, and the metadata that the model was logged with says that it does so all the same.
    Declared,
}

/// Tells whether a model is called for several requests at once, and on which ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchMode {
    /// Each request is called singly.
    Off,
    /// Requests are joined: that their answers stay the same follows from the model's parts.
    Proven,
    /// Requests are joined since the owner vouches for the model; some are called alone as well, to see that it is so.
    Sampled,
    /// Requests are joined since the owner vouches for the model, and does not want it checked.
    Trusted,
}

/// Tells why a model is called singly though its owner vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchingRefusal {
    /// An answer had not one entry for each row.
    NotByRow,
    /// An answer to a row depended on the other rows.
    NotAlone,
}

/// Keeps what is known about the row independence of one version of a model.
#[derive(Debug, Default)]
pub struct RowIndependence {
    finding: OnceLock<Finding>,
    is_tagged: AtomicBool,
    /// Forms of payloads (see [`Payload::form`]) that are called singly for either reason, one bit each.
    not_by_row: AtomicU8,
    not_alone: AtomicU8,
    spot_checks: Mutex<SpotChecks>,
}

impl RowIndependence {
    /// Records the finding of a host. A version does not change, so the first finding stands.
    pub fn find(&self, finding: &Finding) {
        if *finding != Finding::Unknown {
            let _ = self.finding.set(finding.clone());
        }
    }

    /// Records whether the version has the tag.
    pub fn tag(&self, is_tagged: bool) {
        self.is_tagged.store(is_tagged, Ordering::Relaxed);
    }

    /// Tells whether the model is known to have no voucher; `by_route` when the asking route vouches for it.
    pub fn is_called_singly(&self, by_route: bool) -> bool {
        self.finding.get().is_some() && self.voucher(by_route).is_none()
    }

    /// Decides how payloads of this form may be called together for a route, which vouches for the model itself or does
    /// not, and wants it checked or not.
    pub fn batch_mode(&self, form: usize, by_route: bool, verify: bool) -> BatchMode {
        let is_refused = |forms: &AtomicU8| forms.load(Ordering::Relaxed) & bit(form) != 0;
        match self.voucher(by_route) {
            None => BatchMode::Off,
            Some(_) if is_refused(&self.not_by_row) => BatchMode::Off,
            Some(Voucher::Model) => BatchMode::Proven,
            Some(_) if !verify => BatchMode::Trusted,
            Some(_) if is_refused(&self.not_alone) => BatchMode::Off,
            Some(_) => BatchMode::Sampled,
        }
    }

    /// Returns the strongest voucher there is.
    fn voucher(&self, by_route: bool) -> Option<Voucher> {
        match self.finding.get() {
            Some(Finding::Independent) => Some(Voucher::Model),
            _ if by_route => Some(Voucher::Route),
            Some(Finding::Declared) => Some(Voucher::Tag),
            _ if self.is_tagged.load(Ordering::Relaxed) => Some(Voucher::Tag),
            _ => None,
        }
    }

    /// Chooses the payloads that are to be called alone as well, of all payloads of one call, which have this key.
    pub fn spot_checks(&self, key: &JoinKey, payloads: &[&Payload]) -> Vec<usize> {
        self.spot_checks.lock().choose(key, payloads)
    }

    /// Has payloads of a form called singly from now on. Tells whether that is new.
    pub fn refuse_batching(&self, form: usize, refusal: BatchingRefusal) -> bool {
        let forms = match refusal {
            BatchingRefusal::NotByRow => &self.not_by_row,
            BatchingRefusal::NotAlone => &self.not_alone,
        };
        forms.fetch_or(bit(form), Ordering::Relaxed) & bit(form) == 0
    }

    /// Reports the voucher by whose word requests go together, or else why they do not; neither where nothing is known yet.
    /// `by_route` when one of the model's routes vouches for it.
    pub fn report(&self, by_route: bool) -> (Option<Voucher>, Option<String>) {
        let is_refused = |forms: &AtomicU8| forms.load(Ordering::Relaxed) != 0;
        match (self.voucher(by_route), self.finding.get()) {
            (Some(_), _) if is_refused(&self.not_by_row) => (None, Some(BatchingRefusal::NotByRow.to_string())),
            (Some(_), _) if is_refused(&self.not_alone) => (None, Some(BatchingRefusal::NotAlone.to_string())),
            (Some(voucher), _) => (Some(voucher), None),
            (None, Some(Finding::Doubtful(why))) => (None, Some(why.to_string())),
            (None, _) => (None, None),
        }
    }
}

/// Gives a form its bit. There are eight forms; payloads of any other are never joined in the first place.
fn bit(form: usize) -> u8 {
    1 << (form % 8)
}

impl fmt::Display for BatchingRefusal {
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

    fn modes(row_independence: &RowIndependence) -> [BatchMode; 3] {
        [(false, true), (true, true), (true, false)]
            .map(|(by_route, verify)| row_independence.batch_mode(1, by_route, verify))
    }

    #[test]
    fn batching_is_off_unless_there_is_a_voucher() {
        let row_independence = RowIndependence::default();
        assert_eq!(modes(&row_independence), [BatchMode::Off, BatchMode::Sampled, BatchMode::Trusted]);
        assert!(!row_independence.is_called_singly(false), "nobody has looked yet");
        row_independence.find(&Finding::Unknown);
        row_independence.find(&Finding::Doubtful("it may do anything".into()));
        assert_eq!(modes(&row_independence), [BatchMode::Off, BatchMode::Sampled, BatchMode::Trusted]);
        assert_eq!((row_independence.is_called_singly(false), row_independence.is_called_singly(true)), (true, false));
        assert_eq!(row_independence.report(false), (None, Some("it may do anything".to_owned())));
        assert_eq!(row_independence.report(true), (Some(Voucher::Route), None));
        row_independence.tag(true);
        assert_eq!(modes(&row_independence), [BatchMode::Sampled, BatchMode::Sampled, BatchMode::Trusted]);
        assert_eq!(row_independence.report(false), (Some(Voucher::Tag), None));
        row_independence.tag(false);
        assert_eq!(modes(&row_independence)[0], BatchMode::Off);
    }

    #[test]
    fn proven_model_needs_no_other_voucher() {
        let row_independence = RowIndependence::default();
        row_independence.find(&Finding::Independent);
        row_independence.find(&Finding::Doubtful("it is too late".into()));
        assert_eq!(modes(&row_independence), [BatchMode::Proven; 3]);
        assert_eq!(row_independence.report(true), (Some(Voucher::Model), None));
    }

    #[test]
    fn trust_is_lost_by_form_when_batching_is_refused() {
        let row_independence = RowIndependence::default();
        row_independence.tag(true);
        assert!(
            row_independence.refuse_batching(1, BatchingRefusal::NotAlone)
                && !row_independence.refuse_batching(1, BatchingRefusal::NotAlone)
        );
        assert_eq!(modes(&row_independence), [BatchMode::Off, BatchMode::Off, BatchMode::Trusted]);
        assert_eq!(row_independence.batch_mode(2, false, true), BatchMode::Sampled);
        let (voucher, why) = row_independence.report(false);
        assert!(voucher.is_none() && why.is_some_and(|why| why.contains("verify: false")));
        assert!(row_independence.refuse_batching(1, BatchingRefusal::NotByRow));
        assert_eq!(modes(&row_independence), [BatchMode::Off; 3]);
    }
}
