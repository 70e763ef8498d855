//! Dead letters, and the requests that they are restored to. Pure.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use crate::message::{Correlation, Request, Source, header};

const ORIGINAL_TOPIC: &str = "kafka_dlt-original-topic";
const ORIGINAL_PARTITION: &str = "kafka_dlt-original-partition";
const ORIGINAL_OFFSET: &str = "kafka_dlt-original-offset";
const CODE: &str = "kafka_dlt-exception-fqcn";
/// Prefixes of the headers that Signalbox has added to a request, to say what became of it.
const ADDED_PREFIXES: [&str; 3] = ["kafka_dlt-", "retry_topic-", "kafka_original-"];

/// Wraps a record of the dead-letter topic.
#[derive(Debug)]
pub(super) struct DeadLetter {
    record: Request,
    /// Tells whether the record could be read in full; an unreadable one is left alone.
    readable: bool,
}

impl DeadLetter {
    pub(super) fn new(record: Request, readable: bool) -> Self {
        Self { record, readable }
    }

    /// Names the topic that the letter came from; none for an unreadable record.
    pub(super) fn original_topic(&self) -> Option<&str> {
        self.record.headers.text(ORIGINAL_TOPIC).filter(|_| self.readable)
    }

    /// Names the code of the fault.
    pub(super) fn code(&self) -> &str {
        self.record.headers.text(CODE).unwrap_or_default()
    }

    /// Names the endpoint, if the request did.
    pub(super) fn endpoint(&self) -> Option<&str> {
        self.record.headers.text(header::ENDPOINT)
    }

    /// Tells when the request became a dead letter, in Unix milliseconds; 0 when the broker gave no timestamp.
    pub(super) fn timestamp(&self) -> i64 {
        self.record.timestamp.unwrap_or_default()
    }

    /// Tells whether the letter still has the request's value.
    pub(super) fn has_value(&self) -> bool {
        self.record.payload.is_some()
    }

    pub(super) fn partition(&self) -> i32 {
        self.record.source.partition
    }

    pub(super) fn offset(&self) -> i64 {
        self.record.source.offset
    }

    pub(super) fn size(&self) -> usize {
        self.record.size()
    }

    /// Restores the request as it came: without the headers that say what became of it, and without its deadline, which
    /// has nothing to say any more. A request that was known by its place alone gets that place as its correlation id,
    /// so it is still known by it.
    pub(super) fn restore<'a>(&'a self, requests: &'a str, partitions: i32) -> BaseRecord<'a, [u8], [u8]> {
        let headers = &self.record.headers;
        // Signalbox adds its header `attempts` after the request's own, so only the last one is left out.
        let last_attempts = headers.iter().enumerate().filter(|(_, (name, _))| *name == header::ATTEMPTS).last();
        let last_attempts = last_attempts.map(|(index, _)| index);
        let is_own = |(index, (name, _)): &(usize, (&str, Option<&[u8]>))| {
            !ADDED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                && *name != header::DEADLINE
                && Some(*index) != last_attempts
        };
        let own = headers.iter().enumerate().filter(is_own).map(|(_, header)| header);
        let id = self.place_as_id(requests);
        let id = id.as_ref().map(|id| (header::CORRELATION_ID, Some(&id[..])));
        let restored = own.chain(id).fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value }));
        // The request goes back to its own partition, beside others of its key, as long as the topic has that
        // partition.
        let partition =
            headers.get(ORIGINAL_PARTITION).and_then(|bytes| Some(i32::from_be_bytes(bytes.try_into().ok()?)));
        BaseRecord {
            partition: partition.filter(|partition| (0..partitions).contains(partition)),
            key: self.record.key.as_deref(),
            payload: self.record.payload.as_deref(),
            ..BaseRecord::to(requests).headers(restored)
        }
    }

    /// Computes the correlation id of a request that has neither an id nor a key.
    fn place_as_id(&self, requests: &str) -> Option<Bytes> {
        let headers = &self.record.headers;
        let partition = i32::from_be_bytes(headers.get(ORIGINAL_PARTITION)?.try_into().ok()?);
        let offset = i64::from_be_bytes(headers.get(ORIGINAL_OFFSET)?.try_into().ok()?);
        let here = Correlation::of(&self.record).id;
        let source = Source { topic: Arc::from(requests), partition, offset };
        let there = Correlation::of(&Request { source, ..self.record.clone() }).id;
        // The id depends on the place only if it differs here and there.
        (here != there).then_some(there)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;

    use super::*;
    use crate::message::Headers;

    fn letter(headers: &[(&str, &[u8])], key: Option<&'static str>) -> DeadLetter {
        let original: [(&str, &[u8]); 3] = [
            (ORIGINAL_TOPIC, b"requests"),
            (ORIGINAL_PARTITION, &[0, 0, 0, 2]),
            (ORIGINAL_OFFSET, &[0, 0, 0, 0, 0, 0, 0, 9]),
        ];
        let why: [(&str, &[u8]); 2] = [(CODE, b"MODEL_ERROR"), ("attempts", b"3")];
        let record = Request {
            source: Source { topic: "dead-letters".into(), partition: 1, offset: 5 },
            timestamp: Some(1_000),
            key: key.map(Bytes::from),
            payload: Some(Bytes::from_static(b"{}")),
            headers: Headers::from_pairs(headers.iter().copied().chain(original).chain(why)),
            parked: None,
        };
        DeadLetter::new(record, true)
    }

    fn names(letter: &DeadLetter) -> Vec<String> {
        let value = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        let restored = letter.restore("requests", 4).headers.unwrap();
        restored.iter().map(|header| format!("{}={}", header.key, value(header.value))).collect()
    }

    #[test]
    fn letter_is_restored_as_request_came() {
        let own: [(&str, &[u8]); 4] =
            [("endpoint", b"a"), ("attempts", b"mine"), ("deadline", b"1"), ("kafka_correlationId", b"id")];
        let sent = letter(&own, None);
        assert_eq!(names(&sent), ["endpoint=a", "attempts=mine", "kafka_correlationId=id"]);
        assert_eq!(sent.restore("requests", 4).partition, Some(2));
        assert_eq!(sent.restore("requests", 2).partition, None, "it has fewer partitions now");
    }

    #[test]
    fn restored_request_keeps_id_it_was_known_by() {
        assert_eq!(names(&letter(&[], None)), ["kafka_correlationId=requests-2-9"]);
        assert_eq!(names(&letter(&[], Some("key"))), [""; 0]);
        assert_eq!(names(&letter(&[("correlation-id", b"7")], None)), ["correlation-id=7"]);
    }
}
