//! Parked requests: requests in a retry topic, as they came, with the headers by which they are known again.

use rdkafka::message::OwnedHeaders;

use super::record::{headers_of, with};
use crate::config::RetryTopic;
use crate::message::{Parked, Request, since_1970};

/// Retry topic in which a request is parked, and the reason.
#[derive(Debug, Clone)]
pub struct Parking {
    /// The retry topic.
    pub topic: RetryTopic,
    /// Times that the request has failed for a passing reason, this time included.
    pub failures: u32,
    /// Reason as the label of a metric: `failed` or `behind`.
    pub reason: &'static str,
}

/// Builds the headers of a parked request: its own, then ours. `calls` is how often models were called for the request.
pub(super) fn parked_headers(request: &Request, parking: &Parking, calls: u32) -> OwnedHeaders {
    let now = since_1970();
    let due = i64::try_from((now + parking.topic.delay).as_millis()).unwrap_or(i64::MAX);
    let added = Parked { failures: parking.failures, calls, overflowed: false }.headers(request, due);
    let headers = headers_of(request, added.len());
    added.iter().fold(headers, |headers, (name, value)| with(headers, name, value))
}
