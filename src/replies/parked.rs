//! A request that is put aside in a retry topic, as it came, with the headers by which it is known again.

use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::message::{Header, OwnedHeaders};

use super::record::with;
use crate::config::RetryTopic;
use crate::message::{Parked, Request};

/// In which retry topic a request is put aside, and why.
#[derive(Debug, Clone)]
pub struct Parking {
    /// The topic.
    pub topic: RetryTopic,
    /// How often the request has failed for a passing reason, this time included.
    pub failures: u32,
    /// As the label of a metric: `failed` or `behind`.
    pub reason: &'static str,
}

/// The headers of a request that is put aside: its own, then ours. `calls` is how often models were called for it.
pub(super) fn parked_headers(request: &Request, parking: &Parking, calls: u32) -> OwnedHeaders {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let due = i64::try_from((now + parking.topic.delay).as_millis()).unwrap_or(i64::MAX);
    let added = Parked { failures: parking.failures, calls, overflowed: false }.headers(request, due);
    let mut headers = OwnedHeaders::new_with_capacity(request.headers.len() + added.len());
    for (key, value) in request.headers.iter() {
        headers = headers.insert(Header { key, value });
    }
    added.iter().fold(headers, |headers, (name, value)| with(headers, name, value))
}
