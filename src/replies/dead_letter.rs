//! Dead letters: requests that cannot be answered where their callers wait, as they came, with Spring's headers that
//! say why.

use rdkafka::message::OwnedHeaders;

use super::record::{headers_of, with};
use super::recourse::Letter;
use crate::message::{Fault, Request, header};

/// Bytes of a fault's message that a bare letter keeps.
const BARE_MESSAGE: usize = 256;

/// Builds the headers of a dead letter: the request's own, unless the letter is bare, then where the request came from
/// and what was wrong with it. Returns with them how many bytes the texts among the latter have.
pub(super) fn dead_letter_headers(
    request: &Request,
    letter: Letter,
    group: &str,
    fault: &Fault,
    attempts: u32,
) -> (OwnedHeaders, usize) {
    let source = &request.source;
    let message = fault.message.as_str();
    let (mut headers, message) = match letter > Letter::Bare {
        true => (headers_of(request, 9), message),
        false => (OwnedHeaders::new_with_capacity(9), &message[..message.floor_char_boundary(BARE_MESSAGE)]),
    };
    headers = with(headers, "kafka_dlt-original-topic", source.topic.as_bytes());
    headers = with(headers, "kafka_dlt-original-partition", &source.partition.to_be_bytes());
    headers = with(headers, "kafka_dlt-original-offset", &source.offset.to_be_bytes());
    if let Some(timestamp) = request.timestamp {
        headers = with(headers, "kafka_dlt-original-timestamp", &timestamp.to_be_bytes());
        headers = with(headers, "kafka_dlt-original-timestamp-type", b"CreateTime");
    }
    headers = with(headers, "kafka_dlt-original-consumer-group", group.as_bytes());
    headers = with(headers, "kafka_dlt-exception-fqcn", fault.code.name().as_bytes());
    headers = with(headers, "kafka_dlt-exception-message", message.as_bytes());
    let texts = source.topic.len() + group.len() + fault.code.name().len() + message.len();
    (with(headers, header::ATTEMPTS, attempts.to_string().as_bytes()), texts)
}
