//! A model at an address that answers row by row, so that each answer tells whose it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Serves a model whose prediction of a row is the row's first value, doubled if that is a number. It refuses a request
/// with a row that begins with `bad`.
pub(super) struct RowModel {
    state: Arc<State>,
    url: String,
    _runtime: Runtime,
}

#[derive(Default)]
struct State {
    /// Calls that are refused with 503 before the first is answered.
    refusals: AtomicUsize,
    calls: AtomicUsize,
    rows: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl RowModel {
    /// Starts a model that takes so long for a call, and refuses the first ones.
    pub(super) fn start(delay: Duration, refusals: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let state = Arc::new(State { refusals: refusals.into(), ..State::default() });
        let shared = Arc::clone(&state);
        let invocations = post(move |body: String| {
            let state = Arc::clone(&shared);
            async move {
                let at_once = state.at_once.fetch_add(1, Ordering::SeqCst) + 1;
                state.most_at_once.fetch_max(at_once, Ordering::SeqCst);
                tokio::time::sleep(delay).await;
                let answer = state.answer(&body);
                state.at_once.fetch_sub(1, Ordering::SeqCst);
                answer
            }
        });
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/invocations", invocations).layer(axum::extract::DefaultBodyLimit::disable());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { state, url, _runtime: runtime }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Counts the calls.
    pub(super) fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    /// Counts the rows that were answered.
    pub(super) fn rows(&self) -> usize {
        self.state.rows.load(Ordering::SeqCst)
    }
}

impl State {
    fn answer(&self, body: &str) -> Response {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let is_refused = self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if is_refused.is_ok() {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let body: Value = serde_json::from_str(body).unwrap();
        let rows = body["dataframe_split"]["data"].as_array().or_else(|| body["inputs"].as_array()).unwrap();
        let first = |row: &Value| row.as_array().map_or_else(|| row.clone(), |values| values[0].clone());
        let firsts: Vec<Value> = rows.iter().map(first).collect();
        if firsts.iter().any(|value| value.as_str().is_some_and(|text| text.starts_with("bad"))) {
            return (StatusCode::BAD_REQUEST, "a row is bad").into_response();
        }
        self.rows.fetch_add(rows.len(), Ordering::SeqCst);
        let predictions: Vec<Value> =
            firsts.into_iter().map(|value| value.as_i64().map_or(value, |number| json!(2 * number))).collect();
        ([("content-type", "application/json")], json!({ "predictions": predictions }).to_string()).into_response()
    }
}
