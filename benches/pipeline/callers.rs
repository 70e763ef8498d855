//! Runs HTTP callers, each with a connection of its own, who call again when they have their answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use reqwest::header::CONTENT_TYPE;
use tokio::runtime::Runtime;

use crate::statistics::{at, milliseconds};

/// Holds the results of the callers.
pub(crate) struct Calls {
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Has `callers` callers share a number of calls of an address, of which the first tenth is not counted.
pub(crate) fn call(url: &str, callers: usize, calls: usize, payload: Vec<u8>) -> Calls {
    let client = Client::builder().tcp_nodelay(true).no_proxy().pool_max_idle_per_host(callers).build().unwrap();
    let (next, payload) = (Arc::new(AtomicUsize::new(0)), bytes::Bytes::from(payload));
    let runtime = Runtime::new().unwrap();
    let mut counted: Vec<(Instant, Duration)> = runtime.block_on(async {
        let calling = (0..callers).map(|_| {
            let (client, next, payload, url) = (client.clone(), Arc::clone(&next), payload.clone(), url.to_owned());
            tokio::spawn(async move {
                let mut counted = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= calls {
                        return counted;
                    }
                    let begun = Instant::now();
                    let post = client.post(&url).header(CONTENT_TYPE, "application/json").body(payload.clone());
                    let answer = post.send().await.unwrap();
                    let (status, body) = (answer.status(), answer.bytes().await.unwrap());
                    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
                    if number >= calls / 10 {
                        counted.push((begun, begun.elapsed()));
                    }
                }
            })
        });
        let mut all = Vec::with_capacity(calls);
        for calling in calling.collect::<Vec<_>>() {
            all.extend(calling.await.unwrap());
        }
        all
    });
    let begun = counted.iter().map(|(begun, _)| *begun).min().unwrap();
    let ended = counted.iter().map(|(begun, took)| *begun + *took).max().unwrap();
    counted.sort_unstable_by_key(|(_, took)| *took);
    let took: Vec<_> = counted.into_iter().map(|(_, took)| took).collect();
    Calls {
        per_second: took.len() as f64 / ended.duration_since(begun).as_secs_f64(),
        p50: milliseconds(at(&took, 0.5)),
        p99: milliseconds(at(&took, 0.99)),
    }
}
