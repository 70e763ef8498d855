//! Memory that requests and their answers take, from the moment that they are there until they have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Part of the memory that answers may take without holding up calls, however much requests take: large requests with
/// small answers would else wait for each other without need.
const ANSWERS_PART: usize = 4;

/// Part of the memory that an answer is expected to take before anything is known, or as much as librdkafka's own
/// largest record if that is less.
const FIRST_PART: usize = 16;
/// Bytes of librdkafka's own largest record.
const USUAL_RECORD: usize = 1_000_000;

/// Weight of the latest answer in the expected size of the next: an eighth, and the estimate before counts for the rest
/// (EWMA).
const LATEST_PART: usize = 8;

/// Counts the bytes of all requests and answers under way against their limit. Reading and counting take no lock.
///
/// Requests are read while the memory is not full. Calls of models begin while it is not [crowded](Self::is_crowded) by
/// answers and by calls, whose answers are expected to be as large as the latest were. One request, and one call,
/// always have room.
#[derive(Debug)]
pub struct Memory {
    max: usize,
    requests: AtomicUsize,
    answers: AtomicUsize,
    /// Calls under way.
    calls: AtomicUsize,
    /// Expected bytes of an answer, as the latest suggest. Of two concurrent writes one may be lost.
    typical: AtomicUsize,
    freed: Notify,
}

/// Calls under way, whose answers will take memory; counted until the value is dropped.
#[derive(Debug)]
pub struct ExpectedAnswers {
    memory: Arc<Memory>,
    calls: usize,
}

impl Memory {
    /// Creates a memory of this many bytes, of which none are taken.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            requests: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            typical: AtomicUsize::new((max / FIRST_PART).min(USUAL_RECORD)),
            freed: Notify::new(),
        }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Returns the bytes that are taken.
    pub fn taken(&self) -> usize {
        self.requests.load(Ordering::Relaxed).saturating_add(self.answers.load(Ordering::Relaxed))
    }

    /// Returns whether no more requests should be read.
    pub fn is_full(&self) -> bool {
        self.taken() >= self.max
    }

    /// Returns whether answers, and those that are expected, take so much that no more calls should begin. That passes
    /// as answers are published.
    pub fn is_crowded(&self) -> bool {
        let calls = self.calls.load(Ordering::Relaxed);
        let expected = calls.saturating_mul(self.typical.load(Ordering::Relaxed));
        let answers = self.answers.load(Ordering::Relaxed).saturating_add(expected);
        let requests = self.requests.load(Ordering::Relaxed);
        answers > 0 && answers >= self.max / ANSWERS_PART && requests.saturating_add(answers) >= self.max
    }

    /// Counts calls that are about to be made.
    pub fn expect(self: &Arc<Self>, calls: usize) -> ExpectedAnswers {
        self.calls.fetch_add(calls, Ordering::Relaxed);
        ExpectedAnswers { memory: Arc::clone(self), calls }
    }

    /// Completes when the memory is not crowded any more. Has to be called before looking.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    pub(super) fn take_request(&self, bytes: usize) {
        self.requests.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back_request(&self, bytes: usize) {
        self.give_back(&self.requests, bytes);
    }

    pub(super) fn take_answer(&self, bytes: usize) {
        self.answers.fetch_add(bytes, Ordering::Relaxed);
        let before = self.typical.load(Ordering::Relaxed);
        let typical = before - before / LATEST_PART + bytes / LATEST_PART;
        self.typical.store(typical, Ordering::Relaxed);
    }

    pub(super) fn give_back_answer(&self, bytes: usize) {
        self.give_back(&self.answers, bytes);
    }

    fn give_back(&self, from: &AtomicUsize, amount: usize) {
        let was_crowded = self.is_crowded();
        from.fetch_sub(amount, Ordering::Relaxed);
        if was_crowded && !self.is_crowded() {
            self.freed.notify_waiters();
        }
    }
}

impl Drop for ExpectedAnswers {
    fn drop(&mut self) {
        self.memory.give_back(&self.memory.calls, self.calls);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_fills_by_answers_as_by_requests() {
        let memory = Memory::new(100);
        memory.take_request(40);
        memory.take_answer(59);
        assert!(!memory.is_full() && !memory.is_crowded());
        memory.take_answer(1);
        assert!(memory.is_full() && memory.is_crowded());
        memory.give_back_request(1);
        assert!(!memory.is_full() && !memory.is_crowded());
        memory.give_back_answer(60);
        assert_eq!(memory.taken(), 39);
    }

    #[test]
    fn memory_lets_large_requests_with_small_answers_run() {
        let memory = Memory::new(100);
        memory.take_request(500);
        assert!(memory.is_full() && !memory.is_crowded(), "one request always has room, and its answer");
        memory.take_answer(24);
        assert!(!memory.is_crowded());
        memory.take_answer(1);
        assert!(memory.is_crowded());
    }

    #[test]
    fn memory_expects_answers_as_large_as_latest() {
        let memory = Arc::new(Memory::new(1_600));
        let first: Vec<_> = (0..16).map_while(|_| (!memory.is_crowded()).then(|| memory.expect(1))).collect();
        assert!(first.len() == 16 && memory.is_crowded(), "before anything is known");
        drop(first);
        for _ in 0..100 {
            memory.take_answer(10);
            memory.give_back_answer(10);
        }
        let others = memory.expect(60);
        assert!(!memory.is_crowded(), "small answers leave room for many calls");
        for _ in 0..100 {
            memory.take_answer(800);
            memory.give_back_answer(800);
        }
        assert!(memory.is_crowded(), "large ones do not");
        drop(others);
        assert!(!memory.is_crowded(), "and one call always has room");
    }

    #[tokio::test]
    async fn memory_notifies_when_there_is_room_again() {
        let memory = Memory::new(100);
        memory.take_answer(200);
        memory.take_request(1);
        let freed = memory.freed();
        memory.give_back_answer(50);
        memory.give_back_request(1);
        assert!(memory.is_crowded());
        memory.give_back_answer(51);
        assert!(!memory.is_crowded());
        freed.await;
    }

    proptest! {
        #[test]
        fn memory_holds_calls_of_one_size(
            max in 1_600usize..100_000,
            answer in 0usize..2_000,
            steps in prop::collection::vec(0..3, 0..400),
        ) {
            let memory = Arc::new(Memory::new(max));
            (0..200).for_each(|_| memory.take_answer(answer));
            memory.give_back_answer(200 * answer);
            let (mut calls, mut answers) = (std::collections::VecDeque::new(), 0);
            for step in steps {
                match step {
                    0 if !memory.is_crowded() => calls.push_back(memory.expect(1)),
                    1 if calls.pop_front().is_some() => {
                        memory.take_answer(answer);
                        answers += 1;
                    }
                    2 if answers > 0 => {
                        memory.give_back_answer(answer);
                        answers -= 1;
                    }
                    _ => {}
                }
                // The expected size is a little less than the answer, since parts are rounded.
                prop_assert!(memory.taken() <= max + answer + 16 * (answers + calls.len()));
            }
            drop(calls);
            memory.give_back_answer(answers * answer);
            prop_assert!(memory.taken() == 0 && !memory.is_crowded());
        }
    }
}
