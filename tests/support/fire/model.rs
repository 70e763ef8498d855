//! Serves a model that takes its time, and whose trouble depends on nothing but the request's number.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::plan::Plan;

/// Longest time of an answer of the steady model, in milliseconds.
pub(super) const SLOWEST: u64 = 50;
const SLOWEST_OF_THE_SLOW: u64 = 3_000;

/// Names the behaviour of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// Answers everything, within 50 ms.
    Steady,
    /// Fails on one request in ten, on half of those only once, and hangs on one in a hundred.
    Troubled,
    /// Answers everything, within 3 seconds.
    Slow,
    /// Refuses one request in ten as busy whenever it comes, and another one in ten when it comes for the first time.
    Failing,
}

/// Serves each of the two routes at an address of its own.
pub(crate) struct ComputedModel {
    pub(crate) gold: String,
    pub(crate) plain: String,
    _runtime: Runtime,
}

struct Behaviour {
    conduct: Conduct,
    answer_bytes: usize,
    route: &'static str,
    failed_once: Mutex<HashSet<u64>>,
}

impl ComputedModel {
    /// Starts the model, whose answers have so many bytes at least.
    pub(crate) fn start(conduct: Conduct, answer_bytes: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let serve = |route: &'static str| {
            let behaviour = Arc::new(Behaviour { conduct, answer_bytes, route, failed_once: Mutex::default() });
            let invocations = post(move |body: Bytes| {
                let behaviour = Arc::clone(&behaviour);
                async move { behaviour.answer(&body).await }
            });
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            runtime.spawn(async move { axum::serve(listener, Router::new().route("/invocations", invocations)).await });
            url
        };
        Self { gold: serve("gold"), plain: serve("plain"), _runtime: runtime }
    }
}

impl Behaviour {
    async fn answer(&self, body: &[u8]) -> Response {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        let number = body["inputs"][0].as_u64().unwrap();
        // The chance is scattered, so that slow requests do not come in turn.
        let chance = Plan::scattered(number);
        let slowest = if self.conduct == Conduct::Slow { SLOWEST_OF_THE_SLOW } else { SLOWEST };
        tokio::time::sleep(Duration::from_millis(chance % slowest)).await;
        match (self.conduct, chance / SLOWEST % 100) {
            (Conduct::Troubled, 0) => std::future::pending().await,
            (Conduct::Troubled, 1..6) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            (Conduct::Troubled, 6..11) | (Conduct::Failing, 10..20)
                if self.failed_once.lock().unwrap().insert(number) =>
            {
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
            (Conduct::Failing, 0..10) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
            _ => {}
        }
        let answer = Plan::computed(number, self.route, self.answer_bytes);
        ([("content-type", "application/json")], answer).into_response()
    }
}
