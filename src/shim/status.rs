//! The pages about the process: alive, ready, version, endpoints, metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};

use super::endpoints::EndpointDirectory;
use crate::telemetry::{Metrics, Readiness};

/// Header of every answer with a JSON body.
pub(super) const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];
const PROMETHEUS: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];

#[derive(Clone)]
struct ProbeState {
    readiness: Readiness,
    metrics: Metrics,
}

/// Serves `/ping`, `/health` and `/version` as MLflow's scoring server answers them, `/ready` and `/metrics`.
pub fn status_routes(readiness: Readiness, metrics: Metrics) -> Router {
    Router::new()
        .route("/ping", get(alive))
        .route("/health", get(alive))
        .route("/version", get(version))
        .route("/ready", get(ready))
        .route("/metrics", get(encode))
        .with_state(ProbeState { readiness, metrics })
}

/// Serves `/api/2.0/endpoints/`, as MLflow's deployments server has it.
pub(super) fn listing(endpoints: Arc<EndpointDirectory>) -> Router {
    let listing = get(|State(endpoints): State<Arc<EndpointDirectory>>| async move { (JSON, endpoints.listing()) });
    Router::new()
        .route("/api/2.0/endpoints/", listing.clone())
        .route("/api/2.0/endpoints", listing)
        .with_state(endpoints)
}

async fn alive() -> impl IntoResponse {
    (JSON, "\n")
}

async fn version() -> impl IntoResponse {
    (JSON, env!("CARGO_PKG_VERSION"))
}

/// Answers with `{"ready": false, "parts": {"replies": {"ready": true}, "requests": {"ready": false, "waits_for":
/// "…"}}}`
async fn ready(State(status): State<ProbeState>) -> Response {
    let parts = status.readiness.report();
    let ready = parts.values().all(Option::is_none);
    let part = |waits_for: &Option<String>| match waits_for {
        None => json!({"ready": true}),
        Some(what) => json!({"ready": false, "waits_for": what}),
    };
    let parts: Map<String, Value> =
        parts.iter().map(|(name, waits_for)| ((*name).to_owned(), part(waits_for))).collect();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, JSON, json!({"ready": ready, "parts": parts}).to_string()).into_response()
}

async fn encode(State(status): State<ProbeState>) -> Response {
    status.metrics.look_at(&status.readiness);
    match status.metrics.encode() {
        Ok(text) => (PROMETHEUS, text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
