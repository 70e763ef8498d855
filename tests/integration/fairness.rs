//! Covers fair turns for waiting callers. No turn goes to a caller who has gone, who cannot be in time, or who has had
//! enough of the room.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::Notify;

use crate::support::{Caller, Kafka, Reaction, Setup, Signalbox, StubModel, eventually};

const LIMIT: Duration = Duration::from_secs(60);

fn endpoint(name: &str, model: &StubModel, timeout: &str, places: usize) -> String {
    let route = format!("{{alias: only, model_uri: \"{}\", max_concurrency: {places}}}", model.url());
    format!("\n  - {{name: {name}, timeout: {timeout}, routes: [{route}]}}")
}

fn start(setup: &Setup<'_>, endpoints: &[String], kafka_keys: &str) -> Signalbox {
    Signalbox::start(&setup.config(&format!("{}\n", endpoints.concat()), kafka_keys, "http://127.0.0.1:9"))
}

/// Runs a test that calls from a runtime of its own: the models have theirs.
fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(test);
}

/// Calls an endpoint so many times at once; a call that is aborted hangs up.
fn call(caller: &Caller, endpoint: &'static str, times: usize) -> Vec<tokio::task::JoinHandle<u16>> {
    let call = |_| {
        // Each call has a connection of its own.
        let caller = caller.clone();
        tokio::spawn(async move { caller.ask(endpoint, &json!({"inputs": [1]})).await.status })
    };
    (0..times).map(call).collect()
}

async fn until_metric(caller: &Caller, series: &str, value: f64) {
    let is_there = async || (caller.metric(series).await == value).then_some(());
    eventually(&format!("{series} {value}"), LIMIT, is_there).await;
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn model_is_not_called_when_caller_has_hung_up() {
    static GO_ON: Notify = Notify::const_new();
    const GONE: usize = 30;
    const STAY: usize = 10;
    let setup = Setup::new(Kafka::shared());
    let model = StubModel::start(|calls, _| match calls {
        0 => Reaction::When(&GO_ON),
        _ => Reaction::Late(Duration::from_millis(20)),
    });
    let signalbox = start(&setup, &[endpoint("slow", &model, "60s", 1)], "");
    let caller = Caller::of(&signalbox);
    block_on(async {
        let mut stay = call(&caller, "slow", 1);
        eventually("the first call", LIMIT, async || (model.calls() == 1).then_some(())).await;
        let gone = call(&caller, "slow", GONE);
        stay.extend(call(&caller, "slow", STAY - 1));
        until_metric(&caller, "signalbox_in_flight_requests", (GONE + STAY) as f64).await;

        gone.iter().for_each(tokio::task::JoinHandle::abort);
        // The only place is taken meanwhile: none of the callers waits for a turn to find out.
        until_metric(&caller, "signalbox_in_flight_requests", STAY as f64).await;
        assert_eq!((caller.metric("signalbox_abandoned_total").await, model.calls()), (GONE as f64, 1));
        GO_ON.notify_one();
        for answered in join_all(stay).await {
            assert_eq!(answered.unwrap(), 200);
        }
        assert_eq!(model.calls(), STAY);
        // Each request has its record all the same.
        let replies = setup.replies(GONE + STAY, LIMIT);
        let of = |status: u16| replies.iter().filter(|reply| reply.status() == status).count();
        assert_eq!((of(200), of(499)), (STAY, GONE));
        let cancelled = replies.iter().find(|reply| reply.status() == 499).unwrap();
        assert_eq!(cancelled.header("attempts"), "0", "{cancelled:?}");
    });
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn flooded_endpoint_does_not_delay_other_endpoints() {
    const FLOOD: usize = 400;
    const PROBES: usize = 40;
    let setup = Setup::new(Kafka::shared());
    let slow = StubModel::start(|_, _| Reaction::Late(Duration::from_millis(500)));
    let fast = StubModel::start(|_, _| Reaction::Answer);
    let endpoints = [endpoint("slow", &slow, "120s", 4), endpoint("fast", &fast, "60s", 4)];
    let signalbox = start(&setup, &endpoints, "  max_in_flight: 160");
    let caller = Caller::of(&signalbox);
    block_on(async {
        let flood = call(&caller, "slow", FLOOD);
        let is_there = async || (caller.metric("signalbox_shim_pending").await > 0.8 * FLOOD as f64).then_some(());
        eventually("the flood", LIMIT, is_there).await;
        // Calls that came one after the other would wait once, for all that is before the first.
        let mut asking = Vec::new();
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..PROBES {
            pace.tick().await;
            let caller = caller.clone();
            asking.push(tokio::spawn(async move { caller.ask("fast", &json!({"inputs": [1]})).await }));
        }
        let mut took = Vec::new();
        for answer in join_all(asking).await {
            let answer = answer.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            took.push(answer.took);
        }
        took.sort_unstable();
        let aside = caller.metric(r#"signalbox_parked_total{reason="behind"}"#).await;
        let (median, p95) = (took[PROBES / 2], took[PROBES * 95 / 100]);
        println!(
            "median {median:?}, p95 {p95:?}, with {} calls of the slow model; {aside} were put aside",
            slow.calls()
        );
        // The flood takes all the room, so that these calls would wait until most of the flood was done with.
        assert!(p95 < Duration::from_secs(2), "{took:?}");
        assert!(aside >= 1.0);

        // Requests that were put aside are known to have lost their callers as well.
        let answered = slow.calls();
        flood.iter().for_each(tokio::task::JoinHandle::abort);
        let replies = setup.replies(FLOOD + PROBES, LIMIT);
        assert_eq!(replies.len(), FLOOD + PROBES, "each has its record");
        let cancelled = replies.iter().filter(|reply| reply.status() == 499).count();
        println!("{answered} calls when the callers left, {} in the end; {cancelled} cancelled", slow.calls());
        assert!(slow.calls() <= answered + 8 && cancelled + slow.calls() >= FLOOD);
    });
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn request_is_shed_without_call_when_deadline_is_out_of_reach() {
    const CALLERS: usize = 100;
    let setup = Setup::new(Kafka::shared());
    let model = StubModel::start(|_, _| Reaction::Late(Duration::from_millis(100)));
    let signalbox = start(&setup, &[endpoint("slow", &model, "2s", 1)], "");
    let caller = Caller::of(&signalbox);
    block_on(async {
        // Calls that come one at a time wait for nobody.
        for _ in 0..10 {
            assert_eq!(caller.ask("slow", &json!({"inputs": [1]})).await.status, 200);
        }
        let begun = Instant::now();
        let payload = json!({"inputs": [1]});
        let answers = join_all((0..CALLERS).map(|_| caller.ask("slow", &payload))).await;
        let all_took = begun.elapsed();
        let (answered, others): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        let refused: Vec<_> = others.iter().filter(|answer| answer.status == 503).collect();
        let slowest = refused.iter().map(|answer| answer.took).max().unwrap_or_default();
        let calls = model.calls() - 10;
        println!(
            "{} answered with {calls} calls and {} refused within {slowest:?} of {CALLERS}, in {all_took:?}",
            answered.len(),
            refused.len()
        );
        // Two seconds are worth twenty calls.
        assert!(refused.len() >= CALLERS - 25, "{}", others[0].text());
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
        for answer in &refused {
            assert!(answer.text().contains("calls are waiting before this request"), "{}", answer.text());
            assert!((1..=2).contains(&answer.header("retry-after").parse().unwrap()), "{answer:?}");
        }
        assert!(answered.len() >= 5 && calls <= CALLERS - refused.len());
        let counted = caller.metric(r#"signalbox_requests_shed_total{endpoint="slow",route="only"}"#).await;
        assert_eq!(counted, refused.len() as f64);
        // No call is refused when there is nothing to do.
        assert_eq!(caller.ask("slow", &payload).await.status, 200);
    });
}
