//! Admission control for the requests in flight: a bulkhead between routes.
//!
//! A route whose model is far behind would fill the whole window, and no other route's requests would be read any more.
//! So a route may hold no more than it leaves free: one such route takes half, two take a third each, and there is
//! always some room left. A route may hold more than that if it is no more than it has ended within the last second:
//! other routes get its room in a moment.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::route::clock::now;
use super::route::share::RouteShare;
use crate::config::Kafka;

/// Counts the requests in flight of all routes, and tells which route holds too many.
#[derive(Debug)]
pub(super) struct AdmissionControl {
    /// Tells whether requests beyond a route's share can be put aside, in the overflow topic.
    is_bounded: bool,
    max_requests: usize,
    max_bytes: usize,
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// Counts one request as in flight until it is dropped.
#[derive(Debug)]
pub(super) struct InFlightPermit<'a> {
    admission: &'a AdmissionControl,
    share: &'a RouteShare,
    bytes: usize,
}

impl AdmissionControl {
    /// Takes the limits of the intake's window.
    pub(super) fn new(config: &Kafka) -> Self {
        Self {
            is_bounded: config.parks(),
            max_requests: config.max_in_flight,
            max_bytes: usize::try_from(config.max_in_flight_bytes.as_u64()).unwrap_or(usize::MAX),
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Tells whether a route is so far behind that it should not hold more requests in flight.
    pub(super) fn is_exhausted_for(&self, share: &RouteShare) -> bool {
        self.is_exhausted_at(share, now())
    }

    fn is_exhausted_at(&self, share: &RouteShare, now: Duration) -> bool {
        let exceeds = |own: &AtomicUsize, taken: &AtomicUsize, max: usize| {
            own.load(Ordering::Relaxed) > max.saturating_sub(taken.load(Ordering::Relaxed))
        };
        let is_large = exceeds(&share.requests, &self.requests, self.max_requests)
            || exceeds(&share.bytes, &self.bytes, self.max_bytes);
        self.is_bounded
            && is_large
            && share.requests.load(Ordering::Relaxed) as f64 > share.ended_within_last_second(now)
    }

    /// Admits a request of a route, whatever the route holds already.
    pub(super) fn admit<'a>(&'a self, share: &'a RouteShare, bytes: usize) -> InFlightPermit<'a> {
        for (requests, of) in [(&self.requests, &self.bytes), (&share.requests, &share.bytes)] {
            requests.fetch_add(1, Ordering::Relaxed);
            of.fetch_add(bytes, Ordering::Relaxed);
        }
        InFlightPermit { admission: self, share, bytes }
    }
}

impl Drop for InFlightPermit<'_> {
    fn drop(&mut self) {
        let counts = [(&self.admission.requests, &self.admission.bytes), (&self.share.requests, &self.share.bytes)];
        for (requests, of) in counts {
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

    fn admission(max_in_flight: usize) -> AdmissionControl {
        AdmissionControl::new(&Kafka {
            bootstrap_servers: "kafka:9092".to_owned(),
            max_in_flight,
            max_in_flight_bytes: ByteSize::b(1000),
            ..Kafka::default()
        })
    }

    /// Admits requests of a given size for a route until it holds as many as it can.
    fn fill<'a>(admission: &'a AdmissionControl, share: &'a RouteShare, bytes: usize) -> Vec<InFlightPermit<'a>> {
        let mut permits = Vec::new();
        while permits.len() < 1_000 && !admission.is_exhausted_at(share, NOW) {
            permits.push(admission.admit(share, bytes));
        }
        permits
    }

    #[test]
    fn route_leaves_as_much_as_it_takes_when_it_is_behind() {
        let (admission, first, second, third) =
            (admission(100), RouteShare::default(), RouteShare::default(), RouteShare::default());
        let permits = fill(&admission, &first, 0);
        assert_eq!(permits.len(), 51);
        assert_eq!(fill(&admission, &second, 0).len(), 25);
        let others = fill(&admission, &second, 0);
        assert!(!admission.is_exhausted_at(&third, NOW), "there is room for one that has nothing");
        assert!(admission.is_exhausted_at(&first, NOW), "the first makes way for the second");
        drop((permits, others));
        assert_eq!((admission.requests.into_inner(), first.requests.into_inner()), (0, 0));
    }

    #[test]
    fn route_is_exhausted_when_its_requests_are_large() {
        let (admission, share) = (admission(100), RouteShare::default());
        assert_eq!(fill(&admission, &share, 100).len(), 6);
    }

    #[test]
    fn route_holds_more_when_it_ends_as_many_within_a_second() {
        let (admission, share) = (admission(100), RouteShare::default());
        (0..80).for_each(|_| share.end_at(NOW));
        assert_eq!(share.ended_within_last_second(NOW + Duration::from_millis(500)), 80.0);
        assert_eq!(share.ended_within_last_second(NOW + Duration::from_millis(1_500)), 40.0);
        let permits = fill(&admission, &share, 0);
        assert_eq!(permits.len(), 81);
        assert!(admission.is_exhausted_at(&share, NOW + Duration::from_secs(2)), "it has ended nothing since");
        share.end_at(NOW + Duration::from_secs(1));
        assert_eq!(share.ended_within_last_second(NOW + Duration::from_millis(1_250)), 61.0);
        share.end_at(NOW + Duration::from_secs(3));
        assert_eq!(share.ended_within_last_second(NOW + Duration::from_secs(3)), 1.0);
    }

    #[test]
    fn all_requests_are_admitted_when_none_can_be_put_aside() {
        let config = Kafka { max_in_flight: 1, ..Kafka::default() };
        let (admission, share) = (AdmissionControl::new(&config), RouteShare::default());
        assert_eq!(fill(&admission, &share, 0).len(), 1_000);
    }
}
