//! Correlation: the id that matches a reply to its request, the reply's address, and the dialect of the client's
//! headers.
//!
//! Encodings: Spring Kafka's `KafkaHeaders`, NestJS's `ClientKafka`, SmallRye's `KafkaRequestReply`.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::{Headers, Request, header};

/// Names the client whose headers a request carries; the reply uses the same headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Spring's: `kafka_correlationId`, `kafka_replyTopic`, `kafka_replyPartition`, as its `ReplyingKafkaTemplate`
    /// sends them.
    #[default]
    Spring,
    /// NestJS's: Spring's names with text values; the reply ends with `kafka_nest-is-disposed`, an error is
    /// `kafka_nest-err`.
    NestJs,
    /// SmallRye's: `REPLY_CORRELATION_ID`, `REPLY_TOPIC`, `REPLY_PARTITION`.
    SmallRye,
    /// Plain clients': `correlation-id` alone.
    Plain,
}

/// Identifies the request that a reply answers, and the address that the reply goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correlation {
    /// The caller's bytes, or a substitute for them: the record's key, else `<topic>-<partition>-<offset>`.
    pub id: Bytes,
    /// The dialect of the caller's headers.
    pub dialect: Dialect,
    /// The topic the caller named for the reply.
    pub reply_topic: Option<String>,
    /// The partition the caller named for the reply.
    pub reply_partition: Option<i32>,
}

/// Longest id, in bytes, that is repeated as it is; a longer one is replaced by its hash where space is bounded.
const SHORT_ID: usize = 64;
const SMALLRYE_ID: &str = "REPLY_CORRELATION_ID";
const SMALLRYE_TOPIC: &str = "REPLY_TOPIC";
const SMALLRYE_PARTITION: &str = "REPLY_PARTITION";
const PLAIN_IDS: [&str; 2] = ["correlation-id", "correlation_id"];

impl Correlation {
    /// Reads the correlation of a request. A header that is missing or unreadable has a fallback, so this never fails.
    pub fn of(request: &Request) -> Self {
        let headers = &request.headers;
        let (dialect, id) = dialect_and_id(headers);
        // SmallRye has names of its own for the reply's address; the others share Spring's.
        let (topic_header, partition_header) = match dialect {
            Dialect::SmallRye => (SMALLRYE_TOPIC, SMALLRYE_PARTITION),
            Dialect::Spring | Dialect::NestJs | Dialect::Plain => (header::REPLY_TOPIC, header::REPLY_PARTITION),
        };
        let id = match id {
            Some(id) => Bytes::copy_from_slice(id),
            None => substitute_id(request),
        };
        Self {
            id,
            dialect,
            reply_topic: headers.text(topic_header).map(str::to_owned),
            reply_partition: headers.get(partition_header).and_then(decode_partition),
        }
    }

    /// Tells whether a header may carry a request's correlation id.
    pub fn is_id(header: &str) -> bool {
        header == header::CORRELATION_ID || header == SMALLRYE_ID || PLAIN_IDS.contains(&header)
    }

    /// Tells whether a header may name the reply's address, and with it the dialect.
    pub fn is_address(header: &str) -> bool {
        [header::REPLY_TOPIC, header::REPLY_PARTITION, SMALLRYE_TOPIC, SMALLRYE_PARTITION].contains(&header)
    }

    /// Names the header that carries the id in this dialect.
    pub fn header(&self) -> &'static str {
        match self.dialect {
            Dialect::Spring | Dialect::NestJs => header::CORRELATION_ID,
            Dialect::SmallRye => SMALLRYE_ID,
            Dialect::Plain => PLAIN_IDS[0],
        }
    }

    /// Shortens the id to 64 bytes at most: a longer one is replaced by `xxh3-` and its XXH3 hash with 128 bits, as
    /// 32 hexadecimal digits.
    #[must_use]
    pub fn short(&self) -> Self {
        let id = match self.id.len() {
            ..=SHORT_ID => self.id.clone(),
            _ => Bytes::from(format!("xxh3-{:032x}", xxh3_128(&self.id))),
        };
        Self { id, ..self.clone() }
    }

    /// Formats the id for people: as it is if it is printable text, else in hexadecimal.
    pub fn display(&self) -> String {
        match std::str::from_utf8(&self.id) {
            Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
            _ => self.id.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// Reads the dialect and the id from the first id header that is there.
fn dialect_and_id(headers: &Headers) -> (Dialect, Option<&[u8]>) {
    if let Some(id) = headers.get(header::CORRELATION_ID) {
        return (spring_or_nest(headers), Some(id));
    }
    if let Some(id) = headers.get(SMALLRYE_ID) {
        return (Dialect::SmallRye, Some(id));
    }
    match PLAIN_IDS.iter().find_map(|name| headers.get(name)) {
        Some(id) => (Dialect::Plain, Some(id)),
        None => (Dialect::Spring, None),
    }
}

/// Tells NestJS from Spring. NestJS takes Spring's names but writes the partition as decimal text, and names its reply
/// topic `<pattern>.reply`.
fn spring_or_nest(headers: &Headers) -> Dialect {
    let decimal = headers.get(header::REPLY_PARTITION).is_some_and(is_decimal);
    let reply_pattern = headers.text(header::REPLY_TOPIC).is_some_and(|topic| topic.ends_with(".reply"));
    if decimal && reply_pattern { Dialect::NestJs } else { Dialect::Spring }
}

fn substitute_id(request: &Request) -> Bytes {
    match &request.key {
        Some(key) if !key.is_empty() => key.clone(),
        _ => Bytes::from(request.source.id()),
    }
}

/// Decodes a partition from an int32 in big-endian bytes, or from decimal text. Four ASCII digits read as an integer
/// would be over 800 million, which no partition is, so the two cannot be confused.
fn decode_partition(value: &[u8]) -> Option<i32> {
    if is_decimal(value) {
        return std::str::from_utf8(value).ok()?.parse().ok();
    }
    let partition = i32::from_be_bytes(value.try_into().ok()?);
    (partition >= 0).then_some(partition)
}

fn is_decimal(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::Source;

    fn request(key: Option<&'static str>, headers: &[(&str, &[u8])]) -> Request {
        Request {
            source: Source { topic: Arc::from("requests"), partition: 2, offset: 7 },
            timestamp: None,
            key: key.map(Bytes::from),
            payload: None,
            headers: Headers::from_pairs(headers.iter().copied()),
            parked: None,
        }
    }

    #[test]
    fn correlation_keeps_bytes_of_spring() {
        let uuid = [0u8, 1, 2, 0xff, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let correlation = Correlation::of(&request(
            Some("key"),
            &[
                ("kafka_correlationId", &uuid),
                ("kafka_replyTopic", b"answers"),
                ("kafka_replyPartition", &[0, 0, 0, 3]),
            ],
        ));
        assert_eq!(correlation.dialect, Dialect::Spring);
        assert_eq!(&correlation.id[..], &uuid);
        assert_eq!(correlation.reply_topic.as_deref(), Some("answers"));
        assert_eq!(correlation.reply_partition, Some(3));
        assert_eq!(correlation.display(), "000102ff0405060708090a0b0c0d0e0f");
    }

    #[test]
    fn correlation_reads_decimal_partition_of_nest() {
        let correlation = Correlation::of(&request(
            None,
            &[
                ("kafka_correlationId", b"5f0e"),
                ("kafka_replyTopic", b"predict.reply"),
                ("kafka_replyPartition", b"12"),
            ],
        ));
        assert_eq!(correlation.dialect, Dialect::NestJs);
        assert_eq!(correlation.reply_partition, Some(12));
    }

    #[test]
    fn correlation_answers_smallrye_and_plain_in_kind() {
        let smallrye = Correlation::of(&request(None, &[("REPLY_CORRELATION_ID", b"a"), ("REPLY_TOPIC", b"t")]));
        assert_eq!((smallrye.header(), smallrye.reply_topic.as_deref()), ("REPLY_CORRELATION_ID", Some("t")));
        let plain = Correlation::of(&request(None, &[("correlation-id", b"b")]));
        assert_eq!((plain.header(), &plain.id[..]), ("correlation-id", &b"b"[..]));
    }

    #[test]
    fn id_falls_back_to_key_and_then_source() {
        assert_eq!(&Correlation::of(&request(Some("order-1"), &[])).id[..], b"order-1");
        assert_eq!(&Correlation::of(&request(None, &[])).id[..], b"requests-2-7");
        assert_eq!(&Correlation::of(&request(Some(""), &[])).id[..], b"requests-2-7");
    }

    #[test]
    fn short_id_is_hash_when_id_is_long() {
        let short = |id: &[u8]| Correlation::of(&request(None, &[("correlation-id", id)])).short().id;
        assert_eq!(&short(&[b'a'; 64])[..], &[b'a'; 64]);
        // The first value is XXH3's own published test vector for the empty input.
        assert_eq!(format!("{:032x}", xxh3_128(b"")), "99aa06d3014798d86001c324468d497f");
        let long = short(&[b'a'; 65]);
        assert!(long.starts_with(b"xxh3-") && long.len() == 37 && long != short(&[b'b'; 65]), "{long:?}");
    }

    #[test]
    fn partition_is_none_when_it_cannot_be_decoded() {
        for value in [&b""[..], b"-1", b"x", &[0xff, 0xff, 0xff, 0xff], &[0, 0, 1]] {
            assert_eq!(decode_partition(value), None, "{value:?}");
        }
        assert_eq!(decode_partition(b"1234"), Some(1234));
    }
}
