//! A closable use count: how many calls hold a version, and whether new ones may.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bit that is set once no use may begin any more; the bits below are the count.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Closable use count. Taking a use is a single atomic step.
#[derive(Debug, Default)]
pub(super) struct UseCount {
    state: AtomicUsize,
    released: Notify,
}

impl UseCount {
    /// Adds a use; false when the count is closed.
    pub(super) fn acquire(&self) -> bool {
        let taken = |state| if state & CLOSED == 0 { Some(state + 1) } else { None };
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).is_ok()
    }

    /// Ends a use. Tells whether it was the last.
    pub(super) fn release(&self) -> bool {
        let left = self.state.fetch_sub(1, Ordering::AcqRel) - 1;
        if left == CLOSED {
            self.released.notify_waiters();
        }
        left & !CLOSED == 0
    }

    /// Returns the number of uses.
    pub(super) fn held(&self) -> usize {
        self.state.load(Ordering::Acquire) & !CLOSED
    }

    /// Tells whether the count is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Closes the count: uses under way go on, new ones are refused.
    pub(super) fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Closes the count if there are no uses; tells whether there were none.
    pub(super) fn close_if_idle(&self) -> bool {
        self.state.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Waits, after the count was closed, until the last use has ended.
    pub(super) async fn drained(&self) {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // Registers before looking, so that no release is missed in between.
            released.as_mut().enable();
            if self.held() == 0 {
                return;
            }
            released.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn use_count_refuses_when_closed() {
        let uses = UseCount::default();
        assert!(uses.acquire() && !uses.close_if_idle());
        uses.close();
        assert!(!uses.acquire() && uses.is_closed());
        assert_eq!(uses.held(), 1);
        assert!(uses.release());
        assert_eq!(uses.held(), 0);
    }

    #[test]
    fn acquire_and_close_never_both_succeed() {
        for _ in 0..200 {
            let uses = Arc::new(UseCount::default());
            let taker = {
                let uses = Arc::clone(&uses);
                std::thread::spawn(move || uses.acquire())
            };
            let closed = uses.close_if_idle();
            assert!(taker.join().unwrap() != closed);
        }
    }

    #[tokio::test]
    async fn drain_ends_when_last_use_is_released() {
        let uses = Arc::new(UseCount::default());
        assert!(uses.acquire() && uses.acquire());
        uses.close();
        let drained = {
            let uses = Arc::clone(&uses);
            tokio::spawn(async move { uses.drained().await })
        };
        tokio::task::yield_now().await;
        assert!(!uses.release());
        assert!(!drained.is_finished());
        assert!(uses.release());
        drained.await.unwrap();
    }
}
