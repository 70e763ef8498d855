//! Load shedding for calls: a bound on the calls, and their bytes, that wait for replies.
//!
//! A call first takes a slot, then waits under its correlation id. Dropping the slot or the waiting call, for whatever
//! reason, frees its part of the bound. The answers themselves find their callers in [`crate::callers`]; this module
//! only bounds how many of them there are.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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
    calls: Arc<Semaphore>,
    /// Room for their bytes; none where the broker may hold any number.
    bytes: Option<Arc<Semaphore>>,
    callers: Callers,
    gauge: IntGauge,
}

/// Holds one call's place within the limit until it is dropped.
#[derive(Debug)]
pub(super) struct PendingSlot {
    pending: Arc<PendingCalls>,
    _place: OwnedSemaphorePermit,
}

/// Waits for the reply to one call. Dropping it is hanging up.
#[derive(Debug)]
pub(super) struct WaitingCall {
    waiting: WaitingCaller,
    _slot: PendingSlot,
    _bytes: Option<OwnedSemaphorePermit>,
}

impl PendingCalls {
    /// Begins with no waiting call. The callers know who waits, and whether anybody may.
    pub(super) fn new(limits: PendingLimits, callers: Callers, gauge: IntGauge) -> Self {
        let counter = |limit: usize| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        Self { limits, calls: counter(limits.calls), bytes: limits.bytes.map(counter), callers, gauge }
    }

    /// Takes a slot for a call.
    ///
    /// # Errors
    /// When as many calls as may wait do so already, or no reply could be read.
    pub(super) fn admit(self: &Arc<Self>) -> Result<PendingSlot, Fault> {
        self.callers.ensure_open()?;
        let place = self.calls.clone().try_acquire_owned();
        let place =
            place.map_err(|_| exhausted(format!("{} calls wait for their answers already", self.limits.calls)))?;
        self.gauge.inc();
        Ok(PendingSlot { pending: self.clone(), _place: place })
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
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let held = pending.bytes.clone().map(|all| all.try_acquire_many_owned(bytes)).transpose().map_err(|_| {
            exhausted(
                "the embedded broker holds as many unanswered requests as it can without losing any; a real broker has \
                 no such limit",
            )
        })?;
        Ok(WaitingCall { waiting: pending.callers.wait(correlation)?, _slot: self, _bytes: held })
    }
}

impl WaitingCall {
    /// Returns the reply, or the fault that says why there will be none.
    pub(super) async fn answer(&mut self) -> ReplyResult {
        self.waiting.answer().await
    }
}

impl Drop for PendingSlot {
    fn drop(&mut self) {
        self.pending.gauge.dec();
    }
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
        let free = self.bytes.as_ref().map_or(0, |bytes| bytes.available_permits());
        let bytes = self.limits.bytes.unwrap_or_default() - free;
        (self.limits.calls - self.calls.available_permits(), bytes)
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
        let pending = pending(200_000, Some(100_000_000));
        let waiters: Vec<_> =
            (0..100_000).map(|_| pending.admit().unwrap().wait(Uuid::now_v7(), 100).unwrap()).collect();
        assert_eq!((pending.waiting(), pending.held()), (100_000, (100_000, 10_000_000)));
        drop(waiters);
        assert_eq!((pending.waiting(), pending.held()), (0, (0, 0)));
    }
}
