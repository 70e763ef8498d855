//! The jobs that are held back from the next transaction: they travel apart, or wait for their place.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::admission::{Spot, Verdict};
use crate::replies::job::Job;

/// After a job that travelled apart was refused, so long the next waits; and at most, when one after another is.
const AFTER_APART: Duration = Duration::from_millis(50);
const LONGEST_AFTER_APART: Duration = Duration::from_secs(1);

/// Jobs that are held back, in their order.
pub(super) struct Held {
    pub(super) jobs: VecDeque<(Job, Verdict)>,
    /// Where they go, if others must not overtake them.
    pub(super) spots: HashSet<Spot>,
    /// What was known when they were looked at last, and when that was.
    pub(super) version: u64,
    pub(super) looked: Instant,
    /// When the next may travel apart, and how long the one after it has to wait if that comes to nothing.
    apart_after: Instant,
    pause: Duration,
}

impl Held {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            jobs: VecDeque::new(),
            spots: HashSet::new(),
            version: 0,
            looked: now,
            apart_after: now,
            pause: AFTER_APART,
        }
    }

    /// Whether one may travel apart now.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.apart_after && self.jobs.iter().any(|(_, verdict)| *verdict == Verdict::Apart)
    }

    /// The one that travels apart next.
    pub(super) fn peek(&self) -> Option<&Job> {
        self.jobs.iter().find(|(_, verdict)| *verdict == Verdict::Apart).map(|(job, _)| job)
    }

    /// Takes the one that travels apart next.
    pub(super) fn next(&mut self) -> Option<Job> {
        let index = self.jobs.iter().position(|(_, verdict)| *verdict == Verdict::Apart)?;
        self.jobs.remove(index).map(|(job, _)| job)
    }

    /// What travelled apart is there: others that go there may travel together.
    pub(super) fn went_well(&mut self) {
        self.pause = AFTER_APART;
        self.version = u64::MAX;
    }

    /// What travelled apart was refused.
    pub(super) fn came_to_nothing(&mut self) {
        self.apart_after = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_AFTER_APART);
        self.version = u64::MAX;
    }
}
