//! The requests of a route that wait for a place at its model, each for a call of its own; and whether one more can be in
//! time. What cannot be is refused before it costs a call.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::poll;
use tokio::time::Instant;

use super::load::now;
use crate::message::{Code, Fault, Stage};

/// So many calls tell how long one takes at least.
const RECENT: usize = 8;

/// Calls that were made longer ago tell nothing.
const MEMORY: Duration = Duration::from_secs(60);

/// Who waits, in the order of their coming.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Line {
    waiting: Mutex<Waiting>,
    /// How many wait. While nobody does, nobody takes a lock to know that.
    length: AtomicUsize,
    pace: Pace,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Until when each waits.
    deadlines: BTreeMap<u64, Option<Instant>>,
    next: u64,
}

/// A request's place in the line, until its turn comes or it goes away.
struct Place<'a> {
    line: &'a Line,
    number: u64,
}

/// How long the latest calls took. It is read and written without a lock; what two calls write at once may be lost for
/// one.
#[derive(Debug, Default)]
struct Pace {
    /// In nanoseconds, each at its number modulo their count.
    recent: [AtomicU64; RECENT],
    calls: AtomicUsize,
    /// When the latest has ended, in nanoseconds by the pipeline's clock.
    seen: AtomicU64,
}

impl Line {
    /// Why a request with this deadline need not wait, if that is so: those before it take longer, even if each call from
    /// now on is as quick as the quickest of the latest. `places` are those of its model. Where nobody waits there is
    /// always hope.
    pub(in crate::pipeline) fn hopeless(&self, deadline: Option<Instant>, places: usize) -> Option<Fault> {
        let deadline = deadline.filter(|_| self.is_there_anybody())?;
        let (call, begin) = (self.pace.quickest_at(now())?, Instant::now());
        let left = |deadline: Instant| deadline.saturating_duration_since(begin);
        let turn = earliest_turn(self.waiting().deadlines.values().map(|it| it.map(left)), places, call);
        (turn + call > left(deadline)).then(|| refused(turn, left(deadline)))
    }

    /// Waits for a lease. Who gets it too late for any call leaves it to the next.
    pub(in crate::pipeline) async fn wait<Lease>(
        &self,
        deadline: Option<Instant>,
        mut leasing: Pin<&mut impl Future<Output = Result<Lease, Fault>>>,
    ) -> Result<Lease, Fault> {
        if let Poll::Ready(lease) = poll!(leasing.as_mut()) {
            return lease;
        }
        let place = self.enter(deadline);
        let lease = leasing.await?;
        drop(place);
        match deadline.filter(|_| self.is_there_anybody()).zip(self.pace.quickest_at(now())) {
            Some((deadline, call)) if Instant::now() + call > deadline => Err(too_late(call)),
            _ => Ok(lease),
        }
    }

    /// Takes account of a call that has ended.
    pub(in crate::pipeline) fn took_at(&self, took: Duration, now: Duration) {
        self.pace.took_at(took, now);
    }

    fn enter(&self, deadline: Option<Instant>) -> Place<'_> {
        let mut waiting = self.waiting();
        waiting.next += 1;
        let number = waiting.next;
        waiting.deadlines.insert(number, deadline);
        self.length.store(waiting.deadlines.len(), Ordering::Relaxed);
        Place { line: self, number }
    }

    fn is_there_anybody(&self) -> bool {
        self.length.load(Ordering::Relaxed) > 0
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.line.waiting();
        waiting.deadlines.remove(&self.number);
        self.line.length.store(waiting.deadlines.len(), Ordering::Relaxed);
    }
}

impl Pace {
    fn took_at(&self, took: Duration, now: Duration) {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        self.recent[number % RECENT].store(nanoseconds(took), Ordering::Relaxed);
        self.seen.store(nanoseconds(now), Ordering::Relaxed);
    }

    /// How long the quickest of the latest calls took; none where there were too few lately.
    fn quickest_at(&self, now: Duration) -> Option<Duration> {
        let seen = Duration::from_nanos(self.seen.load(Ordering::Relaxed));
        if self.calls.load(Ordering::Relaxed) < RECENT || now.saturating_sub(seen) > MEMORY {
            return None;
        }
        self.recent.iter().map(|took| took.load(Ordering::Relaxed)).min().map(Duration::from_nanos)
    }
}

/// How long it takes at least until it is the turn of one who comes after all `ahead`, whose time is given that each of
/// them has left; with all places free now, and each call as long as `call`. Who has too little time left when its turn
/// comes is not called.
fn earliest_turn(ahead: impl Iterator<Item = Option<Duration>>, places: usize, call: Duration) -> Duration {
    let (mut turn, mut called) = (Duration::ZERO, 0);
    for left in ahead {
        if left.is_none_or(|left| left >= turn + call) {
            called += 1;
            if called == places.max(1) {
                (turn, called) = (turn + call, 0);
            }
        }
    }
    turn
}

/// What a request is told that need not wait: before it there is so much, and it has only so much time left.
pub(in crate::pipeline) fn refused(before: Duration, left: Duration) -> Fault {
    let message = format!(
        "at least {before:.1?} of calls are waiting before this request, which has {left:.0?} left; give the route more \
         `workers`, more `threads` or a higher `max_concurrency`, or come back later"
    );
    Fault::passing(Code::TemporarilyUnavailable, Stage::Invoke, message).with_retry_after(before)
}

fn too_late(call: Duration) -> Fault {
    let message = format!(
        "all places of the model were taken until there was less time left than the quickest of its latest calls took \
         ({call:.1?})"
    );
    Fault::passing(Code::DeadlineExceeded, Stage::Invoke, message)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use proptest::prelude::*;

    use super::*;

    const CALL: Duration = Duration::from_millis(100);

    const fn calls(count: u32) -> Duration {
        Duration::from_millis(100 * count as u64)
    }

    fn turn(ahead: &[Option<Duration>], places: usize) -> Duration {
        earliest_turn(ahead.iter().copied(), places, CALL)
    }

    fn paced(line: &Line) {
        (0..RECENT).for_each(|_| line.took_at(CALL, now()));
    }

    #[test]
    fn a_turn_comes_after_those_ahead_as_far_as_they_are_called() {
        assert_eq!(turn(&[], 1), Duration::ZERO);
        assert_eq!(turn(&[None; 5], 1), calls(5));
        assert_eq!(turn(&[None; 5], 2), calls(2));
        assert_eq!(turn(&[None; 5], usize::MAX), Duration::ZERO);
        // Ten who wait for as long as three calls take are no more than three calls.
        assert_eq!(turn(&[Some(calls(3)); 10], 1), calls(3));
        assert_eq!(turn(&[Some(calls(3)), None, Some(calls(1)), None], 1), calls(3));
    }

    #[test]
    fn the_quickest_of_the_latest_calls_tells_while_it_is_recent() {
        let (pace, now) = (Pace::default(), Duration::from_secs(100));
        (1..RECENT as u32).for_each(|count| pace.took_at(calls(count), now));
        assert_eq!(pace.quickest_at(now), None, "too few");
        pace.took_at(calls(9), now);
        assert_eq!(pace.quickest_at(now), Some(calls(1)));
        pace.took_at(calls(9), now);
        assert_eq!(pace.quickest_at(now + MEMORY), Some(calls(2)));
        assert_eq!(pace.quickest_at(now + MEMORY + CALL), None);
    }

    #[test]
    fn nobody_is_refused_without_reason() {
        let line = Line::default();
        let soon = Some(Instant::now() + Duration::from_millis(20));
        assert!(line.hopeless(soon, 1).is_none());
        let places = [None; 4].map(|deadline| line.enter(deadline));
        assert!(line.hopeless(soon, 1).is_none(), "nothing is known of its calls");
        paced(&line);
        let fault = line.hopeless(soon, 1).unwrap();
        assert_eq!((fault.code, fault.stage, fault.retryable), (Code::TemporarilyUnavailable, Stage::Invoke, true));
        assert_eq!(fault.retry_after, Some(calls(4)));
        assert!(fault.message.starts_with("at least 400.0ms of calls are waiting before this request"), "{fault}");
        assert!(line.hopeless(None, 1).is_none(), "it has all the time there is");
        assert!(line.hopeless(Some(Instant::now() + Duration::from_secs(60)), 1).is_none());
        drop(places);
        assert!(line.hopeless(soon, 1).is_none(), "nobody waits");
        assert!(line.waiting().deadlines.is_empty());
    }

    #[tokio::test]
    async fn who_gets_a_place_too_late_leaves_it_to_the_next() {
        let line = Line::default();
        paced(&line);
        let soon = Some(Instant::now() + CALL / 2);
        let at_once = pin!(async { Ok(()) });
        let next = line.enter(None);
        assert_eq!(line.wait(soon, at_once).await, Ok(()), "it has not waited");
        let later = async || {
            let leasing = pin!(async {
                tokio::task::yield_now().await;
                Ok(())
            });
            line.wait(soon, leasing).await
        };
        let fault = later().await.unwrap_err();
        assert_eq!((fault.code, fault.retryable), (Code::DeadlineExceeded, true));
        drop(next);
        assert_eq!(later().await, Ok(()), "nobody else wants it");
        assert!(!line.is_there_anybody());
    }

    /// When a place is free for the next, where each call takes that much longer.
    fn played(ahead: &[Option<Duration>], places: usize, slower: &[u32]) -> Duration {
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
        fn no_turn_comes_earlier(
            ahead in prop::collection::vec(prop::option::of(0u64..2_000), 0..60),
            slower in prop::collection::vec(0u32..300, 60),
            places in 1usize..6,
        ) {
            let ahead: Vec<_> = ahead.into_iter().map(|left| left.map(Duration::from_millis)).collect();
            prop_assert_eq!(turn(&ahead, places), played(&ahead, places, &[0; 60]));
            let patient = vec![None; ahead.len()];
            prop_assert!(turn(&patient, places) <= played(&patient, places, &slower));
        }
    }
}
