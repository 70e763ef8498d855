//! The watch over work that has to get through again and again, such as records to be published: tells when it stands
//! still.

use parking_lot::Mutex;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Time without progress after which work stands still, and its part is not ready.
const STANDSTILL_AFTER: Duration = Duration::from_secs(10);

/// Time for which a failure counts where nothing waits any more. After that only another attempt can show whether work
/// gets through.
const FAILURE_MEMORY: Duration = Duration::from_secs(30);

/// A handle to work that must not stand still. Cheap to clone; counting takes no lock.
///
/// Work stands still once nothing has got through for ten seconds while some waits, or while every attempt failed; and
/// goes on as soon as one piece gets through.
#[derive(Debug, Clone)]
pub struct ProgressWatch(Arc<FlowState>);

/// One piece of work, which waits until it is dropped.
#[derive(Debug)]
pub struct PendingWork(Arc<FlowState>);

#[derive(Debug)]
struct FlowState {
    /// Name of the work in a report, such as "replies to be published".
    what: String,
    begun: Instant,
    waiting: AtomicUsize,
    /// Milliseconds since `begun`, at least 1; 0 is never. Start of the present uninterrupted run of waiting or
    /// failing.
    tried: AtomicU64,
    /// Milliseconds at which a piece got through last.
    passed: AtomicU64,
    /// Milliseconds of the last failure since then; 0 if there was none.
    failed: AtomicU64,
    why: Mutex<Option<String>>,
}

impl ProgressWatch {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(Arc::new(FlowState {
            what: what.into(),
            begun: Instant::now(),
            waiting: AtomicUsize::new(0),
            tried: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            why: Mutex::default(),
        }))
    }

    /// Counts a piece of work that is to get through.
    pub fn begin(&self) -> PendingWork {
        self.begin_at(self.now());
        PendingWork(Arc::clone(&self.0))
    }

    /// Records a piece that got through.
    pub fn passed(&self) {
        self.passed_at(self.now());
    }

    /// Records a piece that failed, for this reason. The piece may be tried again.
    pub fn failed(&self, why: impl Display) {
        *self.0.why.lock() = Some(why.to_string());
        self.failed_at(self.now());
    }

    /// Describes the standstill, if the work stands still.
    pub(super) fn standstill(&self) -> Option<String> {
        self.standstill_at(self.now())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn begin_at(&self, now: u64) {
        if self.0.waiting.fetch_add(1, Ordering::AcqRel) == 0 && !self.has_failed(now) {
            self.0.tried.store(now, Ordering::Release);
        }
    }

    fn passed_at(&self, now: u64) {
        self.0.passed.store(now, Ordering::Release);
        self.0.failed.store(0, Ordering::Release);
    }

    fn failed_at(&self, now: u64) {
        if self.0.waiting.load(Ordering::Acquire) == 0 && !self.has_failed(now) {
            self.0.tried.store(now, Ordering::Release);
        }
        self.0.failed.store(now, Ordering::Release);
    }

    /// Tells whether the last attempt has failed, not long ago.
    fn has_failed(&self, now: u64) -> bool {
        let failed = self.0.failed.load(Ordering::Acquire);
        failed > 0 && Duration::from_millis(now.saturating_sub(failed)) < FAILURE_MEMORY
    }

    fn standstill_at(&self, now: u64) -> Option<String> {
        let (waiting, has_failed) = (self.0.waiting.load(Ordering::Acquire), self.has_failed(now));
        // Progress counts from the start of the present run, or from the last piece that got through.
        let since = self.0.tried.load(Ordering::Acquire).max(self.0.passed.load(Ordering::Acquire));
        let stands = Duration::from_millis(now.saturating_sub(since));
        if (waiting == 0 && !has_failed) || stands < STANDSTILL_AFTER {
            return None;
        }
        let why = self.0.why.lock().clone().filter(|_| has_failed);
        let why = why.map_or_else(String::new, |why| format!(" ({why})"));
        let (what, seconds) = (&self.0.what, stands.as_secs());
        Some(format!("{what}: none got through for {seconds} s, and {waiting} wait{why}"))
    }
}

impl Drop for PendingWork {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;

    fn pending(flow: &ProgressWatch, now: u64) -> PendingWork {
        flow.begin_at(now);
        PendingWork(Arc::clone(&flow.0))
    }

    #[test]
    fn flow_stands_still_when_work_waits_too_long() {
        let flow = ProgressWatch::new("replies to be published");
        assert_eq!(flow.standstill_at(100 * SECOND), None, "nothing is to be done");
        let first = pending(&flow, 100 * SECOND);
        assert_eq!(flow.standstill_at(109 * SECOND), None);
        let second = pending(&flow, 109 * SECOND);
        let words = "replies to be published: none got through for 10 s, and 2 wait";
        assert_eq!(flow.standstill_at(110 * SECOND).as_deref(), Some(words));
        flow.failed("no such topic");
        flow.failed_at(111 * SECOND);
        let words = "replies to be published: none got through for 12 s, and 2 wait (no such topic)";
        assert_eq!(flow.standstill_at(112 * SECOND).as_deref(), Some(words));
        flow.passed_at(113 * SECOND);
        drop(first);
        assert_eq!(flow.standstill_at(122 * SECOND), None, "one got through");
        assert!(flow.standstill_at(123 * SECOND).is_some(), "and then none again");
        drop(second);
        assert_eq!(flow.standstill_at(124 * SECOND), None, "nothing waits");
        let _third = pending(&flow, 200 * SECOND);
        assert_eq!(flow.standstill_at(201 * SECOND), None, "what has only just begun does not stand still");
    }

    #[test]
    fn flow_stands_still_when_every_attempt_fails() {
        let flow = ProgressWatch::new("requests to be published");
        for now in 100..110 {
            let pending = pending(&flow, now * SECOND);
            flow.failed_at(now * SECOND);
            drop(pending);
            assert_eq!(flow.standstill_at(now * SECOND), None);
        }
        assert!(flow.standstill_at(110 * SECOND).is_some());
        assert!(flow.standstill_at(138 * SECOND).is_some());
        assert_eq!(flow.standstill_at(139 * SECOND), None, "it is not known any more, and has to be tried");
        flow.failed_at(140 * SECOND);
        assert_eq!(flow.standstill_at(149 * SECOND), None);
        assert!(flow.standstill_at(150 * SECOND).is_some());
        flow.passed_at(151 * SECOND);
        assert_eq!(flow.standstill_at(170 * SECOND), None);
    }

    #[test]
    fn flow_goes_on_when_some_pieces_pass() {
        let flow = ProgressWatch::new("replies to be published");
        let _always = pending(&flow, SECOND);
        for now in 1..100 {
            flow.failed_at(now * SECOND);
            flow.passed_at(now * SECOND + 1);
            assert_eq!(flow.standstill_at(now * SECOND + 2), None);
        }
    }
}
