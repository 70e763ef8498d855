//! Serves an HTTP model that costs as little as a model can, or a given time: a process of its own, on one thread.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;

use crate::processor::ourselves;
use crate::support::Process;

/// Serves the model on a free port, and never ends by itself.
pub(crate) fn serve(microseconds: &str) {
    let busy = Duration::from_micros(microseconds.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let answer = move |_: Bytes| async move {
            let until = Instant::now() + busy;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            ([("content-type", "application/json")], r#"{"predictions": [1]}"#)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("listening on {};", listener.local_addr().unwrap());
        axum::serve(listener, Router::new().route("/invocations", post(answer))).await.unwrap();
    });
}

/// Starts a model that takes this long for each call, and returns the process and its address.
pub(crate) fn start(busy: Duration) -> (Process, String) {
    let mut process = ourselves("model", &[&busy.as_micros().to_string()]);
    let address = process.wait_for("a model that listens", Duration::from_secs(30), |log| {
        Some(log.split_once("listening on ")?.1.split_once(';')?.0.to_owned())
    });
    (process, format!("http://{address}"))
}
