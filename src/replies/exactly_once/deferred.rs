//! Publications that are held back from the next transaction: they go alone, or wait for their destination.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::admission::Grouping;
use crate::invocation::Backoff;
use crate::replies::directory::Destination;
use crate::replies::publication::Publication;

/// Pauses after publications that went alone and came to nothing though the broker has refused none of their records.
const AFTER_ALONE: Backoff = Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(1) };

/// Deferred publications, in their order.
pub(super) struct DeferredQueue {
    pub(super) publications: VecDeque<(Publication, Grouping)>,
    /// Destinations of the deferred, if others must not overtake them.
    pub(super) destinations: HashSet<Destination>,
    /// Version of the directory at the last check, and the time of that check.
    pub(super) version: u64,
    pub(super) checked: Instant,
    /// Time before which none goes alone.
    alone_after: Instant,
    /// The number of those that came to nothing, one after another, without a refusal.
    failed_alone: u32,
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
            failed_alone: 0,
        }
    }

    /// Returns whether a publication may go alone now.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.alone_after && self.peek().is_some()
    }

    /// Returns the publication that goes alone next.
    pub(super) fn peek(&self) -> Option<&Publication> {
        self.publications.iter().find_map(|(it, grouping)| (*grouping == Grouping::Alone).then_some(it))
    }

    /// Takes the publication that goes alone next.
    pub(super) fn next(&mut self) -> Option<Publication> {
        let index = self.publications.iter().position(|(_, grouping)| *grouping == Grouping::Alone)?;
        self.publications.remove(index).map(|(publication, _)| publication)
    }

    /// Takes in that a publication was committed alone: others with the same destination may share a transaction.
    pub(super) fn alone_committed(&mut self) {
        self.failed_alone = 0;
        self.version = u64::MAX;
    }

    /// Takes in that the broker has refused a publication that went alone, which took so long. The next waits as long, so
    /// that those which are refused one after another leave half of a session's time to others, however many they are.
    pub(super) fn alone_refused(&mut self, took: Duration) {
        self.failed_alone = 0;
        self.alone_after = Instant::now() + took.min(AFTER_ALONE.longest);
        self.version = u64::MAX;
    }

    /// Takes in that a publication that went alone was aborted for another reason.
    pub(super) fn alone_failed(&mut self) {
        self.failed_alone = self.failed_alone.saturating_add(1);
        self.alone_after = Instant::now() + AFTER_ALONE.pause(self.failed_alone);
        self.version = u64::MAX;
    }
}
