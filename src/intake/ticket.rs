//! What a request carries so that its lane hears of its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

/// One assignment of one partition to this process. A partition that is lost and comes back is another assignment.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) partition: i32,
    pub(super) epoch: u64,
    pub(super) revoked: AtomicBool,
}

/// The news of a request's end, on its way to the polling thread.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) partition: i32,
    pub(super) epoch: u64,
    pub(super) offset: i64,
    pub(super) bytes: usize,
    /// False when the ticket was dropped without a terminal record: the offset must not be committed.
    pub(super) finished: bool,
}

/// The right, and the duty, to end one request. Dropping it without [`finish`](Self::finish) leaves the request
/// unanswered, so that the next owner of its partition reads it again.
#[derive(Debug)]
pub struct Ticket {
    assignment: Arc<Assignment>,
    offset: i64,
    bytes: usize,
    received: Instant,
    completions: Sender<Completion>,
    finished: bool,
}

impl Ticket {
    pub(super) fn new(
        assignment: Arc<Assignment>,
        offset: i64,
        bytes: usize,
        received: Instant,
        completions: Sender<Completion>,
    ) -> Self {
        Self { assignment, offset, bytes, received, completions, finished: false }
    }

    /// The request's terminal record is acknowledged.
    pub fn finish(mut self) {
        self.finished = true;
    }

    /// Whether the request's partition has gone to another owner, who will answer it: late results are dropped.
    pub fn is_revoked(&self) -> bool {
        self.assignment.revoked.load(Ordering::Acquire)
    }

    /// When the request was read.
    pub fn received(&self) -> Instant {
        self.received
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let completion = Completion {
            partition: self.assignment.partition,
            epoch: self.assignment.epoch,
            offset: self.offset,
            bytes: self.bytes,
            finished: self.finished,
        };
        // The polling thread is gone only when the process is about to be.
        let _ = self.completions.send(completion);
    }
}
