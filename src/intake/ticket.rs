//! Tickets, by which a lane hears of the end of its requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::memory::Memory;
use super::whereabouts::{Mark, Whereabouts};

/// Topics of overflow requests, by their number: the first of the retry topics, and the one of earlier versions.
const OVERFLOW: [usize; 2] = [1, 2];

/// Number of the requests topic among the topics that are read.
pub(super) const REQUESTS: usize = 0;

/// Partition of one of the topics that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    /// Number of the topic, in the order of subscription; 0 is the requests topic.
    pub topic: usize,
    /// Partition of the topic.
    pub partition: i32,
}

impl LaneId {
    /// Returns whether the topic is the requests topic.
    pub(super) fn is_of_requests(self) -> bool {
        self.topic == REQUESTS
    }

    /// Returns whether the topic is for overflow requests, whose route had too much to do.
    pub(super) fn is_overflow(self) -> bool {
        OVERFLOW.contains(&self.topic)
    }
}

/// Assignment of one partition to this process. A partition that is lost and comes back is another assignment.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) lane: LaneId,
    pub(super) epoch: u64,
    pub(super) revoked: AtomicBool,
    pub(super) whereabouts: Whereabouts,
}

/// Position of a request that was read: its lane, the assignment by which it was read, and its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestPosition {
    pub(super) lane: LaneId,
    pub(super) epoch: u64,
    pub(super) offset: i64,
}

impl RequestPosition {
    /// Returns the assignment by which the request was read. A partition that is lost and comes back is another one.
    pub fn assignment(&self) -> (LaneId, u64) {
        (self.lane, self.epoch)
    }
}

/// Message to the polling thread that a request has ended.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) request: RequestPosition,
    pub(super) bytes: usize,
    /// False when the ticket was dropped without a terminal record: the offset must not be committed.
    pub(super) finished: bool,
}

/// Right, and duty, to end one request. Dropping a ticket without [`finish`](Self::finish) leaves the request
/// unanswered, so that the next owner of its partition reads it again.
#[derive(Debug)]
pub struct Ticket {
    assignment: Arc<Assignment>,
    offset: i64,
    bytes: usize,
    received: Instant,
    completions: Sender<Completion>,
    finished: bool,
    memory: Arc<Memory>,
    /// Bytes of the answer, once that is there.
    answer: usize,
}

impl Ticket {
    pub(super) fn new(
        assignment: Arc<Assignment>,
        offset: i64,
        bytes: usize,
        received: Instant,
        completions: Sender<Completion>,
        memory: Arc<Memory>,
    ) -> Self {
        assignment.whereabouts.set(offset, Mark::default());
        Self { assignment, offset, bytes, received, completions, finished: false, memory, answer: 0 }
    }

    /// Finishes the request: its terminal record is acknowledged, or its transaction committed.
    pub fn finish(mut self) {
        self.finished = true;
    }

    /// Notes where the request is now, for operators.
    pub fn mark(&self, mark: Mark) {
        self.assignment.whereabouts.set(self.offset, mark);
    }

    /// Returns whether the request's partition has gone to another owner, who will answer it: late results are dropped.
    pub fn is_revoked(&self) -> bool {
        self.assignment.revoked.load(Ordering::Acquire)
    }

    /// Counts the bytes of the request's answer, which take memory until its record is acknowledged, or its transaction
    /// committed.
    pub fn hold_answer(&mut self, bytes: usize) {
        self.memory.take_answer(bytes);
        self.answer += bytes;
    }

    /// Returns the memory that the request and its answer take their part of.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Returns when the request was read.
    pub fn received(&self) -> Instant {
        self.received
    }

    /// Returns the position of the request.
    pub fn position(&self) -> RequestPosition {
        RequestPosition { lane: self.assignment.lane, epoch: self.assignment.epoch, offset: self.offset }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.answer > 0 {
            self.memory.give_back_answer(self.answer);
        }
        let completion = Completion { request: self.position(), bytes: self.bytes, finished: self.finished };
        // The polling thread is gone only when the process is about to be.
        let _ = self.completions.send(completion);
    }
}
