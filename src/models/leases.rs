//! How many calls hold something, and whether it may still be taken.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Set once nobody may take it any more.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Counts those who hold a thing, and shuts the door once it has to go. Taking one is a single atomic step.
#[derive(Debug, Default)]
pub(super) struct Leases {
    state: AtomicUsize,
    given_back: Notify,
}

impl Leases {
    /// One more holder; false when the door is shut.
    pub(super) fn take(&self) -> bool {
        let taken = |state| if state & CLOSED == 0 { Some(state + 1) } else { None };
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).is_ok()
    }

    /// One holder less. Whether it was the last.
    pub(super) fn give_back(&self) -> bool {
        let left = self.state.fetch_sub(1, Ordering::AcqRel) - 1;
        if left == CLOSED {
            self.given_back.notify_waiters();
        }
        left & !CLOSED == 0
    }

    /// How many hold it.
    pub(super) fn held(&self) -> usize {
        self.state.load(Ordering::Acquire) & !CLOSED
    }

    /// Whether the door is shut.
    pub(super) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Shuts the door behind those who are in.
    pub(super) fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Shuts the door if nobody is in; tells whether nobody was.
    pub(super) fn close_if_unused(&self) -> bool {
        self.state.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Waits, after the door was shut, until the last holder has gone.
    pub(super) async fn drained(&self) {
        loop {
            let given_back = self.given_back.notified();
            tokio::pin!(given_back);
            // From here on none is missed.
            given_back.as_mut().enable();
            if self.held() == 0 {
                return;
            }
            given_back.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_closed_door_lets_nobody_in() {
        let leases = Leases::default();
        assert!(leases.take() && !leases.close_if_unused());
        leases.close();
        assert!(!leases.take() && leases.is_closed());
        assert_eq!(leases.held(), 1);
        assert!(leases.give_back());
        assert_eq!(leases.held(), 0);
    }

    #[test]
    fn whoever_is_in_and_whoever_shuts_never_both_win() {
        for _ in 0..200 {
            let leases = Arc::new(Leases::default());
            let taker = {
                let leases = Arc::clone(&leases);
                std::thread::spawn(move || leases.take())
            };
            let closed = leases.close_if_unused();
            assert!(taker.join().unwrap() != closed);
        }
    }

    #[tokio::test]
    async fn draining_ends_with_the_last_holder() {
        let leases = Arc::new(Leases::default());
        assert!(leases.take() && leases.take());
        leases.close();
        let drained = {
            let leases = Arc::clone(&leases);
            tokio::spawn(async move { leases.drained().await })
        };
        tokio::task::yield_now().await;
        assert!(!leases.give_back());
        assert!(!drained.is_finished());
        assert!(leases.give_back());
        drained.await.unwrap();
    }
}
