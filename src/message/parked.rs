//! Parked requests: the headers with which a request waits in a retry topic, to be run later.
//!
//! Encodings: Spring Kafka's retry topics (`retry_topic-…`, `kafka_original-…`), so that its tools can read them.

use std::sync::Arc;

use bytes::Bytes;

use super::{Request, Source, header};

const ORIGINAL_TOPIC: &str = "kafka_original-topic";
const ORIGINAL_PARTITION: &str = "kafka_original-partition";
const ORIGINAL_OFFSET: &str = "kafka_original-offset";
const ORIGINAL_TIMESTAMP: &str = "retry_topic-original-timestamp";
const DELIVERY: &str = "retry_topic-attempts";
const DUE: &str = "retry_topic-backoff-timestamp";

/// Names all headers of a parked request. A producer may have sent some of the same names; Signalbox's come last.
const NAMES: [&str; 7] =
    [ORIGINAL_TOPIC, ORIGINAL_PARTITION, ORIGINAL_OFFSET, ORIGINAL_TIMESTAMP, DELIVERY, DUE, header::ATTEMPTS];

/// Greatest number of model calls for one request; a header that says more is not believed.
const MAX_CALLS: u32 = 1_000_000;

/// Holds the history of a request that was parked before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parked {
    /// The number of the request's failures for passing reasons.
    pub failures: u32,
    /// The number of model calls for the request.
    pub calls: u32,
    /// Tells whether the request was parked because its route was overloaded, and is not to be parked for that again.
    pub overflowed: bool,
}

/// Holds one header that is added to a request's own: name and value.
pub type Added = (&'static str, Vec<u8>);

impl Parked {
    /// Builds the headers that a request is parked with, after its own, until `due` (Unix time in milliseconds).
    pub fn headers(self, request: &Request, due: i64) -> Vec<Added> {
        let source = &request.source;
        let mut headers = vec![
            (ORIGINAL_TOPIC, source.topic.as_bytes().to_vec()),
            (ORIGINAL_PARTITION, source.partition.to_be_bytes().to_vec()),
            (ORIGINAL_OFFSET, source.offset.to_be_bytes().to_vec()),
        ];
        if let Some(timestamp) = request.timestamp {
            headers.push((ORIGINAL_TIMESTAMP, big_integer(timestamp)));
        }
        let delivery = i32::try_from(self.failures.saturating_add(1)).unwrap_or(i32::MAX);
        headers.extend([
            (DELIVERY, delivery.to_be_bytes().to_vec()),
            (DUE, big_integer(due)),
            (header::ATTEMPTS, self.calls.to_string().into_bytes()),
        ]);
        headers
    }
}

impl Request {
    /// Turns a record of a retry topic into the request that was parked there, as it came from one of `topics`.
    /// `failures` is the number of failures that it must have had to be there. Returns the time at which it is due, in
    /// Unix milliseconds, if its headers say one. A record that nobody parked is a request like any other.
    pub fn unpark(&mut self, topics: &[Arc<str>], failures: u32) -> Option<i64> {
        self.parked = Some(Parked { failures, ..Parked::default() });
        let source = self.original(topics)?;
        // Only the last header of each name is Signalbox's; the others are the producer's own, and stay.
        let [_, _, _, timestamp, delivery, due, calls] = NAMES.map(|name| self.headers.remove_last(name));
        let failures = delivery.and_then(|bytes| Some(i32::from_be_bytes(bytes[..].try_into().ok()?) - 1));
        let calls = calls.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse::<u32>().ok());
        self.source = source;
        self.timestamp = timestamp.and_then(|bytes| read_big_integer(&bytes));
        self.parked = Some(Parked {
            failures: failures.and_then(|failures| u32::try_from(failures).ok()).unwrap_or_default(),
            calls: calls.unwrap_or_default().min(MAX_CALLS),
            overflowed: false,
        });
        due.and_then(|bytes| read_big_integer(&bytes))
    }

    fn original(&self, topics: &[Arc<str>]) -> Option<Source> {
        let headers = &self.headers;
        let topic = headers.text(ORIGINAL_TOPIC)?;
        let topic = topics.iter().find(|known| ***known == *topic)?.clone();
        let partition = i32::from_be_bytes(headers.get(ORIGINAL_PARTITION)?.try_into().ok()?);
        let offset = i64::from_be_bytes(headers.get(ORIGINAL_OFFSET)?.try_into().ok()?);
        (partition >= 0 && offset >= 0).then_some(Source { topic, partition, offset })
    }
}

/// Encodes a number as Java's `BigInteger.toByteArray` does: two's complement, the highest byte first, and no more
/// bytes than it takes.
fn big_integer(number: i64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let sign = if number < 0 { 0xff } else { 0 };
    let is_needed = |at: &usize| bytes[*at] != sign || (bytes[*at + 1] ^ sign) & 0x80 != 0;
    let first = (0..bytes.len() - 1).find(is_needed).unwrap_or(bytes.len() - 1);
    bytes[first..].to_vec()
}

fn read_big_integer(bytes: &Bytes) -> Option<i64> {
    let first = bytes.first().filter(|_| bytes.len() <= 8)?;
    let mut number = [if first & 0x80 == 0 { 0 } else { 0xff }; 8];
    number[8 - bytes.len()..].copy_from_slice(bytes);
    Some(i64::from_be_bytes(number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Headers;

    fn topics() -> Vec<Arc<str>> {
        ["requests", "requests-retry-0", "requests-retry-1000"].map(Arc::from).to_vec()
    }

    fn source(topic: &str, offset: i64) -> Source {
        Source { topic: topic.into(), partition: 3, offset }
    }

    fn request(headers: &[(&str, &[u8])]) -> Request {
        Request {
            source: source("requests", 7),
            timestamp: Some(1_700_000_000_000),
            key: None,
            payload: None,
            headers: Headers::from_pairs(headers.iter().copied()),
            parked: None,
        }
    }

    /// Builds the record of a parked request, as it is read in a retry topic.
    fn written(request: &Request, parked: Parked, due: i64) -> Request {
        let added = parked.headers(request, due);
        let own = request.headers.iter().map(|(name, value)| (name, value.unwrap_or_default()));
        let headers = own.chain(added.iter().map(|(name, value)| (*name, &value[..])));
        let timestamp = Some(1_800_000_000_000);
        Request {
            source: source("requests-retry-1000", 99),
            timestamp,
            headers: Headers::from_pairs(headers),
            ..request.clone()
        }
    }

    fn pairs(request: &Request) -> Vec<(String, Vec<u8>)> {
        request.headers.iter().map(|(name, value)| (name.to_owned(), value.unwrap_or_default().to_vec())).collect()
    }

    #[test]
    fn request_is_restored_when_unparked() {
        let sent: [(&str, &[u8]); 3] = [("endpoint", b"a"), ("attempts", b"mine"), ("kafka_original-topic", b"mine")];
        let request = request(&sent);
        let parked = Parked { failures: 2, calls: 5, overflowed: false };
        let mut read = written(&request, parked, 1_800_000_001_000);
        assert_eq!(read.unpark(&topics(), 9), Some(1_800_000_001_000));
        assert_eq!((&read.source, read.timestamp), (&request.source, request.timestamp));
        assert_eq!(read.parked, Some(parked));
        assert_eq!(pairs(&read), pairs(&request), "what the producer sent stays untouched");
    }

    #[test]
    fn record_is_plain_request_when_nobody_parked_it() {
        let own = request(&[]);
        let parked = written(&own, Parked::default(), 5);
        for (name, value) in [
            ("kafka_original-topic", &b"elsewhere"[..]),
            ("kafka_original-partition", &[0xff, 0xff, 0xff, 0xff]),
            ("kafka_original-partition", b"3"),
            ("kafka_original-offset", &[0xff; 8]),
        ] {
            let headers = pairs(&parked);
            let headers = headers.iter().map(|(name, value)| (&**name, &value[..])).chain([(name, value)]);
            let mut foreign = Request { headers: Headers::from_pairs(headers), ..parked.clone() };
            let before = foreign.headers.len();
            assert_eq!(foreign.unpark(&topics(), 1), None, "{name}");
            assert_eq!(foreign.source, source("requests-retry-1000", 99));
            assert_eq!(foreign.headers.len(), before);
            assert_eq!(foreign.parked, Some(Parked { failures: 1, ..Parked::default() }));
        }
    }

    #[test]
    fn big_integer_has_bytes_of_java() {
        for (number, bytes) in [
            (0, &[0][..]),
            (1, &[1]),
            (-1, &[0xff]),
            (127, &[0x7f]),
            (128, &[0, 0x80]),
            (-128, &[0x80]),
            (-129, &[0xff, 0x7f]),
            (1_700_000_000_000, &[0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00]),
        ] {
            assert_eq!(big_integer(number), bytes, "{number}");
        }
        assert_eq!(read_big_integer(&Bytes::new()), None);
        assert_eq!(read_big_integer(&Bytes::from_static(&[0; 9])), None);
    }

    proptest! {
        #[test]
        fn big_integer_survives_round_trip(number in any::<i64>()) {
            prop_assert_eq!(read_big_integer(&big_integer(number).into()), Some(number));
        }

        #[test]
        fn unpark_withstands_any_headers_of_producer(
            names in prop::collection::vec(0..NAMES.len(), 0..12),
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 12),
        ) {
            let headers: Vec<_> = names.iter().zip(&values).map(|(name, value)| (NAMES[*name], &value[..])).collect();
            let mut request = request(&headers);
            request.unpark(&topics(), 1);
            let parked = request.parked.unwrap();
            prop_assert!(parked.calls <= MAX_CALLS && !parked.overflowed);
            prop_assert!(topics().contains(&request.source.topic));
        }
    }
}
