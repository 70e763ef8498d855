//! Publications that are held back from the next transaction: they go alone, or wait for their destination.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::admission::{Destination, Isolation};
use crate::replies::publication::Publication;

/// Pause after a publication that went alone and was rejected; it doubles up to [`LONGEST_AFTER_ALONE`], so that one
/// after another does not take all of a session's time.
const AFTER_ALONE: Duration = Duration::from_millis(50);
/// Longest pause after publications that went alone and were rejected, one after another.
const LONGEST_AFTER_ALONE: Duration = Duration::from_secs(1);

/// Deferred publications, in their order.
pub(super) struct DeferredQueue {
    pub(super) publications: VecDeque<(Publication, Isolation)>,
    /// Destinations of the deferred, if others must not overtake them.
    pub(super) destinations: HashSet<Destination>,
    /// Version of the directory at the last check, and the time of that check.
    pub(super) version: u64,
    pub(super) checked: Instant,
    /// Time before which none goes alone, and the pause if the next one comes to nothing.
    alone_after: Instant,
    pause: Duration,
}

impl DeferredQueue {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            publications: VecDeque::new(),
            destinations: HashSet::new(),
            version: 0,
            checked: now,
            alone_after: now,
            pause: AFTER_ALONE,
        }
    }

    /// Returns whether a publication may go alone now.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.alone_after && self.peek().is_some()
    }

    /// Returns the publication that goes alone next.
    pub(super) fn peek(&self) -> Option<&Publication> {
        self.publications.iter().find_map(|(it, isolation)| (*isolation == Isolation::Alone).then_some(it))
    }

    /// Takes the publication that goes alone next.
    pub(super) fn next(&mut self) -> Option<Publication> {
        let index = self.publications.iter().position(|(_, isolation)| *isolation == Isolation::Alone)?;
        self.publications.remove(index).map(|(publication, _)| publication)
    }

    /// Takes in that a publication was committed alone: others with the same destination may share a transaction.
    pub(super) fn alone_committed(&mut self) {
        self.pause = AFTER_ALONE;
        self.version = u64::MAX;
    }

    /// Takes in that a publication that went alone was aborted.
    pub(super) fn alone_failed(&mut self) {
        self.alone_after = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_AFTER_ALONE);
        self.version = u64::MAX;
    }
}
