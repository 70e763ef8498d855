//! The room there is for requests under way, and how much of it a route takes.
//!
//! A route whose model is far behind would fill the whole window, and nothing else would be read any more. So it may
//! hold no more than what it leaves free: one such route takes half, two take a third each, and there is always some
//! room left. A route may hold more than that if it is no more than it has ended within the last second: others get
//! its room in a moment.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::route::load::now;
use crate::config::Kafka;

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
    /// The second in which the latest of them ended.
    second: AtomicU64,
    /// How many ended in that second so far, and in the one before.
    ended: AtomicUsize,
    ended_before: AtomicUsize,
}

/// The place of one request, until it is dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    room: &'a Room,
    share: &'a Share,
    bytes: usize,
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
        self.is_bounded && is_large && share.requests.load(Ordering::Relaxed) as f64 > share.ended_lately(now)
    }

    /// Gives a request of a route its place.
    pub(super) fn enter<'a>(&'a self, share: &'a Share, bytes: usize) -> Place<'a> {
        for (requests, of) in [(&self.requests, &self.bytes), (&share.requests, &share.bytes)] {
            requests.fetch_add(1, Ordering::Relaxed);
            of.fetch_add(bytes, Ordering::Relaxed);
        }
        Place { room: self, share, bytes }
    }
}

impl Share {
    fn end_at(&self, now: Duration) {
        let second = now.as_secs();
        let before = self.second.swap(second, Ordering::Relaxed);
        if before != second {
            let ended = self.ended.swap(0, Ordering::Relaxed);
            self.ended_before.store(if before + 1 == second { ended } else { 0 }, Ordering::Relaxed);
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests have ended within the last second, as if those of a second were spread over it.
    fn ended_lately(&self, now: Duration) -> f64 {
        let rest = 1.0 - f64::from(now.subsec_nanos()) / 1e9;
        let ended = self.ended.load(Ordering::Relaxed) as f64;
        match now.as_secs().saturating_sub(self.second.load(Ordering::Relaxed)) {
            0 => ended + self.ended_before.load(Ordering::Relaxed) as f64 * rest,
            1 => ended * rest,
            _ => 0.0,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        for (requests, of) in [(&self.room.requests, &self.room.bytes), (&self.share.requests, &self.share.bytes)] {
            requests.fetch_sub(1, Ordering::Relaxed);
            of.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.share.end_at(now());
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
            places.push(room.enter(share, bytes));
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
    fn what_ends_within_a_second_may_take_more() {
        let (room, share) = (room(100), Share::default());
        (0..80).for_each(|_| share.end_at(NOW));
        assert_eq!(share.ended_lately(NOW + Duration::from_millis(500)), 80.0);
        assert_eq!(share.ended_lately(NOW + Duration::from_millis(1_500)), 40.0);
        let places = fill(&room, &share, 0);
        assert_eq!(places.len(), 81);
        assert!(room.is_short_at(&share, NOW + Duration::from_secs(2)), "it has ended nothing since");
        share.end_at(NOW + Duration::from_secs(1));
        assert_eq!(share.ended_lately(NOW + Duration::from_millis(1_250)), 61.0);
        share.end_at(NOW + Duration::from_secs(3));
        assert_eq!(share.ended_lately(NOW + Duration::from_secs(3)), 1.0);
    }

    #[test]
    fn where_nothing_can_be_put_aside_there_is_room_for_all() {
        let config = Kafka { max_in_flight: 1, ..Kafka::default() };
        let (room, share) = (Room::new(&config), Share::default());
        assert_eq!(fill(&room, &share, 0).len(), 1_000);
    }
}
