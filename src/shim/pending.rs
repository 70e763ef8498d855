//! Load shedding for calls: a bound on the calls, and their bytes, that wait for replies.
//!
//! A call first takes a slot, then waits under its correlation id. Dropping the slot or the waiting call, for whatever
//! reason, frees its part of the bound. The answers themselves find their callers in [`crate::callers`]; this module
//! only bounds how many of them there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::IntGauge;
use uuid::Uuid;

use crate::callers::{Callers, ReplyResult, WaitingCaller};
use crate::message::{Code, Fault, Stage};

/// Bounds the calls that wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingLimits {
    /// Greatest number of waiting calls; one more is refused with 429.
    pub(super) calls: usize,
    /// Greatest sum of the bytes of their requests, where the broker must not be filled up.
    pub(super) bytes: Option<usize>,
}

/// Counts waiting calls and their bytes against the limits.
#[derive(Debug)]
pub(super) struct PendingCalls {
    limits: PendingLimits,
    calls: AtomicUsize,
    bytes: AtomicUsize,
    callers: Callers,
    gauge: IntGauge,
}

/// Holds one call's place within the limit until it is dropped.
#[derive(Debug)]
pub(super) struct PendingSlot {
    pending: Arc<PendingCalls>,
}

/// Waits for the reply to one call. Dropping it is hanging up.
#[derive(Debug)]
pub(super) struct WaitingCall {
    waiting: WaitingCaller,
    slot: PendingSlot,
    bytes: usize,
}

impl PendingCalls {
    /// Begins with no waiting call. The callers know who waits, and whether anybody may.
    pub(super) fn new(limits: PendingLimits, callers: Callers, gauge: IntGauge) -> Self {
        Self { limits, calls: AtomicUsize::new(0), bytes: AtomicUsize::new(0), callers, gauge }
    }

    /// Takes a slot for a call.
    ///
    /// # Errors
    /// When as many calls as may wait do so already, or no reply could be read.
    pub(super) fn admit(self: &Arc<Self>) -> Result<PendingSlot, Fault> {
        self.callers.ensure_open()?;
        if !try_add(&self.calls, 1, self.limits.calls) {
            return Err(exhausted(format!("{} calls wait for their answers already", self.limits.calls)));
        }
        self.gauge.inc();
        Ok(PendingSlot { pending: self.clone() })
    }

    /// Refuses all calls from now on, and answers the waiting ones with 503.
    pub(super) fn close(&self) {
        self.callers.close();
    }
}

impl PendingSlot {
    /// Waits under this correlation id for the reply to a request of `bytes` bytes. To be called before the request is
    /// produced: the reply may be faster than the producer's return.
    ///
    /// # Errors
    /// When the broker holds as many unanswered bytes as it may, or no reply could be read.
    pub(super) fn wait(self, correlation: Uuid, bytes: usize) -> Result<WaitingCall, Fault> {
        let pending = &self.pending;
        if !try_add(&pending.bytes, bytes, pending.limits.bytes.unwrap_or(usize::MAX)) {
            let message = "the embedded broker holds as many unanswered requests as it can without losing any; a real \
                           broker has no such limit";
            return Err(exhausted(message));
        }
        match pending.callers.wait(correlation) {
            Ok(waiting) => Ok(WaitingCall { waiting, slot: self, bytes }),
            Err(fault) => {
                pending.bytes.fetch_sub(bytes, Ordering::AcqRel);
                Err(fault)
            }
        }
    }
}

impl WaitingCall {
    /// Returns the reply, or the fault that says why there will be none.
    pub(super) async fn answer(&mut self) -> ReplyResult {
        self.waiting.answer().await
    }
}

impl Drop for WaitingCall {
    fn drop(&mut self) {
        self.slot.pending.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Drop for PendingSlot {
    fn drop(&mut self) {
        self.pending.calls.fetch_sub(1, Ordering::AcqRel);
        self.pending.gauge.dec();
    }
}

/// Adds to a counter, unless that would exceed its limit.
fn try_add(counter: &AtomicUsize, amount: usize, limit: usize) -> bool {
    let within = |held: usize| held.checked_add(amount).filter(|sum| *sum <= limit);
    counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, within).is_ok()
}

fn exhausted(message: impl Into<String>) -> Fault {
    Fault::passing(Code::ResourceExhausted, Stage::Publish, message).with_retry_after(Duration::from_secs(1))
}

#[cfg(test)]
impl PendingCalls {
    /// Counts the callers under whose correlation id a reply would be taken.
    pub(super) fn waiting(&self) -> usize {
        self.callers.waiting()
    }

    /// Returns the calls, and the bytes of their requests, that count against the limits.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.calls.load(Ordering::SeqCst), self.bytes.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(calls: usize, bytes: Option<usize>) -> Arc<PendingCalls> {
        let (callers, gauge) = (Callers::default(), IntGauge::new("pending", "callers").unwrap());
        callers.open("replies", 0);
        Arc::new(PendingCalls::new(PendingLimits { calls, bytes }, callers, gauge))
    }

    #[test]
    fn calls_are_shed_when_count_or_bytes_reach_limit() {
        let pending = pending(2, Some(100));
        let first = pending.admit().unwrap().wait(Uuid::now_v7(), 60).unwrap();
        let too_large = pending.admit().unwrap().wait(Uuid::now_v7(), 41).unwrap_err();
        assert_eq!((too_large.code.status(), too_large.retryable), (429, true));
        let second = pending.admit().unwrap().wait(Uuid::now_v7(), 40).unwrap();
        assert_eq!(pending.admit().unwrap_err().code.status(), 429);
        drop(first);
        assert_eq!(pending.gauge.get(), 1);
        drop(pending.admit().unwrap());
        drop(second);
        assert_eq!((pending.waiting(), pending.held(), pending.gauge.get()), (0, (0, 0), 0));
    }

    #[tokio::test]
    async fn close_answers_waiting_calls_and_refuses_new_ones() {
        let pending = pending(10, None);
        let slot = pending.admit().unwrap();
        let mut waiter = pending.admit().unwrap().wait(Uuid::now_v7(), 1).unwrap();
        pending.close();
        assert_eq!(waiter.answer().await.unwrap_err().code.status(), 503);
        assert_eq!(slot.wait(Uuid::now_v7(), 1).unwrap_err().code.status(), 503);
        assert_eq!(pending.admit().unwrap_err().code.status(), 503);
        drop(waiter);
        assert_eq!((pending.waiting(), pending.held()), (0, (0, 0)));
    }

    #[tokio::test]
    async fn pending_calls_are_empty_after_hundred_thousand_hang_up() {
        let pending = pending(200_000, None);
        let waiters: Vec<_> =
            (0..100_000).map(|_| pending.admit().unwrap().wait(Uuid::now_v7(), 100).unwrap()).collect();
        assert_eq!((pending.waiting(), pending.held()), (100_000, (100_000, 10_000_000)));
        drop(waiters);
        assert_eq!((pending.waiting(), pending.held()), (0, (0, 0)));
    }
}
