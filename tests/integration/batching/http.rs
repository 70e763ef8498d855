//! Covers models that are called over HTTP: joined where the route says so, over no more connections than the route
//! allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use axum::{Json, Router};

use super::*;

const REQUESTS: i64 = 300;
const PLACES: usize = 3;

/// Serves MLflow's protocol: doubles the column `n`, and refuses a payload with a negative number.
#[derive(Debug, Default)]
struct Doubler {
    connections: AtomicUsize,
    calls: AtomicUsize,
    rows: AtomicUsize,
}

impl Doubler {
    async fn start() -> (Arc<Self>, String) {
        let counts = Arc::new(Self::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().route("/invocations", post(double)).with_state(Arc::clone(&counts));
        let accepted = Arc::clone(&counts);
        let listener = listener.tap_io(move |_| {
            accepted.connections.fetch_add(1, Ordering::SeqCst);
        });
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (counts, url)
    }

    fn counted(&self) -> (usize, usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (count(&self.connections), count(&self.calls), count(&self.rows))
    }
}

async fn double(State(counts): State<Arc<Doubler>>, Json(payload): Json<Value>) -> Response {
    let rows: Vec<_> =
        payload["dataframe_records"].as_array().unwrap().iter().map(|row| row["n"].as_i64().unwrap()).collect();
    counts.calls.fetch_add(1, Ordering::SeqCst);
    counts.rows.fetch_add(rows.len(), Ordering::SeqCst);
    // A call costs the same for one row as for many.
    tokio::time::sleep(Duration::from_millis(20)).await;
    if rows.iter().any(|n| *n < 0) {
        let fault = json!({"error_code": "BAD_REQUEST", "message": "there is a negative number"});
        return (StatusCode::BAD_REQUEST, Json(fault)).into_response();
    }
    Json(json!({"predictions": rows.iter().map(|n| 2 * n).collect::<Vec<_>>()})).into_response()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn http_requests_are_batched_over_few_connections() {
    let (model, url) = Doubler::start().await;
    let keys = format!(", max_concurrency: {PLACES}, batch: {{max_rows: 32}}");
    let signalbox = Hosting::of(Mlflow::shared()).endpoint_with("doubler", &url, "60s", &keys).start();
    let caller = Caller::of(&signalbox);
    let payload = |n: i64| json!({"dataframe_records": [{"n": n}]});
    let ask_all = async |is_bad: fn(i64) -> bool| {
        let payloads: Vec<_> = (0..REQUESTS).map(|n| payload(if is_bad(n) { -1 - n } else { n })).collect();
        let answers = join_all(payloads.iter().map(|payload| caller.ask("doubler", payload))).await;
        for (n, answer) in (0..REQUESTS).zip(answers) {
            match is_bad(n) {
                true => assert_eq!(answer.fault(), ("BAD_REQUEST".to_owned(), "there is a negative number".to_owned())),
                false => assert_eq!(answer.predictions(), json!([2 * n])),
            }
        }
    };
    // Signalbox tests the first of the requests by themselves.
    ask_all(|_| false).await;
    for is_bad in [|_| false, |n| n % 60 == 7] {
        let (_, calls, rows) = model.counted();
        ask_all(is_bad).await;
        let (connections, all_calls, all_rows) = model.counted();
        let (calls, rows) = (all_calls - calls, all_rows - rows);
        println!("{REQUESTS} requests: {rows} rows in {calls} calls over {connections} connections so far");
        assert!(connections <= PLACES, "{connections} connections");
        assert!(calls < REQUESTS as usize / 2, "{calls} calls");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn mlflow_server_answers_batched_requests_like_single_ones() {
    let keys = ", runtime: mlflow_serve, env_manager: local, max_concurrency: 2, batch: {max_rows: 32}";
    let mut hosting = Hosting::of(Mlflow::shared()).endpoint_with("picky", "models:/picky-model/1", "120s", keys);
    for (name, value) in mlflow_environment() {
        hosting = hosting.variable(name, value);
    }
    let signalbox = hosting.start();
    let caller = Caller::of(&signalbox);
    let payload = |n: usize| {
        let says = if n % 50 == 17 { format!("poison {n}") } else { format!("fine {n}") };
        json!({"dataframe_records": [{"says": says, "ms": 20.5}]})
    };
    // A request that is sent after the one before has nobody to join.
    let mut alone = Vec::new();
    for n in 0..60 {
        alone.push(said(&caller.ask("picky", &payload(n)).await));
    }
    assert_eq!(alone[1], (200, r#"{"predictions": [{"heard": "fine 1"}]}"#.to_owned()));
    let labels = r#"{endpoint="picky",route="only"}"#;
    let before = (metric(&caller, "rows_sum", labels).await, metric(&caller, "rows_count", labels).await);
    assert_eq!(before.0, before.1, "each was called alone");
    for _ in 0..2 {
        let payloads: Vec<_> = (0..200).map(payload).collect();
        let answers = join_all(payloads.iter().map(|payload| caller.ask("picky", payload))).await;
        for (n, answer) in answers.iter().enumerate() {
            match alone.get(n) {
                Some(alone) => assert_eq!(said(answer), *alone, "{n}"),
                None => assert_eq!(answer.status == 200, n % 50 != 17, "{n}: {}", answer.text()),
            }
        }
    }
    let rows = metric(&caller, "rows_sum", labels).await - before.0;
    let calls = metric(&caller, "rows_count", labels).await - before.1;
    println!("{rows} rows in {calls} calls");
    assert!(rows / calls > 2.0, "{rows} rows in {calls} calls");
    assert_eq!(caller.model("picky-model/1").await.unwrap().singly, None);
}
