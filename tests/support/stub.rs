//! Serves a model at an address whose behaviour a test decides call by call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// Names the reaction of a stub model to a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reaction {
    /// Answers with a prediction.
    Answer,
    /// Answers with this status.
    Status(u16),
    /// Answers with so many characters.
    Large(usize),
    /// Answers only after so long.
    Late(Duration),
    /// Answers only once the test tells it to.
    When(&'static Notify),
}

/// Serves a model that reacts as the test says. The model ends with the test.
pub(crate) struct StubModel {
    calls: Arc<AtomicUsize>,
    url: String,
    _runtime: Runtime,
}

impl StubModel {
    /// Starts a model whose reaction depends on how many calls came before, and on the headers.
    pub(crate) fn start(react: impl Fn(usize, &HeaderMap) -> Reaction + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let (react, counted) = (Arc::new(react), Arc::clone(&calls));
        let invocations = post(move |headers: HeaderMap| {
            let reaction = react(counted.fetch_add(1, Ordering::SeqCst), &headers);
            async move { answer(reaction).await }
        });
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, Router::new().route("/invocations", invocations)).await });
        Self { calls, url, _runtime: runtime }
    }

    /// Returns the model URI.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Counts the calls of the model.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

async fn answer(reaction: Reaction) -> Response {
    let mut text = String::new();
    match reaction {
        Reaction::Answer => {}
        Reaction::Large(characters) => text = "x".repeat(characters),
        Reaction::Status(status) => return StatusCode::from_u16(status).unwrap().into_response(),
        Reaction::Late(after) => tokio::time::sleep(after).await,
        Reaction::When(told) => told.notified().await,
    }
    ([("content-type", "application/json")], format!(r#"{{"predictions": [1, "{text}"]}}"#)).into_response()
}
