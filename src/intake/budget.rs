//! How much may be in flight: a count and its twin in bytes.

use std::sync::Arc;

use super::memory::Memory;

/// Requests in flight and the room there is for more. The polling thread alone owns it; the bytes are shared with those
/// who hold answers.
#[derive(Debug)]
pub struct Budget {
    max_requests: usize,
    requests: usize,
    memory: Arc<Memory>,
}

impl Budget {
    /// Room for this many requests and bytes.
    pub fn new(max_requests: usize, max_bytes: usize) -> Self {
        Self { max_requests, requests: 0, memory: Arc::new(Memory::new(max_bytes)) }
    }

    /// Room of its own, as large as this part of what there is here.
    pub fn part(&self, part: usize) -> Self {
        Self::new((self.max_requests / part).max(1), (self.memory.max() / part).max(1))
    }

    /// Whether another request must wait. A single request that is larger than all the room there is still passes, alone.
    pub fn is_full(&self) -> bool {
        self.requests >= self.max_requests || self.memory.is_full()
    }

    /// Whether enough has drained to read on after a pause; below the limit, so that pausing does not flutter.
    pub fn is_relieved(&self) -> bool {
        self.requests <= self.max_requests / 2 && self.memory.taken() <= self.memory.max() / 2
    }

    /// A request was read.
    pub fn take(&mut self, bytes: usize) {
        self.requests += 1;
        self.memory.take_request(bytes);
    }

    /// A request has ended.
    pub fn give_back(&mut self, bytes: usize) {
        self.requests = self.requests.saturating_sub(1);
        self.memory.give_back_request(bytes);
    }

    /// Requests in flight.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// The bytes of them and of their answers.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_by_count_and_by_bytes() {
        let mut budget = Budget::new(2, 100);
        budget.take(10);
        assert!(!budget.is_full());
        budget.take(10);
        assert!(budget.is_full());
        budget.give_back(10);
        assert!(!budget.is_full() && budget.is_relieved());
        budget.take(500);
        assert!(budget.is_full());
        budget.give_back(500);
        budget.memory().take_answer(90);
        assert!(budget.is_full() && !budget.is_relieved(), "answers count as requests do");
        budget.memory().give_back_answer(90);
        budget.give_back(10);
        assert_eq!((budget.requests(), budget.memory().taken()), (0, 0));
    }
}
