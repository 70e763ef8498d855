//! The wait queue of a route, for requests that are called singly; the duration of the latest calls; and load shedding: a
//! request that cannot be in time is refused before it costs a call.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::poll;
use tokio::time::Instant;

use super::clock::{nanoseconds, now};
use crate::message::{Deadline, Fault, Step};

/// Number of the latest calls whose quickest tells how long a call takes at least: a single one may have had to import
/// something first. With fewer calls nothing is known, and no request is shed.
const RECENT: usize = 8;

/// Time in seconds after the latest call until all of them are too old to tell anything; then no request is shed.
const MEMORY: Duration = Duration::from_secs(60);

/// Queues a route's requests for a lease of its model, in the order of their coming.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct WaitQueue {
    waiters: Mutex<Waiters>,
    /// Number of waiters. While there are none, no request takes the lock to know that.
    length: AtomicUsize,
    service_times: ServiceTimes,
}

#[derive(Debug, Default)]
struct Waiters {
    /// Deadline of each waiter, by its number.
    deadlines: BTreeMap<u64, Deadline>,
    next: u64,
}

/// Holds a request's position in the queue, until its turn comes or it goes away.
struct QueuePosition<'a> {
    queue: &'a WaitQueue,
    number: u64,
}

/// Remembers how long the latest calls took, without a lock: of two calls that write at once, one may be lost.
#[derive(Debug, Default)]
pub(super) struct ServiceTimes {
    /// Duration of each call in nanoseconds, at the call's number modulo their count.
    recent: [AtomicU64; RECENT],
    calls: AtomicUsize,
    /// End of the latest call, in nanoseconds of the route clock.
    seen: AtomicU64,
}

impl WaitQueue {
    /// Sheds a request with this deadline, if the waiters before it take longer than it has left, even if each call
    /// from now on is as quick as the quickest of the latest. `places` are those of its model. No request is shed while
    /// none waits.
    pub(super) fn sheds(&self, deadline: Deadline, places: usize) -> Option<Fault> {
        if !self.has_waiters() {
            return None;
        }
        let (call, begin) = (self.service_times.quickest_at(now())?, Instant::now());
        let before = earliest_turn(self.waiters.lock().deadlines.values().map(|it| it.left_at(begin)), places, call);
        deadline.require(before + call, Step::Queueing(before)).err()
    }

    /// Waits for a lease. A request that gets its lease too late for any call leaves it to the next.
    pub(in crate::pipeline) async fn wait<Lease>(
        &self,
        deadline: Deadline,
        mut leasing: Pin<&mut impl Future<Output = Result<Lease, Fault>>>,
    ) -> Result<Lease, Fault> {
        if let Poll::Ready(lease) = poll!(leasing.as_mut()) {
            return lease;
        }
        let position = self.enter(deadline);
        let lease = leasing.await?;
        drop(position);
        if let Some(call) = self.service_times.quickest_at(now()).filter(|_| self.has_waiters()) {
            deadline.require(call, Step::Turn(call))?;
        }
        Ok(lease)
    }

    /// Remembers the duration of a call that has ended.
    pub(in crate::pipeline) fn record_at(&self, took: Duration, now: Duration) {
        self.service_times.record_at(took, now);
    }

    fn enter(&self, deadline: Deadline) -> QueuePosition<'_> {
        let mut waiters = self.waiters.lock();
        waiters.next += 1;
        let number = waiters.next;
        waiters.deadlines.insert(number, deadline);
        self.length.store(waiters.deadlines.len(), Ordering::Relaxed);
        QueuePosition { queue: self, number }
    }

    fn has_waiters(&self) -> bool {
        self.length.load(Ordering::Relaxed) > 0
    }
}

impl Drop for QueuePosition<'_> {
    fn drop(&mut self) {
        let mut waiters = self.queue.waiters.lock();
        waiters.deadlines.remove(&self.number);
        self.queue.length.store(waiters.deadlines.len(), Ordering::Relaxed);
    }
}

impl ServiceTimes {
    pub(super) fn record_at(&self, took: Duration, now: Duration) {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        self.recent[number % RECENT].store(nanoseconds(took), Ordering::Relaxed);
        self.seen.store(nanoseconds(now), Ordering::Relaxed);
    }

    /// Returns the duration of the quickest of the latest calls; none when there were too few of late.
    pub(super) fn quickest_at(&self, now: Duration) -> Option<Duration> {
        let seen = Duration::from_nanos(self.seen.load(Ordering::Relaxed));
        if self.calls.load(Ordering::Relaxed) < RECENT || now.saturating_sub(seen) > MEMORY {
            return None;
        }
        self.recent.iter().map(|took| took.load(Ordering::Relaxed)).min().map(Duration::from_nanos)
    }
}

/// Computes the earliest turn of a request that comes after all `ahead`, for each of which the time is given that it has
/// left; with all places free now, and each call as long as `call`. A request that has too little time left when its turn
/// comes is not called, and so takes no place.
fn earliest_turn(ahead: impl Iterator<Item = Duration>, places: usize, call: Duration) -> Duration {
    let (mut turn, mut called) = (Duration::ZERO, 0);
    for left in ahead {
        if left >= turn + call {
            called += 1;
            if called == places.max(1) {
                (turn, called) = (turn + call, 0);
            }
        }
    }
    turn
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use proptest::prelude::*;

    use super::*;
    use crate::message::{Code, Stage};

    const CALL: Duration = Duration::from_millis(100);

    const fn calls(count: u32) -> Duration {
        Duration::from_millis(100 * count as u64)
    }

    fn turn(ahead: &[Option<Duration>], places: usize) -> Duration {
        earliest_turn(ahead.iter().map(|left| left.unwrap_or(Duration::MAX)), places, CALL)
    }

    fn record_calls(queue: &WaitQueue) {
        (0..RECENT).for_each(|_| queue.record_at(CALL, now()));
    }

    #[test]
    fn turn_comes_after_those_ahead_that_are_called() {
        assert_eq!(turn(&[], 1), Duration::ZERO);
        assert_eq!(turn(&[None; 5], 1), calls(5));
        assert_eq!(turn(&[None; 5], 2), calls(2));
        assert_eq!(turn(&[None; 5], usize::MAX), Duration::ZERO);
        // Ten waiters with as much time as three calls take get no more than three calls.
        assert_eq!(turn(&[Some(calls(3)); 10], 1), calls(3));
        assert_eq!(turn(&[Some(calls(3)), None, Some(calls(1)), None], 1), calls(3));
    }

    #[test]
    fn quickest_call_is_known_while_calls_are_recent() {
        let (times, now) = (ServiceTimes::default(), Duration::from_secs(100));
        (1..RECENT as u32).for_each(|count| times.record_at(calls(count), now));
        assert_eq!(times.quickest_at(now), None, "too few");
        times.record_at(calls(9), now);
        assert_eq!(times.quickest_at(now), Some(calls(1)));
        times.record_at(calls(9), now);
        assert_eq!(times.quickest_at(now + MEMORY), Some(calls(2)));
        assert_eq!(times.quickest_at(now + MEMORY + CALL), None);
    }

    #[test]
    fn queue_sheds_only_when_deadline_is_unreachable() {
        let queue = WaitQueue::default();
        let soon = Deadline::NONE.within(Duration::from_millis(20));
        assert!(queue.sheds(soon, 1).is_none());
        let places = [Deadline::NONE; 4].map(|deadline| queue.enter(deadline));
        assert!(queue.sheds(soon, 1).is_none(), "nothing is known of its calls");
        record_calls(&queue);
        let fault = queue.sheds(soon, 1).unwrap();
        assert_eq!((fault.code, fault.stage, fault.retryable), (Code::TemporarilyUnavailable, Stage::Invoke, true));
        assert_eq!(fault.retry_after, Some(calls(4)));
        assert!(fault.message.starts_with("at least 400.0ms of calls are waiting before this request"), "{fault}");
        assert!(queue.sheds(Deadline::NONE, 1).is_none(), "it has all the time there is");
        assert!(queue.sheds(Deadline::NONE.within(Duration::from_secs(60)), 1).is_none());
        drop(places);
        assert!(queue.sheds(soon, 1).is_none(), "nobody waits");
        assert!(queue.waiters.lock().deadlines.is_empty());
    }

    #[tokio::test]
    async fn waiter_leaves_lease_to_next_when_it_comes_too_late() {
        let queue = WaitQueue::default();
        record_calls(&queue);
        let soon = Deadline::NONE.within(CALL / 2);
        let at_once = pin!(async { Ok(()) });
        let next = queue.enter(Deadline::NONE);
        assert_eq!(queue.wait(soon, at_once).await, Ok(()), "it has not waited");
        let later = async || {
            let leasing = pin!(async {
                tokio::task::yield_now().await;
                Ok(())
            });
            queue.wait(soon, leasing).await
        };
        let fault = later().await.unwrap_err();
        assert_eq!((fault.code, fault.retryable), (Code::DeadlineExceeded, true));
        drop(next);
        assert_eq!(later().await, Ok(()), "nobody else wants it");
        assert!(!queue.has_waiters());
    }

    /// Simulates when a place is free for the next request, with each call that much slower.
    fn simulated(ahead: &[Option<Duration>], places: usize, slower: &[u32]) -> Duration {
        let mut free = vec![Duration::ZERO; places];
        for (left, slower) in ahead.iter().zip(slower) {
            let first = free.iter_mut().min().unwrap();
            if left.is_none_or(|left| left >= *first + CALL) {
                *first += CALL + Duration::from_millis((*slower).into());
            }
        }
        free.into_iter().min().unwrap()
    }

    proptest! {
        #[test]
        fn turn_comes_no_earlier_when_calls_are_slower(
            ahead in prop::collection::vec(prop::option::of(0u64..2_000), 0..60),
            slower in prop::collection::vec(0u32..300, 60),
            places in 1usize..6,
        ) {
            let ahead: Vec<_> = ahead.into_iter().map(|left| left.map(Duration::from_millis)).collect();
            prop_assert_eq!(turn(&ahead, places), simulated(&ahead, places, &[0; 60]));
            let patient = vec![None; ahead.len()];
            prop_assert!(turn(&patient, places) <= simulated(&patient, places, &slower));
        }
    }
}
