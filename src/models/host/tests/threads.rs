//! Tests hosts that answer several calls at once.

use std::sync::Arc;

use futures_util::future::join_all;

use super::*;

/// Starts a host with this many threads.
async fn start(world: &HostWorld, threads: usize) -> Arc<ModelHost> {
    let spec = host_spec(&world.stunts("nothing"), Duration::from_secs(120), None);
    let (host, _) = ModelHost::start(&world.template, &HostSpec { threads, ..spec }).await.unwrap();
    Arc::new(host)
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn calls_overlap_when_a_host_has_several_threads() {
    let world = HostWorld::bare();
    let took = async |threads: usize| {
        let host = start(&world, threads).await;
        let begun = Instant::now();
        for _ in 0..12 / threads {
            for answer in join_all((0..threads).map(|_| stunt(&host, "wait"))).await {
                answer.unwrap();
            }
        }
        begun.elapsed()
    };
    let (one, six, twelve) = (took(1).await, took(6).await, took(12).await);
    println!("12 calls that wait for half a second: {one:?}, with 6 threads {six:?}, with 12 {twelve:?}");
    assert!(one > Duration::from_secs(6) && six < one / 2 && twelve < one / 3, "{one:?} {six:?} {twelve:?}");
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn call_has_a_fresh_context_when_others_set_theirs() {
    let world = HostWorld::bare();
    for threads in [1, 4] {
        let host = start(&world, threads).await;
        for _ in 0..3 {
            // A call would find what an earlier call has set.
            for answer in join_all((0..threads).map(|_| stunt(&host, "context"))).await {
                assert_eq!(answer.unwrap(), json!("fresh"), "{threads}");
            }
        }
    }
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn answers_reach_their_callers_when_they_come_out_of_order() {
    let world = HostWorld::bare();
    let host = start(&world, 8).await;
    let rows = async |number: usize| {
        // Later calls answer sooner, and larger answers are written in more pieces.
        let body =
            json!({"dataframe_records": [{"stunt": "echo", "number": number, "filler": "x".repeat(number * 50_000)}]});
        let reply = invoke(&host, body.to_string()).await.unwrap();
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        body["predictions"][0].as_u64().unwrap()
    };
    for _ in 0..5 {
        let answers = join_all((0..8).map(&rows)).await;
        assert_eq!(answers, (0..8).collect::<Vec<_>>());
    }
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn late_call_spares_others_and_returns_its_thread() {
    let world = HostWorld::bare();
    let host = start(&world, 2).await;
    let failure = invoke_within(&host, request("wait"), Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((failure.fault.code, &failure.lost), (Code::DeadlineExceeded, &None));
    let late = failure.late.unwrap();
    assert_eq!(stunt(&host, "pid").await.unwrap(), json!(host.pid()));
    host.wait_out(late).await;
    assert!(!host.is_gone());
    let both = join_all((0..2).map(|_| stunt(&host, "pid"))).await;
    assert!(both.iter().all(Result::is_ok), "{both:?}");

    // A call that lets nothing else run in its process fails the liveness probe, and the process is killed.
    let failure = invoke_within(&host, request("hang"), Duration::from_millis(200)).await.unwrap_err();
    let other = tokio::spawn({
        let host = Arc::clone(&host);
        async move { stunt(&host, "pid").await.unwrap_err() }
    });
    host.wait_out(failure.late.unwrap()).await;
    let other = other.await.unwrap();
    assert!(host.is_gone() && host.has_timed_out());
    assert!(matches!(other.lost, Some(Lost::Ended { .. })), "{other:?}");
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn threads_start_when_memory_is_limited() {
    let world = HostWorld::new(TemplateSpec { data_limit: Some(64 << 20), libraries: Vec::new(), ..spec() });
    let host = start(&world, crate::config::MOST_THREADS).await;
    let answers = join_all((0..crate::config::MOST_THREADS).map(|_| stunt(&host, "pid"))).await;
    assert!(answers.iter().all(Result::is_ok));
    world.end().await;
}
