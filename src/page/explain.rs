//! `POST /status/route`: which route a request takes, and why, as `signalbox route` says it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::{Shared, answer};
use crate::message::{HeadersBuilder, Request, Source, header};
use crate::models::redacted;
use crate::shim::carried;

/// Header that names the endpoint, as for `POST /invocations`.
const ENDPOINT: &str = "x-endpoint";

/// Request line that conditions see: that of a call which goes to the same endpoint.
const TARGET: &[u8] = b"POST /invocations";

/// Explains the decision on the request that `POST /invocations` would make of this call. No model and no decision
/// service is called.
pub(super) async fn explain(State(page): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(router) = &page.parts.router else { return answer(StatusCode::NOT_FOUND, &()) };
    let mut explanation = router.pipeline.explain(&Arc::new(request(&headers, body))).await;
    explanation.model_uri = explanation.model_uri.map(|uri| redacted(&uri).into());
    answer(StatusCode::OK, &explanation)
}

fn request(headers: &HeaderMap, body: Bytes) -> Request {
    let mut builder = HeadersBuilder::default();
    if let Some(endpoint) = headers.get(ENDPOINT) {
        builder.push(header::ENDPOINT, Some(endpoint.as_bytes()));
    }
    let content_type = headers.get(CONTENT_TYPE).map_or(&b"application/json"[..], |value| value.as_bytes());
    builder.push(header::CONTENT_TYPE, Some(content_type));
    builder.push(header::HTTP_TARGET, Some(TARGET));
    for (name, value) in carried(headers) {
        builder.push(name, Some(value));
    }
    Request {
        source: Source { topic: "signalbox-status".into(), partition: 0, offset: 0 },
        timestamp: None,
        key: None,
        payload: Some(body),
        headers: builder.finish(),
        parked: None,
    }
}
