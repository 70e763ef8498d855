//! Covers hosts that answer several calls at once: they are faster with models that wait, and a call's damage to its
//! process costs those beside it nothing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, Caller, eventually, handmade};

const MODEL: &str = "
import os
import threading
import time

TOGETHER = threading.Semaphore(0)


class Model:
    def predict(self, model_input, params=None):
        what = str(model_input['what'][0])
        if what == 'wait':
            time.sleep(float(model_input['seconds'][0]))
        if what == 'die':
            time.sleep(float(model_input['seconds'][0]))
            os._exit(9)
        if what == 'compute':
            return [7 ** (7**12) > 0]
        return [os.getpid()]
";

fn model() -> PathBuf {
    handmade::handmade(MODEL)
}

fn request(what: &str, seconds: f64) -> Value {
    json!({"dataframe_records": [{"what": what, "seconds": seconds}]})
}

async fn waits(caller: &Caller, endpoint: &str, calls: usize, seconds: f64) -> Vec<Answer> {
    join_all((0..calls).map(|_| async { caller.ask(endpoint, &request("wait", seconds)).await })).await
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn calls_run_concurrently_when_they_wait_for_each_other() {
    let model = model();
    let route = |keys: &str| [handmade::route("only", &model, &format!(", batch: off{keys}"))];
    let (one, six, twelve) = (route(""), route(", threads: 6"), route(", threads: 12"));
    let signalbox = handmade::start(&[("one", "60s", &one), ("six", "60s", &six), ("twelve", "60s", &twelve)]);
    let caller = Caller::of(&signalbox);
    let mut took = Vec::new();
    for endpoint in ["one", "six", "twelve"] {
        // The model is loaded, and called once by each thread.
        assert_eq!(statuses(&waits(&caller, endpoint, 12, 0.0).await), [200; 12]);
        let begun = Instant::now();
        assert_eq!(statuses(&waits(&caller, endpoint, 12, 1.0).await), [200; 12]);
        took.push(begun.elapsed());
    }
    println!("12 calls that wait for a second: {took:?}");
    assert!(took[0] >= Duration::from_secs(12) && took[1] < took[0] / 3 && took[2] < took[0] / 4, "{took:?}");
    let page = caller.models().await;
    let mut threads: Vec<_> = page.models.iter().map(|model| (model.threads, model.pids.len())).collect();
    threads.sort_unstable();
    assert_eq!(threads, [(Some(1), 1), (Some(6), 1), (Some(12), 1)], "one process each, whatever the threads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn concurrent_calls_are_answered_when_one_kills_the_process() {
    const BESIDE: usize = 7;
    let routes = [handmade::route("only", &model(), ", threads: 8, batch: off, breaker: {minimum_calls: 4}")];
    let signalbox = handmade::start(&[("threads", "60s", &routes)]);
    let caller = Caller::of(&signalbox);
    assert_eq!(statuses(&waits(&caller, "threads", 1, 0.0).await), [200]);
    for _ in 0..2 {
        let death = request("die", 0.3);
        let dies = caller.ask("threads", &death);
        let (died, beside) = tokio::join!(dies, waits(&caller, "threads", BESIDE, 1.0));
        assert_eq!((died.status, &*died.fault().0), (502, "MODEL_ERROR"));
        assert_eq!(died.header("x-attempts"), "2");
        assert_eq!(statuses(&beside), [200; BESIDE]);
        assert!(beside.iter().all(|answer| answer.header("x-attempts") == "2"), "each was called once more");
    }
    // The first of each pair of deaths had company, the second had not: two processes each time, counted once each.
    assert_eq!(caller.metric(r#"signalbox_model_hosts_lost_total{reason="crashed"}"#).await, 4.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn concurrent_calls_are_unaffected_when_one_times_out() {
    let routes = [handmade::route("only", &model(), ", threads: 3, batch: off")];
    let signalbox = handmade::start(&[("threads", "2s", &routes)]);
    let caller = Caller::of(&signalbox);
    let pid = loaded(&caller).await;
    let stuck = tokio::spawn({
        let caller = caller.clone();
        async move { caller.ask("threads", &request("wait", 600.0)).await }
    });
    // A call that comes while the first waits, and after it has been given up, is answered at once, and by one call.
    let begun = Instant::now();
    let (some, others) = tokio::join!(calls_until(&caller, begun, 0.1), calls_until(&caller, begun, 0.15));
    assert_eq!(stuck.await.unwrap().status, 504);
    assert!(some.len() > 8 && others.len() > 8, "{} {}", some.len(), others.len());
    for answer in some.iter().chain(&others) {
        assert_eq!((answer.status, answer.header("x-attempts")), (200, "1"), "{}", answer.text());
    }
    // The process was replaced as soon as no other call was in it.
    eventually("another process", Duration::from_secs(30), async || {
        let answer = caller.ask("threads", &request("pid", 0.0)).await;
        (answer.status == 200 && answer.predictions() != pid).then_some(())
    })
    .await;
    assert_eq!(caller.metric(r#"signalbox_model_hosts_lost_total{reason="timed_out"}"#).await, 1.0);
}

/// Waits until the model is loaded, which may take longer than a call may, and returns the number of its process.
async fn loaded(caller: &Caller) -> Value {
    eventually("the model", Duration::from_secs(60), async || {
        let answer = caller.ask("threads", &request("pid", 0.0)).await;
        (answer.status == 200).then(|| answer.predictions())
    })
    .await
}

/// Calls one after the other for four seconds.
async fn calls_until(caller: &Caller, begun: Instant, seconds: f64) -> Vec<Answer> {
    let mut answers = Vec::new();
    while begun.elapsed() < Duration::from_secs(4) {
        answers.push(caller.ask("threads", &request("wait", seconds)).await);
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn stuck_process_is_killed_and_next_one_answers_its_calls() {
    let routes = [handmade::route("only", &model(), ", threads: 4, batch: off")];
    let signalbox = handmade::start(&[("threads", "4s", &routes)]);
    let caller = Caller::of(&signalbox);
    let pid = loaded(&caller).await;
    // The stuck call is in C, where it lets nothing else run. The stuck call begins before the others.
    let stuck = tokio::spawn({
        let caller = caller.clone();
        async move { caller.ask("threads", &request("compute", 0.0)).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let others = waits(&caller, "threads", 3, 0.0).await;
    assert_eq!(stuck.await.unwrap().status, 504);
    // The other calls have waited as long as the stuck one; a call that comes now is answered.
    assert!(others.iter().all(|answer| [200, 504].contains(&answer.status)), "{:?}", statuses(&others));
    assert_ne!(loaded(&caller).await, pid);
    assert!(caller.metric(r#"signalbox_model_hosts_lost_total{reason="timed_out"}"#).await >= 1.0);
}
