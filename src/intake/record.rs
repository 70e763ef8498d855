//! A Kafka record becomes a request: copied once, out of librdkafka's memory into one buffer of ours.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message};

use crate::message::{HeadersBuilder, Request, Source};

/// Copies a record. The flag tells whether its headers could be read; if not, the request has none.
pub(super) fn request_from(message: &BorrowedMessage<'_>, topic: &Arc<str>) -> (Request, bool) {
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
    }
}
