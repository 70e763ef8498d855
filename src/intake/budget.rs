//! How much may be in flight: a count and its twin in bytes.

/// Requests in flight and the room there is for more. Pure; the polling thread alone owns it.
#[derive(Debug)]
pub struct Budget {
    max_requests: usize,
    max_bytes: usize,
    requests: usize,
    bytes: usize,
}

impl Budget {
    /// Room for this many requests and bytes.
    pub fn new(max_requests: usize, max_bytes: usize) -> Self {
        Self { max_requests, max_bytes, requests: 0, bytes: 0 }
    }

    /// Room of its own, as large as this part of what there is here.
    pub fn part(&self, part: usize) -> Self {
        Self::new((self.max_requests / part).max(1), (self.max_bytes / part).max(1))
    }

    /// Whether another request must wait. A single request that is larger than all the room there is still passes, alone.
    pub fn is_full(&self) -> bool {
        self.requests >= self.max_requests || self.bytes >= self.max_bytes
    }

    /// Whether enough has drained to read on after a pause; below the limit, so that pausing does not flutter.
    pub fn is_relieved(&self) -> bool {
        self.requests <= self.max_requests / 2 && self.bytes <= self.max_bytes / 2
    }

    /// A request was read.
    pub fn take(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes += bytes;
    }

    /// A request has ended.
    pub fn give_back(&mut self, bytes: usize) {
        self.requests = self.requests.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Requests in flight.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Their bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
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
        budget.give_back(10);
        assert_eq!((budget.requests(), budget.bytes()), (0, 0));
    }
}
