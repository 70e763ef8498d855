//! Encoding of a reply or fault as a Kafka record: the headers of the wire contract, in the caller's dialect.

use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};

use super::recourse::Form;
use crate::callers::ReplyRecord;
use crate::message::{Correlation, Dialect, Fault, HeadersBuilder, Outcome, Request, header};

/// Bytes that a header adds to a record beside its name and its value, at most.
pub(super) const HEADER_OVERHEAD: usize = 10;
/// Bytes of a fault's message that its short form keeps.
const SHORT_MESSAGE: usize = 256;

/// Value and headers of the record that ends a request.
pub(super) struct EncodedReply {
    pub(super) payload: Bytes,
    pub(super) headers: OwnedHeaders,
    /// Bytes that both take on the broker, at most.
    pub(super) bytes: usize,
}

/// Encodes an outcome in its own form.
pub(super) fn reply_record(request: &Request, correlation: &Correlation, outcome: &Outcome) -> EncodedReply {
    let form = if outcome.result.is_ok() { Form::Answer } else { Form::Fault };
    record_in(form, request, correlation, outcome)
}

/// Encodes an outcome in a given form. The short form wants a short correlation.
pub(super) fn record_in(form: Form, request: &Request, correlation: &Correlation, outcome: &Outcome) -> EncodedReply {
    let (mut headers, mut bytes) = (Some(OwnedHeaders::new_with_capacity(16)), 0);
    let payload = write(form, request, correlation, outcome, |key, value| {
        bytes += key.len() + value.map_or(0, <[u8]>::len) + HEADER_OVERHEAD;
        headers = headers.take().map(|headers| headers.insert(Header { key, value }));
    });
    bytes += payload.len();
    EncodedReply { payload, headers: headers.unwrap_or_default(), bytes }
}

/// Encodes an outcome as the record would be read back.
pub(super) fn reply_for_caller(request: &Request, correlation: &Correlation, outcome: &Outcome) -> ReplyRecord {
    let mut headers = HeadersBuilder::with_capacity(512, 16);
    let form = if outcome.result.is_ok() { Form::Answer } else { Form::Fault };
    let body = write(form, request, correlation, outcome, |key, value| headers.push(key, value));
    ReplyRecord { headers: headers.finish(), body }
}

/// Writes the headers, and returns the value.
fn write(
    form: Form,
    request: &Request,
    correlation: &Correlation,
    outcome: &Outcome,
    mut put: impl FnMut(&str, Option<&[u8]>),
) -> Bytes {
    let (status, content_type, payload) = match &outcome.result {
        Ok(reply) => (200, reply.content_type.as_str(), reply.body.clone()),
        Err(fault) if form <= Form::Short => (fault.code.status(), "application/json", short_body(fault, correlation)),
        Err(fault) => (fault.code.status(), "application/json", fault.body(&correlation.display())),
    };
    let served_by = &outcome.served_by;
    put(correlation.header(), Some(&correlation.id));
    put(header::STATUS, Some(status.to_string().as_bytes()));
    put(header::CONTENT_TYPE, Some(content_type.as_bytes()));
    let names = [
        (header::ENDPOINT, &served_by.endpoint),
        (header::ROUTE, &served_by.route),
        (header::MODEL_URI, &served_by.model_uri),
        (header::MODEL_VERSION, &served_by.model_version),
        (header::FALLBACK_FROM, &served_by.fallback_from),
    ];
    for (name, value) in names {
        if let Some(value) = value.as_ref().filter(|_| form > Form::Short) {
            put(name, Some(value.as_bytes()));
        }
    }
    if served_by.route_override {
        put(header::ROUTE_OVERRIDE, Some(b"true"));
    }
    put(header::ATTEMPTS, Some(served_by.attempts.to_string().as_bytes()));
    put(header::SOURCE, Some(request.source.to_string().as_bytes()));
    if let Err(fault) = &outcome.result {
        if let Some(after) = fault.retry_after {
            let seconds = after.as_secs_f64().ceil().max(1.0).to_string();
            put(header::RETRY_AFTER, Some(seconds.as_bytes()));
        }
        if correlation.dialect == Dialect::NestJs {
            put("kafka_nest-err", Some(&payload));
        }
    }
    if correlation.dialect == Dialect::NestJs {
        // Without this header the client goes on waiting for more of the same reply.
        put("kafka_nest-is-disposed", Some(&[0]));
    }
    if form > Form::Uncarried {
        request.headers.iter().filter(|(name, _)| header::is_carried(name)).for_each(|(name, value)| put(name, value));
    }
    payload
}

/// Encodes the fault with no more than the beginning of its message.
fn short_body(fault: &Fault, correlation: &Correlation) -> Bytes {
    let end = fault.message.floor_char_boundary(SHORT_MESSAGE);
    let more = if end < fault.message.len() { "…" } else { "" };
    let message = format!("{}{more}", &fault.message[..end]);
    Fault { message, ..fault.clone() }.body(&correlation.display())
}

/// Copies the headers of a request, with room for this many more.
pub(super) fn headers_of(request: &Request, more: usize) -> OwnedHeaders {
    let headers = OwnedHeaders::new_with_capacity(request.headers.len() + more);
    request.headers.iter().fold(headers, |headers, (key, value)| headers.insert(Header { key, value }))
}

pub(super) fn with(headers: OwnedHeaders, key: &str, value: &[u8]) -> OwnedHeaders {
    headers.insert(Header { key, value: Some(value) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::message::Headers as _;

    use super::*;
    use crate::message::{Code, Fault, Headers, Reply, ServedBy, Source, Stage};

    #[test]
    fn local_reply_equals_its_record() {
        let mut headers = vec![("kafka_correlationId", &b"5f0e"[..]), ("x-user", b"\xff"), ("tracestate", b"a=b")];
        let body = Bytes::from_static(b"{\"predictions\": [1]}");
        let answer = Ok(Reply { content_type: "text/plain".to_owned(), body: body.clone() });
        let fault = Fault::passing(Code::TemporarilyUnavailable, Stage::Invoke, "no");
        let results = [answer, Err(fault.clone()), Err(fault.with_retry_after(Duration::from_millis(1200)))];
        for nest in [false, true] {
            headers.extend(
                nest.then_some([("kafka_replyPartition", &b"1"[..]), ("kafka_replyTopic", b"a.reply")])
                    .into_iter()
                    .flatten(),
            );
            for result in &results {
                let request = Request {
                    source: Source { topic: "requests".into(), partition: 2, offset: 7 },
                    timestamp: None,
                    key: None,
                    payload: None,
                    headers: Headers::from_pairs(headers.iter().copied()),
                    parked: None,
                };
                let served_by = ServedBy {
                    endpoint: Some("sentiment".into()),
                    route: Some("fast".into()),
                    route_override: true,
                    model_version: Some("models:/m/3".into()),
                    attempts: 2,
                    ..ServedBy::default()
                };
                let outcome = Outcome { served_by, result: result.clone() };
                let correlation = Correlation::of(&request);
                let record = reply_record(&request, &correlation, &outcome);
                let value_bytes: usize = record.headers.iter().filter_map(|header| header.value).map(<[u8]>::len).sum();
                assert!(record.bytes > record.payload.len() + value_bytes);
                let reply = reply_for_caller(&request, &correlation, &outcome);
                assert_eq!(reply.body, record.payload);
                let of_record: Vec<_> = record.headers.iter().map(|header| (header.key, header.value)).collect();
                assert_eq!(reply.headers.iter().collect::<Vec<_>>(), of_record);
                // A model's answer is not copied.
                assert_eq!(reply.body.as_ptr() == body.as_ptr(), result.is_ok());
            }
        }
    }

    #[test]
    fn short_form_is_small_whatever_request_has() {
        let big = vec![b'"'; 900_000];
        for (id, topic) in [("kafka_correlationId", "kafka_replyTopic"), ("REPLY_CORRELATION_ID", "REPLY_TOPIC")] {
            let headers = [(id, &big[..]), (topic, b"a.reply"), ("kafka_replyPartition", b"1"), ("x-big", &big[..])];
            let request = Request {
                source: Source { topic: "requests".into(), partition: 2, offset: 7 },
                timestamp: None,
                key: Some(big.clone().into()),
                payload: None,
                headers: Headers::from_pairs(headers),
                parked: None,
            };
            let message = "\u{1}ä".repeat(100_000);
            let served_by = ServedBy { endpoint: Some("e".repeat(100_000).into()), ..ServedBy::default() };
            let result = Err(Fault::permanent(Code::BadRequest, Stage::Route, message));
            let (outcome, correlation) = (Outcome { served_by, result }, Correlation::of(&request));
            let size = |form, correlation| record_in(form, &request, correlation, &outcome).bytes;
            assert!(size(Form::Fault, &correlation) > size(Form::Uncarried, &correlation) + 900_000);
            let short = correlation.short();
            assert!(size(Form::Short, &short) < 4_096, "{}", size(Form::Short, &short));
            assert!(short.id.len() <= 64 && short.header() == correlation.header());
        }
    }
}
