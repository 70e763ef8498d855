//! Who waits for which reply.
//!
//! A call is *admitted* (it counts), then *waits* under its correlation id; dropping it at either point, for whatever
//! reason, forgets it. Sharded, so that callers and the thread that reads replies seldom meet; no lock is held while
//! anything waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prometheus::IntGauge;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::message::{Callers, Code, Fault, Headers, Stage};

const SHARDS: usize = 64;

/// One record of the replies topic.
#[derive(Debug)]
pub(super) struct ReplyRecord {
    pub(super) headers: Headers,
    pub(super) body: Bytes,
}

/// What a caller who waits gets: the reply, or why there will be none.
pub(super) type Answer = Result<ReplyRecord, Fault>;

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Calls.
    pub(super) calls: usize,
    /// Bytes of their requests, where the broker must not be filled up.
    pub(super) bytes: Option<usize>,
}

/// Everyone who waits.
#[derive(Debug)]
pub(super) struct Pending {
    shards: Vec<Shard>,
    limits: Limits,
    calls: AtomicUsize,
    bytes: AtomicUsize,
    /// Whether replies can be read. Changed before the shards are drained, and read under a shard's lock.
    open: AtomicBool,
    /// Those who have gone before their answer came are noted there.
    callers: Callers,
    gauge: IntGauge,
}

type Shard = Mutex<HashMap<Uuid, oneshot::Sender<Answer>>>;

/// A call that counts, and waits for nothing yet.
#[derive(Debug)]
pub(super) struct Admission {
    pending: Arc<Pending>,
}

/// A call that waits for its reply.
#[derive(Debug)]
pub(super) struct Waiter {
    admission: Admission,
    correlation: Uuid,
    bytes: usize,
    answer: oneshot::Receiver<Answer>,
}

impl Pending {
    /// Nobody waits, and nobody may until it is opened.
    pub(super) fn new(limits: Limits, callers: Callers, gauge: IntGauge) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            limits,
            calls: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            open: AtomicBool::new(false),
            callers,
            gauge,
        }
    }

    /// From now on replies are read, so calls may wait for them.
    pub(super) fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// From now on nobody may wait, and whoever does is told so.
    pub(super) fn close(&self) {
        self.open.store(false, Ordering::SeqCst);
        for shard in &self.shards {
            for (_, caller) in lock(shard).drain() {
                // A caller who has just gone needs no answer.
                let _ = caller.send(Err(closed()));
            }
        }
    }

    /// Counts a call in.
    ///
    /// # Errors
    /// When as many as may wait do so already, or no reply could be read.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Admission, Fault> {
        if !self.open.load(Ordering::SeqCst) {
            return Err(closed());
        }
        if !take(&self.calls, 1, self.limits.calls) {
            return Err(exhausted(format!("{} calls wait for their answers already", self.limits.calls)));
        }
        self.gauge.inc();
        Ok(Admission { pending: self.clone() })
    }

    /// Gives the caller with this correlation id its answer; false when nobody waits under it.
    pub(super) fn complete(&self, correlation: Uuid, answer: Answer) -> bool {
        let caller = lock(self.shard(correlation)).remove(&correlation);
        if caller.is_none() {
            self.callers.forget(correlation);
        }
        caller.is_some_and(|caller| caller.send(answer).is_ok())
    }

    fn shard(&self, correlation: Uuid) -> &Shard {
        // The last byte of a version 7 UUID is random.
        &self.shards[usize::from(correlation.as_bytes()[15]) % SHARDS]
    }
}

impl Admission {
    /// Waits under this correlation id for the reply to a request of so many bytes. To be called before the request is
    /// produced: its reply may be faster than we are.
    ///
    /// # Errors
    /// When the broker holds as many unanswered bytes as it may, or no reply could be read.
    pub(super) fn wait(self, correlation: Uuid, bytes: usize) -> Result<Waiter, Fault> {
        let pending = self.pending.clone();
        if !take(&pending.bytes, bytes, pending.limits.bytes.unwrap_or(usize::MAX)) {
            let message = "the embedded broker holds as many unanswered requests as it can without losing any; a real \
                           broker has no such limit";
            return Err(exhausted(message));
        }
        let (caller, answer) = oneshot::channel();
        let waiter = Waiter { admission: self, correlation, bytes, answer };
        let mut shard = lock(pending.shard(correlation));
        if !pending.open.load(Ordering::SeqCst) {
            drop(shard);
            return Err(closed());
        }
        shard.insert(correlation, caller);
        drop(shard);
        Ok(waiter)
    }
}

impl Waiter {
    /// The reply, or why there will be none.
    pub(super) async fn answer(&mut self) -> Answer {
        // The sender is only ever dropped after it has sent.
        (&mut self.answer).await.unwrap_or_else(|_| Err(closed()))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let pending = &self.admission.pending;
        let mut shard = lock(pending.shard(self.correlation));
        if shard.remove(&self.correlation).is_some() {
            // Before the reply can come by.
            pending.callers.hung_up(self.correlation);
        }
        drop(shard);
        pending.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.pending.calls.fetch_sub(1, Ordering::AcqRel);
        self.pending.gauge.dec();
    }
}

/// Adds to a counter unless that would exceed its limit.
fn take(counter: &AtomicUsize, amount: usize, limit: usize) -> bool {
    let within = |held: usize| held.checked_add(amount).filter(|sum| *sum <= limit);
    counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, within).is_ok()
}

fn lock(shard: &Shard) -> MutexGuard<'_, HashMap<Uuid, oneshot::Sender<Answer>>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn exhausted(message: impl Into<String>) -> Fault {
    Fault::passing(Code::ResourceExhausted, Stage::Publish, message).with_retry_after(Duration::from_secs(1))
}

fn closed() -> Fault {
    let message = "this instance is starting or shutting down and takes no calls; try again, or another instance";
    Fault::passing(Code::TemporarilyUnavailable, Stage::Publish, message).with_retry_after(Duration::from_secs(1))
}

#[cfg(test)]
impl Pending {
    /// Callers under whose correlation id a reply would be taken.
    pub(super) fn waiting(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Calls, and bytes of their requests, that count against the limits.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.calls.load(Ordering::SeqCst), self.bytes.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn pending(calls: usize, bytes: Option<usize>) -> Arc<Pending> {
        let gauge = IntGauge::new("pending", "callers").unwrap();
        let pending = Arc::new(Pending::new(Limits { calls, bytes }, Callers::default(), gauge));
        pending.open();
        pending
    }

    fn reply(text: &'static str) -> Answer {
        Ok(ReplyRecord { headers: Headers::default(), body: Bytes::from_static(text.as_bytes()) })
    }

    #[tokio::test]
    async fn the_first_reply_is_taken_and_its_repeats_are_not() {
        let pending = pending(1, None);
        let id = Uuid::now_v7();
        let mut waiter = pending.admit().unwrap().wait(id, 10).unwrap();
        assert!(!pending.complete(Uuid::now_v7(), reply("another's")));
        assert!(pending.complete(id, reply("first")));
        assert!(!pending.complete(id, reply("second")));
        assert_eq!(&waiter.answer().await.unwrap().body[..], b"first");
        drop(waiter);
        assert_eq!((pending.waiting(), pending.held()), (0, (0, 0)));
    }

    #[test]
    fn no_more_calls_or_bytes_than_may_wait() {
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
    async fn who_goes_before_the_answer_comes_has_hung_up_until_it_does() {
        let pending = pending(10, None);
        let ids = [(); 3].map(|()| Uuid::now_v7());
        let [gone, answered, told] = ids.map(|id| pending.admit().unwrap().wait(id, 1).unwrap());
        let have_gone = || ids.map(|id| pending.callers.by_id(id).has_gone());
        pending.complete(ids[1], reply("in time"));
        drop((gone, answered));
        assert_eq!(have_gone(), [true, false, false]);
        assert!(!pending.complete(ids[0], reply("too late")));
        pending.close();
        drop(told);
        assert_eq!(have_gone(), [false; 3]);
    }

    #[tokio::test]
    async fn closing_answers_everyone_and_lets_nobody_in() {
        let pending = pending(10, None);
        let admission = pending.admit().unwrap();
        let mut waiter = pending.admit().unwrap().wait(Uuid::now_v7(), 1).unwrap();
        pending.close();
        assert_eq!(waiter.answer().await.unwrap_err().code.status(), 503);
        assert_eq!(admission.wait(Uuid::now_v7(), 1).unwrap_err().code.status(), 503);
        assert_eq!(pending.admit().unwrap_err().code.status(), 503);
        drop(waiter);
        assert_eq!((pending.waiting(), pending.held()), (0, (0, 0)));
    }

    #[tokio::test]
    async fn a_hundred_thousand_who_give_up_leave_nothing_behind() {
        let pending = pending(200_000, None);
        let waiters: Vec<_> =
            (0..100_000).map(|_| pending.admit().unwrap().wait(Uuid::now_v7(), 100).unwrap()).collect();
        assert_eq!((pending.waiting(), pending.held()), (100_000, (100_000, 10_000_000)));
        drop(waiters);
        assert_eq!((pending.waiting(), pending.held()), (0, (0, 0)));
        assert!(pending.shards.iter().all(|shard| lock(shard).is_empty()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn callers_that_race_with_their_replies_and_with_closing_all_end() {
        let pending = pending(10_000, None);
        let (to_reader, from_callers) = std::sync::mpsc::channel::<Uuid>();
        let reader = std::thread::spawn({
            let pending = pending.clone();
            move || from_callers.iter().filter(|id| pending.complete(*id, reply("x"))).count()
        });
        let callers: Vec<_> = (0..2_000)
            .map(|number| {
                let (pending, to_reader) = (pending.clone(), to_reader.clone());
                tokio::spawn(async move {
                    let Ok(admission) = pending.admit() else { return false };
                    let id = Uuid::now_v7();
                    let Ok(mut waiter) = admission.wait(id, 1) else { return false };
                    to_reader.send(id).unwrap();
                    if number == 1_500 {
                        pending.close();
                    }
                    waiter.answer().await.is_ok()
                })
            })
            .collect();
        drop(to_reader);
        let mut answered = 0;
        for caller in callers {
            answered += usize::from(caller.await.unwrap());
        }
        assert_eq!(answered, reader.join().unwrap());
        assert_eq!((pending.waiting(), pending.held()), (0, (0, 0)));
    }

    proptest! {
        /// Against a plain set: whoever waits is completed exactly once, and the counts are those of the set.
        #[test]
        fn agrees_with_a_set(steps in prop::collection::vec((0u8..3, 0u128..8), 0..200)) {
            let pending = pending(6, Some(25));
            let mut model = HashSet::new();
            let mut waiters = HashMap::new();
            for (step, id) in steps {
                let id = Uuid::from_u128(id);
                match step {
                    0 if !waiters.contains_key(&id) => {
                        let admitted = pending.admit().and_then(|admission| admission.wait(id, 5));
                        prop_assert_eq!(admitted.is_ok(), waiters.len() < 5);
                        if let Ok(waiter) = admitted {
                            model.insert(id);
                            waiters.insert(id, waiter);
                        }
                    }
                    1 => prop_assert_eq!(pending.complete(id, reply("x")), model.remove(&id)),
                    _ => {
                        model.remove(&id);
                        waiters.remove(&id);
                    }
                }
                prop_assert_eq!(pending.waiting(), model.len());
                prop_assert_eq!(pending.held(), (waiters.len(), 5 * waiters.len()));
            }
        }
    }
}
