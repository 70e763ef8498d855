//! The room there is for requests under way, and how much of it a route takes.
//!
//! A route whose model is far behind would fill the whole window, and nothing else would be read any more. So it may
//! hold no more than what it leaves free: one such route takes half, two take a third each, and there is always some
//! room left. A route that answers quickly may hold what it likes: others get its room in a moment.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::load::{nanoseconds, now};
use crate::config::Kafka;

/// So long may its requests take, and the last of their ends be ago, of a route that answers quickly.
const QUICK: Duration = Duration::from_secs(1);
/// How much the latest request counts for the mean.
const WEIGHT: f64 = 0.125;

/// The room of all routes.
#[derive(Debug)]
pub(super) struct Room {
    /// Whether there is a place for requests that are put aside.
    is_bounded: bool,
    max_requests: usize,
    max_bytes: usize,
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// What one route takes of it. As with its load, what two requests write at once may be lost for one.
#[derive(Debug, Default)]
pub(super) struct Share {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    /// How long its requests have taken lately, in seconds: the bits of a float.
    mean: AtomicU64,
    /// When the last of them ended; 0 is never.
    ended: AtomicU64,
}

/// The place of one request, until it is dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    room: &'a Room,
    share: &'a Share,
    bytes: usize,
    since: Duration,
}

impl Room {
    pub(super) fn new(config: &Kafka) -> Self {
        Self {
            is_bounded: config.parks(),
            max_requests: config.max_in_flight,
            max_bytes: usize::try_from(config.max_in_flight_bytes.as_u64()).unwrap_or(usize::MAX),
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Whether a route is so far behind that it should not have more of the room.
    pub(super) fn is_short_for(&self, share: &Share) -> bool {
        self.is_short_at(share, now())
    }

    fn is_short_at(&self, share: &Share, now: Duration) -> bool {
        let exceeds = |own: &AtomicUsize, taken: &AtomicUsize, max: usize| {
            own.load(Ordering::Relaxed) > max.saturating_sub(taken.load(Ordering::Relaxed))
        };
        let is_large = exceeds(&share.requests, &self.requests, self.max_requests)
            || exceeds(&share.bytes, &self.bytes, self.max_bytes);
        self.is_bounded && is_large && !share.is_quick(now)
    }

    /// Gives a request of a route its place.
    pub(super) fn enter<'a>(&'a self, share: &'a Share, bytes: usize) -> Place<'a> {
        self.enter_at(share, bytes, now())
    }

    fn enter_at<'a>(&'a self, share: &'a Share, bytes: usize, since: Duration) -> Place<'a> {
        for (requests, of) in [(&self.requests, &self.bytes), (&share.requests, &share.bytes)] {
            requests.fetch_add(1, Ordering::Relaxed);
            of.fetch_add(bytes, Ordering::Relaxed);
        }
        Place { room: self, share, bytes, since }
    }
}

impl Share {
    fn took_at(&self, took: Duration, now: Duration) {
        let seconds = took.as_secs_f64();
        let mean = match self.is_recent(now) {
            true => f64::from_bits(self.mean.load(Ordering::Relaxed)) * (1.0 - WEIGHT) + seconds * WEIGHT,
            false => seconds,
        };
        self.mean.store(mean.to_bits(), Ordering::Relaxed);
        self.ended.store(nanoseconds(now), Ordering::Relaxed);
    }

    fn is_quick(&self, now: Duration) -> bool {
        self.is_recent(now) && f64::from_bits(self.mean.load(Ordering::Relaxed)) < QUICK.as_secs_f64()
    }

    /// Whether what is known of it is of now.
    fn is_recent(&self, now: Duration) -> bool {
        let ended = self.ended.load(Ordering::Relaxed);
        ended > 0 && nanoseconds(now).saturating_sub(ended) < nanoseconds(QUICK)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        for (requests, of) in [(&self.room.requests, &self.room.bytes), (&self.share.requests, &self.share.bytes)] {
            requests.fetch_sub(1, Ordering::Relaxed);
            of.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        let now = now();
        self.share.took_at(now.saturating_sub(self.since), now);
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn room(max_in_flight: usize) -> Room {
        Room::new(&Kafka {
            bootstrap_servers: "kafka:9092".to_owned(),
            max_in_flight,
            max_in_flight_bytes: ByteSize::b(1000),
            ..Kafka::default()
        })
    }

    /// How many requests of so many bytes a route gets in that wants as many as it can have.
    fn fill<'a>(room: &'a Room, share: &'a Share, bytes: usize) -> Vec<Place<'a>> {
        let mut places = Vec::new();
        while places.len() < 1_000 && !room.is_short_at(share, NOW) {
            places.push(room.enter_at(share, bytes, NOW));
        }
        places
    }

    #[test]
    fn each_route_that_is_behind_leaves_as_much_as_it_takes() {
        let (room, first, second, third) = (room(100), Share::default(), Share::default(), Share::default());
        let places = fill(&room, &first, 0);
        assert_eq!(places.len(), 51);
        assert_eq!(fill(&room, &second, 0).len(), 25);
        let others = fill(&room, &second, 0);
        assert!(!room.is_short_at(&third, NOW), "there is room for one that has nothing");
        assert!(room.is_short_at(&first, NOW), "the first makes way for the second");
        drop((places, others));
        assert_eq!((room.requests.into_inner(), first.requests.into_inner()), (0, 0));
    }

    #[test]
    fn large_requests_take_room_too() {
        let (room, share) = (room(100), Share::default());
        assert_eq!(fill(&room, &share, 100).len(), 6);
    }

    #[test]
    fn whoever_answers_quickly_may_have_it_all() {
        let (room, share) = (room(100), Share::default());
        share.took_at(Duration::from_millis(200), NOW);
        let places = fill(&room, &share, 0);
        assert_eq!(places.len(), 1_000);
        assert!(room.is_short_at(&share, NOW + QUICK), "it has ended nothing since");
        (0..30).for_each(|_| share.took_at(Duration::from_secs(5), NOW));
        assert!(room.is_short_at(&share, NOW), "it has become slow");
    }

    #[test]
    fn where_nothing_can_be_put_aside_there_is_room_for_all() {
        let config = Kafka { max_in_flight: 1, ..Kafka::default() };
        let (room, share) = (Room::new(&config), Share::default());
        assert_eq!(fill(&room, &share, 0).len(), 1_000);
    }
}
