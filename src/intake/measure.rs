//! Size of a record, measured before anything of it is copied, and the part of it that is too large.

use bytesize::ByteSize;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message};

use crate::config::Limits;
use crate::message::Correlation;

/// Headers that a request may have gained since it was first read: those with which it was parked.
const PARKING_HEADERS: usize = 16;
/// Bytes of these headers.
const PARKING_BYTES: usize = 4096;

/// Bytes of the parts of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Measure {
    pub(super) value: usize,
    pub(super) key: usize,
    /// Number of headers.
    pub(super) headers: usize,
    /// Bytes of the names and values of all headers.
    pub(super) header_bytes: usize,
    /// Bytes of the longest name.
    header_name: usize,
    /// Bytes of the longest correlation id, if a header has one.
    correlation_id: Option<usize>,
}

/// Part of a record that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OversizedPart {
    /// Name of the part in words.
    what: &'static str,
    /// Key of `kafka.limits` that does not allow it.
    limit: &'static str,
    unit: &'static str,
    size: usize,
    most: usize,
}

impl Measure {
    /// Measures a record but for its headers.
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Self {
        let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        Self { value: length(message.payload()), key: length(message.key()), ..Self::default() }
    }

    /// Adds the headers. Panics, as librdkafka's binding does, when a name is not UTF-8.
    pub(super) fn with(mut self, headers: &BorrowedHeaders) -> Self {
        self.headers = headers.count();
        for header in headers.iter() {
            self.add(header.key, header.value.map_or(0, <[u8]>::len));
        }
        self
    }

    fn add(&mut self, name: &str, value: usize) {
        self.header_bytes += name.len() + value;
        self.header_name = self.header_name.max(name.len());
        if Correlation::is_id(name) {
            self.correlation_id = self.correlation_id.max(Some(value));
        }
    }

    /// Returns the bytes of the whole record.
    pub(super) fn bytes(&self) -> usize {
        self.value + self.key + self.header_bytes
    }

    /// Returns the bytes of the part that stands for the correlation id in a reply.
    fn id(&self) -> usize {
        self.correlation_id.unwrap_or(self.key)
    }

    /// Finds the first part that is larger than the limits allow. A record `is_parked` that waits in a retry topic: it
    /// has some headers of ours.
    pub(super) fn excess(&self, limits: &Limits, is_parked: bool) -> Option<OversizedPart> {
        let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        let (headers, header_bytes) = if is_parked { (PARKING_HEADERS, PARKING_BYTES) } else { (0, 0) };
        let id = if self.correlation_id.is_some() {
            "correlation id"
        } else {
            "key, which stands in for the correlation id,"
        };
        [
            ("value", "value", "bytes", self.value, bytes(limits.value)),
            ("key", "key", "bytes", self.key, bytes(limits.key)),
            ("list of headers", "headers", "entries", self.headers, limits.headers.saturating_add(headers)),
            (
                "list of headers",
                "header_bytes",
                "bytes",
                self.header_bytes,
                bytes(limits.header_bytes).saturating_add(header_bytes),
            ),
            ("longest header name", "header_name", "bytes", self.header_name, bytes(limits.header_name)),
            (id, "correlation_id", "bytes", self.id(), bytes(limits.correlation_id)),
        ]
        .into_iter()
        .map(|(what, limit, unit, size, most)| OversizedPart { what, limit, unit, size, most })
        .find(|excess| excess.size > excess.most)
    }
}

impl std::fmt::Display for OversizedPart {
    /// Writes a sentence such as `the record's value has 17825792 bytes, and kafka.limits.value allows 16777216`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, limit, unit, size, most } = self;
        write!(formatter, "the record's {what} has {size} {unit}, and kafka.limits.{limit} allows {most}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> Limits {
        let bytes = ByteSize::b;
        Limits {
            value: bytes(100),
            key: bytes(20),
            headers: 3,
            header_bytes: bytes(40),
            header_name: bytes(12),
            correlation_id: bytes(10),
        }
    }

    fn measure(value: usize, key: usize, headers: &[(&str, usize)]) -> Measure {
        let mut measure = Measure { value, key, headers: headers.len(), ..Measure::default() };
        headers.iter().for_each(|(name, value)| measure.add(name, *value));
        measure
    }

    #[test]
    fn measure_limits_each_part() {
        let id = "REPLY_CORRELATION_ID";
        let roomy = Limits { header_name: ByteSize::b(30), ..limits() };
        assert_eq!(measure(100, 10, &[("a", 10), ("b", 10), ("c", 10)]).excess(&limits(), false), None);
        assert_eq!(measure(0, 20, &[(id, 10)]).excess(&roomy, false), None, "it has an id, so its key is none");
        for (measure, words) in [
            (measure(101, 0, &[]), "value has 101 bytes, and kafka.limits.value allows 100"),
            (measure(0, 21, &[(id, 1)]), "key has 21 bytes, and kafka.limits.key allows 20"),
            (measure(0, 0, &[("a", 0); 4]), "list of headers has 4 entries, and kafka.limits.headers allows 3"),
            (measure(0, 0, &[("a", 40)]), "list of headers has 41 bytes, and kafka.limits.header_bytes allows 40"),
            (measure(0, 0, &[(&"x".repeat(31), 0)]), "longest header name has 31 bytes, and kafka.limits.header_name"),
            (measure(0, 0, &[(id, 11)]), "correlation id has 11 bytes, and kafka.limits.correlation_id allows 10"),
            (measure(0, 11, &[]), "key, which stands in for the correlation id, has 11 bytes, and kafka.limits.correl"),
        ] {
            let excess = measure.excess(&roomy, false).unwrap().to_string();
            assert!(excess.starts_with("the record's ") && excess.contains(words), "{excess}");
        }
    }

    #[test]
    fn measure_allows_parking_headers_when_record_was_parked() {
        let parked: Vec<_> = std::iter::repeat_n(("kafka_ours", 100), 7).chain([("a", 30), ("b", 5)]).collect();
        assert!(measure(0, 0, &parked).excess(&limits(), false).is_some());
        assert_eq!(measure(0, 0, &parked).excess(&limits(), true), None);
        assert!(measure(101, 0, &parked).excess(&limits(), true).is_some());
    }

    proptest! {
        #[test]
        fn admitted_record_can_be_answered(
            key in 0usize..40_000,
            id in proptest::option::of(0usize..40_000),
            carried in prop::collection::vec(0usize..20_000, 0..300),
        ) {
            let limits = Limits::default();
            let headers: Vec<_> = id.map(|id| ("correlation-id", id)).into_iter().chain(carried.iter().map(|it| ("x-a", *it))).collect();
            let measure = measure(0, key, &headers);
            if measure.excess(&limits, false).is_none() {
                let fault = 2 * id.unwrap_or(key) + 2 * (2 * id.unwrap_or(key) + 6 * crate::message::Fault::LONGEST_MESSAGE)
                    + carried.iter().map(|value| value + 3).sum::<usize>();
                prop_assert!(fault as u64 <= limits.largest_fault(crate::message::Fault::LONGEST_MESSAGE as u64));
                prop_assert!(fault < 900_000, "{fault}");
            }
        }
    }
}
