//! The jobs that are held back from the next transaction: they travel apart, or wait for their place.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::admission::{Destination, Isolation};
use crate::replies::publication::Publication;

/// After a job that travelled apart was refused, so long the next waits; and at most, when one after another is.
const AFTER_ALONE: Duration = Duration::from_millis(50);
const LONGEST_AFTER_ALONE: Duration = Duration::from_secs(1);

/// Jobs that are held back, in their order.
pub(super) struct DeferredQueue {
    pub(super) publications: VecDeque<(Publication, Isolation)>,
    /// Where they go, if others must not overtake them.
    pub(super) destinations: HashSet<Destination>,
    /// What was known when they were checked at last, and when that was.
    pub(super) version: u64,
    pub(super) checked: Instant,
    /// When the next may travel apart, and how long the one after it has to wait if that comes to nothing.
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

    /// Whether one may travel apart now.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.alone_after && self.publications.iter().any(|(_, verdict)| *verdict == Isolation::Alone)
    }

    /// The one that travels apart next.
    pub(super) fn peek(&self) -> Option<&Publication> {
        self.publications.iter().find(|(_, verdict)| *verdict == Isolation::Alone).map(|(publication, _)| publication)
    }

    /// Takes the one that travels apart next.
    pub(super) fn next(&mut self) -> Option<Publication> {
        let index = self.publications.iter().position(|(_, verdict)| *verdict == Isolation::Alone)?;
        self.publications.remove(index).map(|(publication, _)| publication)
    }

    /// What travelled apart is there: others that go there may travel together.
    pub(super) fn alone_committed(&mut self) {
        self.pause = AFTER_ALONE;
        self.version = u64::MAX;
    }

    /// What travelled apart was refused.
    pub(super) fn alone_failed(&mut self) {
        self.alone_after = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_AFTER_ALONE);
        self.version = u64::MAX;
    }
}
