//! Budget of requests in flight: a limit of their number, and one of their bytes.

use std::sync::Arc;

use super::memory::Memory;

/// Counts requests in flight against their limits. The polling thread alone owns it; the bytes are shared with the
/// holders of answers.
#[derive(Debug)]
pub struct Budget {
    max_requests: usize,
    requests: usize,
    memory: Arc<Memory>,
}

impl Budget {
    /// Creates a budget of this many requests and bytes.
    pub fn new(max_requests: usize, max_bytes: usize) -> Self {
        Self { max_requests, requests: 0, memory: Arc::new(Memory::new(max_bytes)) }
    }

    /// Creates a budget of its own, with this part of the limits.
    pub fn part(&self, part: usize) -> Self {
        Self::new((self.max_requests / part).max(1), (self.memory.max() / part).max(1))
    }

    /// Returns whether another request must wait. A single request that is larger than the whole limit still passes,
    /// alone.
    pub fn is_full(&self) -> bool {
        self.requests >= self.max_requests || self.memory.is_full()
    }

    /// Returns whether enough has drained to read on after a pause; below the limit, so that pausing does not flutter.
    pub fn is_relieved(&self) -> bool {
        self.requests <= self.max_requests / 2 && self.memory.taken() <= self.memory.max() / 2
    }

    /// Counts a request that was read.
    pub fn take(&mut self, bytes: usize) {
        self.requests += 1;
        self.memory.take_request(bytes);
    }

    /// Gives back the room of a request that has ended.
    pub fn give_back(&mut self, bytes: usize) {
        self.requests = self.requests.saturating_sub(1);
        self.memory.give_back_request(bytes);
    }

    /// Returns the number of requests in flight.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Returns the memory of the requests and their answers.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_fills_by_count_and_by_bytes() {
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
