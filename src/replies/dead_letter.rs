//! A request that cannot be answered where its caller waits, as it came, with Spring's headers that say why.

use rdkafka::message::{Header, OwnedHeaders};

use super::record::with;
use crate::message::{Fault, Request, header};

/// The headers of a dead letter: the request's own, then where it came from and what was wrong with it.
pub(super) fn dead_letter_headers(request: &Request, group: &str, fault: &Fault, attempts: u32) -> OwnedHeaders {
    let source = &request.source;
    let mut headers = OwnedHeaders::new_with_capacity(request.headers.len() + 9);
    for (key, value) in request.headers.iter() {
        headers = headers.insert(Header { key, value });
    }
    headers = with(headers, "kafka_dlt-original-topic", source.topic.as_bytes());
    headers = with(headers, "kafka_dlt-original-partition", &source.partition.to_be_bytes());
    headers = with(headers, "kafka_dlt-original-offset", &source.offset.to_be_bytes());
    if let Some(timestamp) = request.timestamp {
        headers = with(headers, "kafka_dlt-original-timestamp", &timestamp.to_be_bytes());
        headers = with(headers, "kafka_dlt-original-timestamp-type", b"CreateTime");
    }
    headers = with(headers, "kafka_dlt-original-consumer-group", group.as_bytes());
    headers = with(headers, "kafka_dlt-exception-fqcn", fault.code.name().as_bytes());
    headers = with(headers, "kafka_dlt-exception-message", fault.message.as_bytes());
    with(headers, header::ATTEMPTS, attempts.to_string().as_bytes())
}
