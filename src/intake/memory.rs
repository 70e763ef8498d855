//! The memory that requests and their answers take, from the moment that they are there until they have ended.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// While answers take no more than this part of the memory, models are called however much requests take: large requests
/// with small answers would else wait for each other without need.
const ANSWERS_PART: usize = 4;

/// The bytes of all requests and answers under way, and the most that there should be. Reading and counting take no lock.
///
/// Requests are read while it is not full. Calls of models are begun while it is not [crowded](Self::is_crowded), since
/// nobody knows how large an answer is going to be. One request, and one answer, always have room.
#[derive(Debug)]
pub struct Memory {
    max: usize,
    requests: AtomicUsize,
    answers: AtomicUsize,
    freed: Notify,
}

impl Memory {
    /// So many bytes, of which none are taken.
    pub fn new(max: usize) -> Self {
        Self { max, requests: AtomicUsize::new(0), answers: AtomicUsize::new(0), freed: Notify::new() }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Bytes that are taken.
    pub fn taken(&self) -> usize {
        self.requests.load(Ordering::Relaxed).saturating_add(self.answers.load(Ordering::Relaxed))
    }

    /// Whether no more should be read.
    pub fn is_full(&self) -> bool {
        self.taken() >= self.max
    }

    /// Whether answers take so much that no more should be asked for. That passes as they are published.
    pub fn is_crowded(&self) -> bool {
        let answers = self.answers.load(Ordering::Relaxed);
        answers > 0 && answers >= self.max / ANSWERS_PART && self.is_full()
    }

    /// Completes when some was given back that was wanted. It has to be asked for before looking.
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
    }

    pub(super) fn give_back_answer(&self, bytes: usize) {
        self.give_back(&self.answers, bytes);
    }

    fn give_back(&self, from: &AtomicUsize, bytes: usize) {
        let was_crowded = self.is_crowded();
        from.fetch_sub(bytes, Ordering::Relaxed);
        if was_crowded && !self.is_crowded() {
            self.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_fill_it_as_requests_do() {
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
    fn large_requests_with_small_answers_do_not_wait_for_each_other() {
        let memory = Memory::new(100);
        memory.take_request(500);
        assert!(memory.is_full() && !memory.is_crowded(), "one request always has room, and its answer");
        memory.take_answer(24);
        assert!(!memory.is_crowded());
        memory.take_answer(1);
        assert!(memory.is_crowded());
    }

    #[tokio::test]
    async fn whoever_waits_is_told_when_there_is_room_again() {
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
        fn what_is_taken_can_be_taken_again_once_it_was_given_back(
            max in 0usize..50,
            steps in prop::collection::vec((any::<bool>(), 0usize..40, 0usize..40), 0..60),
        ) {
            let memory = Memory::new(max);
            let mut under_way = std::collections::VecDeque::new();
            for (begins, request, answer) in steps {
                if begins && !memory.is_full() && !memory.is_crowded() {
                    memory.take_request(request);
                    memory.take_answer(answer);
                    under_way.push_back((request, answer));
                } else if let Some((request, answer)) = under_way.pop_front() {
                    memory.give_back_answer(answer);
                    memory.give_back_request(request);
                }
                // Calls are made one by one here, so only the last may go beyond.
                let last = under_way.back().map_or(0, |(request, answer)| request + answer);
                prop_assert!(memory.taken() <= max + last);
            }
            for (request, answer) in under_way {
                memory.give_back_answer(answer);
                memory.give_back_request(request);
            }
            prop_assert!(memory.taken() == 0 && !memory.is_crowded());
        }
    }
}
