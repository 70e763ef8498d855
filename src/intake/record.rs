//! Conversion of a Kafka record into a request: copied once, out of librdkafka's memory into one buffer of ours. A
//! record that is too large is not copied.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message};

use super::RefusalReason;
use super::lane::{Due, HeldRecord};
use super::measure::Measure;
use super::ticket::LaneId;
use super::topics::Topics;
use crate::broker::read_foreign;
use crate::config::Limits;
use crate::message::{Correlation, HeadersBuilder, Request, Source, unix_milliseconds};

/// Part of its topic's delay for which a partition rests, so that its records run a little later, but many at a time.
const REST_PART: u32 = 4;
/// Longest rest of a partition, however long its topic's delay is.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Bytes of a value that can always be copied.
const BULKY: usize = 1 << 20;

/// Bytes of the longest header that may name a topic or a partition: no topic's name is longer.
const LONGEST_ADDRESS: usize = 249;

/// Copies a record that is within the limits, without its value unless it `is_whole`. A parked record becomes the
/// request that it was before.
pub(super) fn read(
    message: &BorrowedMessage<'_>,
    lane: LaneId,
    topics: &Topics,
    limits: &Limits,
    is_whole: bool,
    now: Instant,
) -> HeldRecord {
    let is_parked = !lane.is_of_requests();
    let (mut request, refusal) = take(message, topics.name(lane), limits, is_parked, is_whole);
    let offset = message.offset();
    if !is_parked {
        return HeldRecord { request, offset, due: None, refusal, is_whole };
    }
    let written = request.timestamp;
    let said = request.unpark(topics.names(), topics.failures(lane));
    if let Some(parked) = &mut request.parked {
        parked.overflowed = lane.is_overflow();
    }
    let delay = topics.delay(lane);
    let wait = wait(said, written, i64::try_from(unix_milliseconds()).unwrap_or(i64::MAX), delay);
    let rest = (delay / REST_PART).min(LONGEST_REST);
    let due = (!wait.is_zero()).then(|| Due { at: now + wait, rest });
    HeldRecord { request, offset, due, refusal, is_whole }
}

/// Returns the wait of a record of a retry topic that is `said` to be due then and was written at that time, all in
/// Unix milliseconds. The wait is never longer than the topic's delay, whatever a client has written.
fn wait(said: Option<i64>, written: Option<i64>, now: i64, delay: Duration) -> Duration {
    let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
    let latest = written.map(|written| written.saturating_add(delay));
    let due = said.into_iter().chain(latest).min().unwrap_or(now);
    let wait = due.saturating_sub(now).clamp(0, delay);
    Duration::from_millis(wait.unsigned_abs())
}

/// Returns whether a record is so large that its copy alone could end the process. Such a record is copied when it may
/// run, and not before: by then it is noted that it has begun, and it is found out if it ends each of its owners.
pub(super) fn is_bulky(message: &BorrowedMessage<'_>) -> bool {
    message.payload_len() > BULKY
}

/// Copies a record. The flag tells whether its headers could be read; if not, the request has none.
pub(crate) fn copy_record(message: &BorrowedMessage<'_>, topic: &Arc<str>) -> (Request, bool) {
    let (headers, size, is_readable) = measure(message);
    (copy(message, topic, headers, message.payload(), size), is_readable)
}

/// Copies a record that is within the limits; of another record only the headers by which its caller can be told.
/// Returns with it the reason why it is not to be served, if there is one.
fn take(
    message: &BorrowedMessage<'_>,
    topic: &Arc<str>,
    limits: &Limits,
    is_parked: bool,
    is_whole: bool,
) -> (Request, Option<RefusalReason>) {
    let (headers, mut size, is_readable) = measure(message);
    match size.excess(limits, is_parked) {
        Some(excess) => (strip(message, topic, headers, limits), Some(RefusalReason::TooLarge(excess))),
        None => {
            let payload = message.payload().filter(|_| is_whole);
            size.value = payload.map_or(0, <[u8]>::len);
            let refusal = (!is_readable).then_some(RefusalReason::UnreadableHeaders);
            (copy(message, topic, headers, payload, size), refusal)
        }
    }
}

/// Measures a record. Returns its headers, unless they cannot be read, and whether they can.
fn measure<'a>(message: &'a BorrowedMessage<'_>) -> (Option<&'a BorrowedHeaders>, Measure, bool) {
    let bare = Measure::of(message);
    let Some(headers) = message.headers() else { return (None, bare, true) };
    match read_foreign(|| bare.with(headers)) {
        Some(size) => (Some(headers), size, true),
        None => (None, bare, false),
    }
}

fn copy(
    message: &BorrowedMessage<'_>,
    topic: &Arc<str>,
    headers: Option<&BorrowedHeaders>,
    payload: Option<&[u8]>,
    size: Measure,
) -> Request {
    let mut builder = HeadersBuilder::with_capacity(size.bytes(), size.headers);
    if let Some(headers) = headers {
        for header in headers.iter() {
            builder.push(header.key, header.value);
        }
    }
    request(message, topic, builder, message.key(), payload)
}

/// Copies the headers that are needed to tell the caller of a record that it is too large: those with the address of
/// the reply, and with its correlation id. A correlation id that is too large itself gives way to
/// `topic-partition-offset`, and so does a key that stands in for it.
fn strip(
    message: &BorrowedMessage<'_>,
    topic: &Arc<str>,
    headers: Option<&BorrowedHeaders>,
    limits: &Limits,
) -> Request {
    let fits = |part: &[u8], limit: ByteSize| part.len() as u64 <= limit.as_u64();
    // The last header of a name counts, whatever its value is.
    let mut kept: Vec<(&str, Option<&[u8]>)> = Vec::new();
    for header in headers.into_iter().flat_map(BorrowedHeaders::iter) {
        if Correlation::is_id(header.key) || Correlation::is_address(header.key) {
            kept.retain(|(name, _)| *name != header.key);
            kept.push((header.key, header.value));
        }
    }
    let instead = source(message, topic).id();
    let (mut builder, mut has_id) = (HeadersBuilder::default(), false);
    for (name, value) in kept {
        let Some(value) = value else { continue };
        if Correlation::is_id(name) {
            has_id = true;
            builder.push(name, Some(if fits(value, limits.correlation_id) { value } else { instead.as_bytes() }));
        } else if value.len() <= LONGEST_ADDRESS {
            builder.push(name, Some(value));
        }
    }
    let is_id = |key: &[u8]| !has_id && !fits(key, limits.correlation_id);
    let key = message.key().filter(|key| fits(key, limits.key) && !is_id(key));
    request(message, topic, builder, key, None)
}

fn source(message: &BorrowedMessage<'_>, topic: &Arc<str>) -> Source {
    Source { topic: topic.clone(), partition: message.partition(), offset: message.offset() }
}

fn request(
    message: &BorrowedMessage<'_>,
    topic: &Arc<str>,
    mut builder: HeadersBuilder,
    key: Option<&[u8]>,
    payload: Option<&[u8]>,
) -> Request {
    let key = key.map(|key| builder.append(key));
    let payload = payload.map(|payload| builder.append(payload));
    let (headers, buffer) = builder.finish_with_buffer();
    Request {
        source: source(message, topic),
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
    fn parked_record_waits_until_due() {
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
        fn parked_record_waits_no_longer_than_delay(
            said in any::<Option<i64>>(),
            written in any::<Option<i64>>(),
            now in any::<i64>(),
        ) {
            prop_assert!(wait(said, written, now, DELAY) <= DELAY);
        }
    }
}
