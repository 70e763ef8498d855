//! A reply or fault as a Kafka record: the headers of the wire contract, in the caller's dialect.

use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};

use crate::callers::ReplyRecord;
use crate::message::{Correlation, Dialect, HeadersBuilder, Outcome, Request, header};

/// The value and headers of the record that ends a request.
pub(super) struct Record {
    pub(super) payload: Bytes,
    pub(super) headers: OwnedHeaders,
}

/// Writes the record for an outcome.
pub(super) fn reply_record(request: &Request, correlation: &Correlation, outcome: &Outcome) -> Record {
    let mut headers = Some(OwnedHeaders::new_with_capacity(16));
    let payload = write(request, correlation, outcome, |key, value| {
        headers = headers.take().map(|headers| headers.insert(Header { key, value }));
    });
    Record { payload, headers: headers.unwrap_or_default() }
}

/// The same record as it would come back.
pub(super) fn reply_for_caller(request: &Request, correlation: &Correlation, outcome: &Outcome) -> ReplyRecord {
    let mut headers = HeadersBuilder::with_capacity(512, 16);
    let body = write(request, correlation, outcome, |key, value| headers.push(key, value));
    ReplyRecord { headers: headers.finish(), body }
}

/// Writes the headers, and returns the value.
fn write(
    request: &Request,
    correlation: &Correlation,
    outcome: &Outcome,
    mut put: impl FnMut(&str, Option<&[u8]>),
) -> Bytes {
    let (status, content_type, payload) = match &outcome.result {
        Ok(reply) => (200, reply.content_type.as_str(), reply.body.clone()),
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
        if let Some(value) = value {
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
        // Without it the client goes on waiting for more of the same reply.
        put("kafka_nest-is-disposed", Some(&[0]));
    }
    for (name, value) in request.headers.iter() {
        if header::is_carried(name) {
            put(name, value);
        }
    }
    payload
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
    fn a_caller_who_does_not_wait_for_the_record_gets_what_it_says() {
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
                let reply = reply_for_caller(&request, &correlation, &outcome);
                assert_eq!(reply.body, record.payload);
                let of_record: Vec<_> = record.headers.iter().map(|header| (header.key, header.value)).collect();
                assert_eq!(reply.headers.iter().collect::<Vec<_>>(), of_record);
                // Nobody copies a model's answer.
                assert_eq!(reply.body.as_ptr() == body.as_ptr(), result.is_ok());
            }
        }
    }
}
