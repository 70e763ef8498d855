//! Covers canaries: one that does well moves up, one that becomes slow goes back by itself, and instances agree on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Kafka, Reply, Setup, Signalbox, eventually, unique};

const LIMIT: Duration = Duration::from_secs(60);

/// Starts an HTTP model whose answers take as long as the number says at the time.
async fn model(milliseconds: &Arc<AtomicU64>) -> String {
    let milliseconds = Arc::clone(milliseconds);
    let answer = async move || {
        tokio::time::sleep(Duration::from_millis(milliseconds.load(Ordering::Relaxed))).await;
        axum::Json(json!({"predictions": [1]}))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = axum::Router::new().route("/invocations", axum::routing::post(answer));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

/// Reads the canary's state, as this instance tells it.
async fn canary(signalbox: &Signalbox) -> Option<Value> {
    let page = reqwest::get(format!("{}/canaries", signalbox.url())).await.ok()?;
    let page: Value = page.json().await.ok()?;
    page["canaries"].get(0).cloned().filter(|canary| canary["standing"].is_object())
}

async fn until_canary(signalbox: &Signalbox, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(what, LIMIT, async || canary(signalbox).await.filter(|canary| holds(canary))).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Apache Kafka; tests/run starts it"]
async fn canary_is_rolled_back_by_remaining_instances_when_slow() {
    let kafka = tokio::task::spawn_blocking(Kafka::shared).await.unwrap();
    let setup = Setup::new(kafka);
    let (usual, its_own) = (Arc::new(AtomicU64::new(5)), Arc::new(AtomicU64::new(5)));
    let endpoints = format!(
        "
  - name: only
    routes:
      - {{model_uri: \"{}\", alias: stable}}
      - model_uri: \"{}\"
        alias: candidate
        canary: {{steps: [20, 50, 100], every: 3s, abort_if: {{p95_ratio: 3, minimum_calls: 20}}}}
",
        model(&usual).await,
        model(&its_own).await
    );
    let state_topic = format!("  state_topic: {}", unique("state"));
    let config = setup.config(&endpoints, &state_topic, "http://127.0.0.1:9");
    let start = || {
        let config = config.clone();
        tokio::task::spawn_blocking(move || Signalbox::start(&config))
    };
    let (first, second) = tokio::join!(start(), start());
    let (mut first, second) = (first.unwrap(), second.unwrap());

    // Requests come all the while.
    let done = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let load = async {
        while !done.load(Ordering::Relaxed) {
            let number = sent.fetch_add(1, Ordering::Relaxed);
            kafka.send(&setup.requests, Some(&format!("order-{number}")), &[], b"{\"inputs\": [1]}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        kafka.flush();
    };
    let story = async {
        // Both instances see the same step, and the requests that the step takes.
        for instance in [&first, &second] {
            let moved = |canary: &Value| canary["standing"]["step"].as_u64() >= Some(1);
            until_canary(instance, "the second step", moved).await;
        }
        let before = canary(&second).await.unwrap();
        first.kill();
        // The canary becomes slow, and answers well all the same.
        its_own.store(250, Ordering::Relaxed);
        let after = canary(&second).await.unwrap();
        assert!(after["standing"]["step"].as_u64() >= before["standing"]["step"].as_u64(), "{before} {after}");
        let back = until_canary(&second, "the way back", |canary| canary["standing"]["phase"] == "aborted").await;
        assert!(back["standing"]["step"].as_u64() >= Some(1) && back["share"] == 0.0, "{back}");
        assert!(back["standing"]["reason"].as_str().unwrap().contains("95th percentile"), "{back}");
        assert!(second.log().contains("canary is taken back"), "{}", second.log());

        // An instance that comes back knows of the rollback, and an operator has the last word.
        let again = tokio::task::spawn_blocking(move || {
            first.start_again();
            first
        });
        let first = again.await.unwrap();
        let known = until_canary(&first, "what was decided meanwhile", |_| true).await;
        assert_eq!((&known["standing"], &known["share"]), (&back["standing"], &json!(0.0)));
        let metrics = reqwest::get(format!("{}/metrics", second.url())).await.unwrap().text().await.unwrap();
        for line in [
            "signalbox_canary_share{endpoint=\"only\",route=\"candidate\"} 0",
            "signalbox_canary_aborts_total{endpoint=\"only\",route=\"candidate\"} 1",
        ] {
            assert!(metrics.contains(line), "{line}");
        }
        its_own.store(5, Ordering::Relaxed);
        let restart = format!("{}/canaries/only/candidate/restart", first.url());
        assert_eq!(reqwest::Client::new().post(restart).send().await.unwrap().status(), 200);
        for instance in [&first, &second] {
            until_canary(instance, "another beginning", |canary| canary["standing"]["generation"] == 1).await;
        }
        done.store(true, Ordering::Relaxed);
        first
    };
    let ((), _first) = tokio::join!(load, story);

    // No request was lost: each has been answered, and well.
    let sent = usize::try_from(sent.load(Ordering::Relaxed)).unwrap();
    let (replies, mut answered) = (setup.reply_reader(), HashMap::new());
    eventually("a reply to every request", LIMIT, async || {
        replies.count_into(&mut answered);
        (answered.len() == sent).then_some(())
    })
    .await;
    let replies: Vec<Reply> = setup.replies(sent, LIMIT);
    let by = |alias: &str| replies.iter().filter(|reply| reply.header("route") == alias).count();
    assert!(replies.iter().all(|reply| reply.status() == 200));
    println!("{sent} requests, {} of them by the canary", by("candidate"));
    assert!(by("candidate") > 20 && by("stable") > 20, "{} {}", by("candidate"), by("stable"));
}
