//! Requests: the records of the requests topic.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::header;
use super::headers::Headers;
use super::parked::Parked;

/// Holds one record of the requests topic, copied once out of the consumer's memory and never again.
#[derive(Debug, Clone)]
pub struct Request {
    /// The place at which the record was read.
    pub source: Source,
    /// The record's timestamp, Unix time in milliseconds, where the broker gave one.
    pub timestamp: Option<i64>,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The record's value: an MLflow scoring payload, passed on byte for byte. `None` is Kafka's null value.
    pub payload: Option<Bytes>,
    /// The record's headers.
    pub headers: Headers,
    /// The request's history, if it was parked in a retry topic.
    pub parked: Option<Parked>,
}

/// Names the place at which a request was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
}

impl Request {
    /// Returns the media type of the payload; JSON when the record does not say.
    pub fn content_type(&self) -> &str {
        self.headers
            .get_ignoring_case(header::CONTENT_TYPE)
            .and_then(|value| std::str::from_utf8(value).ok())
            .unwrap_or("application/json")
    }

    /// Computes the request's part of the in-flight budget: the bytes of key, value and headers.
    pub fn size(&self) -> usize {
        self.headers.bytes() + self.key.as_ref().map_or(0, Bytes::len) + self.payload.as_ref().map_or(0, Bytes::len)
    }
}

impl Source {
    /// Formats the place as `topic-partition-offset`, the correlation id of a request that has none.
    pub fn id(&self) -> String {
        format!("{}-{}-{}", self.topic, self.partition, self.offset)
    }
}

impl fmt::Display for Source {
    /// Formats the place as `topic/partition/offset`, as in the `source` header.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}
