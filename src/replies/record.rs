//! A reply or fault as a Kafka record: the headers of the wire contract, in the caller's dialect.

use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};

use crate::message::{Correlation, Dialect, Fault, Outcome, Request, header};

/// The value and headers of the record that ends a request.
pub(super) struct Record {
    pub(super) payload: Bytes,
    pub(super) headers: OwnedHeaders,
}

/// Writes the record for an outcome.
pub(super) fn reply_record(request: &Request, correlation: &Correlation, outcome: &Outcome) -> Record {
    let (status, content_type, payload) = match &outcome.result {
        Ok(reply) => (200, reply.content_type.as_str(), reply.body.clone()),
        Err(fault) => (fault.code.status(), "application/json", fault.body(&correlation.display())),
    };
    let served_by = &outcome.served_by;
    let mut headers = OwnedHeaders::new_with_capacity(16);
    headers = with(headers, correlation.header(), &correlation.id[..]);
    headers = with(headers, header::STATUS, status.to_string().as_bytes());
    headers = with(headers, header::CONTENT_TYPE, content_type.as_bytes());
    let names = [
        (header::ENDPOINT, &served_by.endpoint),
        (header::ROUTE, &served_by.route),
        (header::MODEL_URI, &served_by.model_uri),
        (header::MODEL_VERSION, &served_by.model_version),
        (header::FALLBACK_FROM, &served_by.fallback_from),
    ];
    for (name, value) in names {
        if let Some(value) = value {
            headers = with(headers, name, value.as_bytes());
        }
    }
    if served_by.route_override {
        headers = with(headers, header::ROUTE_OVERRIDE, b"true");
    }
    headers = with(headers, header::ATTEMPTS, served_by.attempts.to_string().as_bytes());
    headers = with(headers, header::SOURCE, request.source.to_string().as_bytes());
    if let Err(fault) = &outcome.result {
        headers = with_fault(headers, fault, correlation, &payload);
    }
    if correlation.dialect == Dialect::NestJs {
        // Without it the client goes on waiting for more of the same reply.
        headers = with(headers, "kafka_nest-is-disposed", &[0]);
    }
    for (name, value) in request.headers.iter() {
        if header::is_carried(name) {
            headers = headers.insert(Header { key: name, value });
        }
    }
    Record { payload, headers }
}

fn with_fault(headers: OwnedHeaders, fault: &Fault, correlation: &Correlation, body: &[u8]) -> OwnedHeaders {
    let headers = match fault.retry_after {
        Some(after) => with(headers, header::RETRY_AFTER, after.as_secs_f64().ceil().max(1.0).to_string().as_bytes()),
        None => headers,
    };
    match correlation.dialect {
        Dialect::NestJs => with(headers, "kafka_nest-err", body),
        Dialect::Spring | Dialect::SmallRye | Dialect::Plain => headers,
    }
}

pub(super) fn with(headers: OwnedHeaders, key: &str, value: &[u8]) -> OwnedHeaders {
    headers.insert(Header { key, value: Some(value) })
}
