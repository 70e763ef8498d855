//! A model that takes its time, and whose trouble depends on nothing but the request's number.

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

const SLOWEST: u64 = 50;

/// How well the model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// Answers everything, within 50 ms.
    Steady,
    /// Fails on one request in ten, on half of those only once, and hangs on one in a hundred.
    Troubled,
}

/// Serves each of the two routes at an address of its own.
pub(crate) struct ComputedModel {
    pub(crate) gold: String,
    pub(crate) plain: String,
    _runtime: Runtime,
}

struct Behaviour {
    conduct: Conduct,
    route: &'static str,
    failed_once: Mutex<HashSet<u64>>,
}

impl ComputedModel {
    pub(crate) fn start(conduct: Conduct) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let serve = |route: &'static str| {
            let behaviour = Arc::new(Behaviour { conduct, route, failed_once: Mutex::default() });
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
        // Scattered, so that slow requests do not come in turn.
        let chance = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        tokio::time::sleep(Duration::from_millis(chance % SLOWEST)).await;
        if self.conduct == Conduct::Troubled {
            match chance / SLOWEST % 100 {
                0 => std::future::pending().await,
                1..6 => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                6..11 if self.failed_once.lock().unwrap().insert(number) => {
                    return StatusCode::SERVICE_UNAVAILABLE.into_response();
                }
                _ => {}
            }
        }
        ([("content-type", "application/json")], Plan::computed(number, self.route)).into_response()
    }
}
