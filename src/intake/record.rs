//! A Kafka record becomes a request: copied once, out of librdkafka's memory into one buffer of ours.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message};

use super::lanes::{Due, Held};
use super::ticket::LaneId;
use super::topics::Topics;
use crate::message::{HeadersBuilder, Request, Source};

/// A partition rests this part of its topic's delay, so that its records are run a little later, but many at a time.
const REST_PART: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Copies a record. If it was parked, it is the request that it was before.
pub(super) fn read(message: &BorrowedMessage<'_>, lane: LaneId, topics: &Topics, now: Instant) -> Held {
    let (mut request, readable) = request_from(message, topics.name(lane));
    let offset = message.offset();
    if lane.topic == 0 {
        return Held { request, offset, due: None, readable };
    }
    let written = request.timestamp;
    let said = request.unpark(topics.names(), topics.failures(lane));
    if let Some(parked) = &mut request.parked {
        parked.overflowed = lane.is_overflow();
    }
    let delay = topics.delay(lane);
    let wait = wait(said, written, unix_milliseconds(), delay);
    let rest = (delay / REST_PART).min(LONGEST_REST);
    let due = (!wait.is_zero()).then(|| Due { at: now + wait, rest });
    Held { request, offset, due, readable }
}

/// How long a record of a retry topic has to wait, if it is `said` to be due then and was written at that time, all in
/// Unix milliseconds. Never longer than its topic's delay, whatever anybody has written.
fn wait(said: Option<i64>, written: Option<i64>, now: i64, delay: Duration) -> Duration {
    let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
    let latest = written.map(|written| written.saturating_add(delay));
    let due = said.into_iter().chain(latest).min().unwrap_or(now);
    let wait = due.saturating_sub(now).clamp(0, delay);
    Duration::from_millis(wait.unsigned_abs())
}

fn unix_milliseconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Copies a record. The flag tells whether its headers could be read; if not, the request has none.
pub(crate) fn request_from(message: &BorrowedMessage<'_>, topic: &Arc<str>) -> (Request, bool) {
    // The library's header iterator panics on a name that is not UTF-8, which any producer can send.
    match catch_unwind(AssertUnwindSafe(|| copy(message, topic, message.headers()))) {
        Ok(request) => (request, true),
        Err(_) => (copy(message, topic, None), false),
    }
}

fn copy(message: &BorrowedMessage<'_>, topic: &Arc<str>, headers: Option<&BorrowedHeaders>) -> Request {
    let (key, payload) = (message.key(), message.payload());
    let header_count = headers.map_or(0, |headers| headers.count());
    let header_bytes: usize = headers
        .map_or(0, |headers| headers.iter().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len)).sum());
    let bytes = header_bytes + key.map_or(0, <[u8]>::len) + payload.map_or(0, <[u8]>::len);

    let mut builder = HeadersBuilder::with_capacity(bytes, header_count);
    if let Some(headers) = headers {
        for header in headers.iter() {
            builder.push(header.key, header.value);
        }
    }
    let key = key.map(|key| builder.append(key));
    let payload = payload.map(|payload| builder.append(payload));
    let (headers, buffer) = builder.finish_with_buffer();
    Request {
        source: Source { topic: topic.clone(), partition: message.partition(), offset: message.offset() },
        timestamp: message.timestamp().to_millis(),
        key: key.map(|range| buffer.slice(range)),
        payload: payload.map(|range| buffer.slice(range)),
        headers,
        parked: None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DELAY: Duration = Duration::from_secs(10);

    #[test]
    fn waits_until_it_is_due() {
        let seconds = Duration::from_secs;
        assert_eq!(wait(Some(11_000), Some(1_000), 4_000, DELAY), seconds(7));
        assert_eq!(wait(Some(11_000), Some(1_000), 11_000, DELAY), Duration::ZERO);
        assert_eq!(wait(None, Some(1_000), 4_000, DELAY), seconds(7), "what nobody parked waits as long");
        assert_eq!(wait(None, None, 4_000, DELAY), Duration::ZERO);
        assert_eq!(wait(Some(i64::MAX), Some(1_000), 4_000, DELAY), seconds(7), "no longer than its topic says");
        assert_eq!(wait(Some(5_000), Some(1_000), 4_000, Duration::ZERO), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn nobody_waits_longer_than_the_delay(
            said in any::<Option<i64>>(),
            written in any::<Option<i64>>(),
            now in any::<i64>(),
        ) {
            prop_assert!(wait(said, written, now, DELAY) <= DELAY);
        }
    }
}
