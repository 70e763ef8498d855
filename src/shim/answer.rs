//! HTTP answers, made from reply records and from faults.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE, header::RETRY_AFTER};
use axum::response::Response;
use uuid::Uuid;

use crate::callers::ReplyRecord;
use crate::message::{Code, Fault, Headers, Stage, header};

const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const ENDPOINT: HeaderName = HeaderName::from_static("x-endpoint");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Headers of the reply record that the answer shows, each with its name there; the answer has none of the others.
const SHOWN: [(&str, HeaderName); 10] = [
    (header::CONTENT_TYPE, CONTENT_TYPE),
    (header::ENDPOINT, ENDPOINT),
    (header::ROUTE, HeaderName::from_static("x-route")),
    (header::ROUTE_OVERRIDE, HeaderName::from_static("x-route-override")),
    (header::MODEL_URI, HeaderName::from_static("x-model-uri")),
    (header::MODEL_VERSION, HeaderName::from_static("x-model-version")),
    (header::FALLBACK_FROM, HeaderName::from_static("x-fallback-from")),
    (header::ATTEMPTS, HeaderName::from_static("x-attempts")),
    (header::TRACEPARENT, HeaderName::from_static(header::TRACEPARENT)),
    (header::RETRY_AFTER, RETRY_AFTER),
];

/// Time after which a caller who was turned away may come back, where neither the reply nor the fault says one.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Converts a reply record to the answer with its status, and its value byte for byte.
pub(super) fn of_reply(correlation: Uuid, endpoint: &str, reply: ReplyRecord) -> Response {
    let Some(status) = status(&reply.headers) else {
        // The reply is from a responder that breaks the contract; the caller gets a fault that says so to its operator.
        let message = "the reply's header 'status' is missing or is no HTTP status; whoever answers requests of this \
                       topic must send it";
        return of_fault(correlation, Some(endpoint), &Fault::permanent(Code::ModelError, Stage::Publish, message));
    };
    let mut answer = Response::new(Body::from(reply.body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    // Defaults come first, so that the headers of the reply replace them.
    headers.insert(CONTENT_TYPE, JSON);
    insert_text(headers, ENDPOINT, endpoint);
    for (name, shown) in SHOWN {
        if let Some(value) = reply.headers.get(name).and_then(|value| HeaderValue::from_bytes(value).ok()) {
            headers.insert(shown, value);
        }
    }
    insert_text(headers, CORRELATION_ID, &correlation.to_string());
    insert_retry_after(headers, status, None);
    answer
}

/// Converts a fault to the answer for a call that got no reply.
pub(super) fn of_fault(correlation: Uuid, endpoint: Option<&str>, fault: &Fault) -> Response {
    let correlation = correlation.to_string();
    let status = StatusCode::from_u16(fault.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = Response::new(Body::from(fault.body(&correlation)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    if let Some(endpoint) = endpoint {
        insert_text(headers, ENDPOINT, endpoint);
    }
    insert_text(headers, CORRELATION_ID, &correlation);
    insert_retry_after(headers, status, fault.retry_after);
    answer
}

/// Reads the HTTP status of a reply, if it is one that can stand before a body.
fn status(headers: &Headers) -> Option<StatusCode> {
    let status: u16 = headers.text(header::STATUS)?.parse().ok()?;
    (200..600).contains(&status).then(|| StatusCode::from_u16(status).ok())?
}

fn insert_text(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Adds `retry-after` where a time is known, and to every 429 and 503.
fn insert_retry_after(headers: &mut HeaderMap, status: StatusCode, known: Option<Duration>) {
    let turned_away = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let after = known.or_else(|| (turned_away && !headers.contains_key(RETRY_AFTER)).then_some(DEFAULT_RETRY_AFTER));
    if let Some(after) = after {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use bytes::Bytes;

    use super::*;

    fn reply(headers: &[(&str, &[u8])], body: &'static [u8]) -> ReplyRecord {
        ReplyRecord { headers: Headers::from_pairs(headers.iter().copied()), body: Bytes::from_static(body) }
    }

    async fn body(answer: Response) -> Bytes {
        to_bytes(answer.into_body(), usize::MAX).await.unwrap()
    }

    #[tokio::test]
    async fn answer_keeps_status_type_and_bytes_of_reply() {
        let id = Uuid::now_v7();
        let record = reply(
            &[
                ("status", b"200"),
                ("content-type", b"text/plain; x=\xe9"),
                ("endpoint", b"sentiment"),
                ("route", b"fast"),
                ("model-uri", b"models:/m@champion"),
                ("model-version", b"models:/m/3"),
                ("attempts", b"2"),
                ("traceparent", b"00-1-2-03"),
                ("source", b"t/0/1"),
                ("x-user-id", b"7"),
            ],
            b"\x00\xff{",
        );
        let answer = of_reply(id, "asked", record);
        assert_eq!(answer.status(), 200);
        let mut shown: Vec<_> =
            answer.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        shown.sort_unstable();
        let id = id.to_string();
        let expected: [(&str, &[u8]); 8] = [
            ("content-type", &b"text/plain; x=\xe9"[..]),
            ("traceparent", b"00-1-2-03"),
            ("x-attempts", b"2"),
            ("x-correlation-id", id.as_bytes()),
            ("x-endpoint", b"sentiment"),
            ("x-model-uri", b"models:/m@champion"),
            ("x-model-version", b"models:/m/3"),
            ("x-route", b"fast"),
        ];
        assert_eq!(shown, expected);
        assert_eq!(&body(answer).await[..], b"\x00\xff{");
    }

    #[tokio::test]
    async fn answer_is_fault_when_reply_has_no_status() {
        for headers in [&[][..], &[("status", &b"ok"[..])], &[("status", b"99")], &[("status", b"600")]] {
            let answer = of_reply(Uuid::now_v7(), "e", reply(headers, b"{}"));
            assert_eq!(answer.status(), 502);
            assert!(String::from_utf8_lossy(&body(answer).await).contains("MODEL_ERROR"));
        }
    }

    #[test]
    fn answer_has_retry_after_when_caller_is_turned_away() {
        let id = Uuid::now_v7();
        let after =
            |answer: &Response| answer.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        let said = of_reply(id, "e", reply(&[("status", b"503"), ("retry-after", b"7")], b"{}"));
        let unsaid = of_reply(id, "e", reply(&[("status", b"429")], b"{}"));
        let other = of_reply(id, "e", reply(&[("status", b"504")], b"{}"));
        assert_eq!((after(&said).as_deref(), after(&unsaid).as_deref(), after(&other)), (Some("7"), Some("1"), None));
        let fault = Fault::passing(Code::TemporarilyUnavailable, Stage::Publish, "m");
        assert_eq!(after(&of_fault(id, None, &fault)).as_deref(), Some("1"));
        let fault = fault.with_retry_after(Duration::from_millis(2_100));
        assert_eq!(after(&of_fault(id, None, &fault)).as_deref(), Some("3"));
    }
}
