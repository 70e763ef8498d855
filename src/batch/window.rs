//! Window: how many requests may be under way, by what the router says of them.
//!
//! The rule is TCP's: each window of answers lets one request more be under way, and a refusal halves it. A policy
//! without clock and I/O.

/// Bounds the requests that are under way.
#[derive(Debug)]
pub(super) struct Window {
    /// Requests that may be under way; more than it is never rounded down to none.
    limit: f64,
    most: f64,
    under_way: usize,
    /// Requests sent so far.
    sent: u64,
    /// Requests that were sent before the last halving. Their refusals say nothing new.
    before_halving: u64,
}

/// The place of a request in the order of sending.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendNumber(u64);

impl Window {
    /// Begins with as many requests as there may ever be.
    pub(super) fn new(most: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "no window comes near 2^52")]
        let most = most.max(1) as f64;
        Self { limit: most, most, under_way: 0, sent: 0, before_halving: 0 }
    }

    /// Tells whether one more may be sent.
    pub(super) fn is_open(&self) -> bool {
        self.under_way < self.limit()
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Returns how many may be under way.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 1 and `most`")]
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Notes a request that is sent.
    pub(super) fn send(&mut self) -> SendNumber {
        self.under_way += 1;
        self.sent += 1;
        SendNumber(self.sent - 1)
    }

    /// Notes a request that is no longer under way, and says nothing of the room there is.
    pub(super) fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Notes an answer: the window grows by one request for as many answers as it has places.
    pub(super) fn answer(&mut self) {
        self.end();
        self.limit = (self.limit + 1.0 / self.limit).min(self.most);
    }

    /// Notes a refusal: the window is halved, once for all that were under way together.
    pub(super) fn refuse(&mut self, SendNumber(number): SendNumber) {
        self.end();
        if number >= self.before_halving {
            self.limit = (self.limit / 2.0).max(1.0);
            self.before_halving = self.sent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_one_window_halve_it_once() {
        let mut window = Window::new(16);
        let sent: Vec<_> = (0..16).map(|_| window.send()).collect();
        assert!(!window.is_open());
        for number in sent {
            window.refuse(number);
        }
        assert_eq!((window.limit(), window.under_way()), (8, 0));
        let number = window.send();
        window.refuse(number);
        assert_eq!(window.limit(), 4);
    }

    #[test]
    fn window_grows_by_one_for_each_window_of_answers_and_never_closes() {
        let mut window = Window::new(10);
        for _ in 0..20 {
            let number = window.send();
            window.refuse(number);
        }
        assert_eq!(window.limit(), 1);
        assert!(window.is_open());
        for expected in 2..=10 {
            for _ in 0..=window.limit() {
                window.send();
                window.answer();
            }
            assert!(window.limit() >= expected, "{} {expected}", window.limit());
        }
        for _ in 0..100 {
            window.send();
            window.answer();
        }
        assert_eq!(window.limit(), 10);
    }
}
