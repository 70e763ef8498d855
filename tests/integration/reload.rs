//! Covers a config file that changes while requests are under way.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Caller, Kafka, Mlflow, Setup, Signalbox, eventually, fresh_directory, signal, wait_until};

const LIMIT: Duration = Duration::from_secs(120);
const RELOADS: usize = 50;
const CALLERS: usize = 4;
const OK: &str = "signalbox_config_reloads_total{result=\"ok\"}";
const INVALID: &str = "signalbox_config_reloads_total{result=\"invalid\"}";
const SUCCESS: &str = "signalbox_config_last_reload_success";

fn payload() -> Value {
    json!({"dataframe_records": [{"text": "a"}]})
}

/// Writes an endpoint with these routes, each with an alias and more keys.
fn endpoint(name: &str, strategy: &str, routes: &[(String, &str)]) -> String {
    let route = |(alias, keys): &(String, &str)| format!("{{model_uri: builtin:noop, alias: {alias}{keys}}}");
    let routes: Vec<_> = routes.iter().map(route).collect();
    format!("\n  - {{name: {name}, strategy: {strategy}, timeout: 20s, routes: [{}]}}\n", routes.join(", "))
}

/// Writes the endpoint after so many changes: other routes, conditions or weights, and requests take `taken` in each
/// case.
fn version(n: usize) -> (String, String) {
    let (taken, other) = (format!("route-{n}"), format!("other-{n}"));
    const HOLDS: &str = ", model_request_condition: \"'dataframe_records' in request.json()\"";
    const HOLDS_NOT: &str = ", model_request_condition: \"request.headers.get('x-nobody') == 'x'\"";
    let text = match n % 4 {
        0 => endpoint("only", "first", &[(taken.clone(), ""), (other, HOLDS_NOT)]),
        1 => endpoint("only", "first", &[(other, ""), (taken.clone(), HOLDS)]),
        2 => endpoint("only", "weighted", &[(taken.clone(), ", weight: 1"), (other, ", weight: 0")]),
        _ => endpoint(
            "only",
            "weighted",
            &[(other, ", weight: 0"), ("third".to_owned(), HOLDS_NOT), (taken.clone(), ", weight: 0.5")],
        ),
    };
    (text, taken)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka; tests/run starts it"]
async fn requests_succeed_when_config_reloads_fifty_times_under_load() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let config = |endpoints: &str| setup.config(endpoints, "", "http://127.0.0.1:9");
    // Parts of the text that differ by themselves from one time to the next are made once.
    let base = config("ENDPOINTS");
    let config = |n| base.replace("ENDPOINTS", &version(n).0);
    let signalbox = Signalbox::start(&config(0));
    let caller = Caller::of(&signalbox);

    let (is_over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (caller, is_over, asked) = (caller.clone(), Arc::clone(&is_over), Arc::clone(&asked));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let answer = caller.ask("only", &payload()).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut sent = 0;
    for n in 1..=RELOADS {
        for _ in 0..40 {
            let id = format!("order-{sent}");
            kafka.send(&setup.requests, None, &[("kafka_correlationId", &id)], payload().to_string().as_bytes());
            sent += 1;
        }
        signalbox.rewrite_config(&config(n));
        // Every tenth change is found without a signal.
        if n % 10 != 0 {
            signal("HUP", signalbox.pid());
        }
        let (_, taken) = version(n);
        eventually(&format!("an answer of {taken}"), LIMIT, async || {
            assert!(callers.iter().all(|caller| !caller.is_finished()), "a request failed; see above");
            (caller.ask("only", &payload()).await.header("x-route") == taken).then_some(())
        })
        .await;
    }
    is_over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    kafka.flush();
    // Requests over HTTP go to the same topic; their callers have had their answers.
    let over_http = asked.load(Ordering::Relaxed);
    let replies = tokio::task::block_in_place(|| {
        let reader = setup.reply_reader();
        let mut answered = std::collections::HashMap::new();
        wait_until("a reply to every record", LIMIT, || {
            reader.count_into(&mut answered);
            (answered.keys().filter(|key: &&String| key.starts_with("order-")).count() == sent).then_some(())
        });
        reader.count_rest_into(&mut answered);
        answered
    });
    assert!(replies.values().all(|count| *count == 1), "a request was answered twice");
    assert!(replies.len() >= sent + over_http);
    assert!(caller.metric(OK).await >= RELOADS as f64);
    assert_eq!((caller.metric(SUCCESS).await, caller.metric(INVALID).await), (1.0, 0.0));
    println!("{sent} requests over Kafka and {over_http} over HTTP while the config changed {RELOADS} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn reload_changes_nothing_when_file_is_invalid() {
    let config = |route: &str, server: &str| {
        format!(
            "model_endpoints:\n  - name: only\n    routes:\n      - {route}\nkafka: {{bootstrap_servers: embedded}}\nserver: {{port: 0{server}}}\n"
        )
    };
    let (before, after) = ("{model_uri: builtin:noop, alias: before}", "{model_uri: builtin:noop, alias: after}");
    let signalbox = Signalbox::start(&config(before, ""));
    let caller = Caller::of(&signalbox);
    let route = async || caller.ask("only", &payload()).await.header("x-route").to_owned();
    assert_eq!(route().await, "before");

    signalbox.rewrite_config(&config(
        "{model_uri: builtin:noop, alias: broken, model_request_condition: \"request.nope\"}",
        "",
    ));
    eventually("word of the condition", LIMIT, async || {
        signalbox
            .log()
            .contains("signalbox.yaml:4:84: model_endpoints[0].routes[0].model_request_condition")
            .then_some(())
    })
    .await;
    eventually("the count", LIMIT, async || (caller.metric(INVALID).await == 1.0).then_some(())).await;
    assert_eq!((route().await.as_str(), caller.metric(SUCCESS).await), ("before", 0.0));
    // An error that was reported is not reported again and again.
    signalbox.rewrite_config("nonsense: [");
    eventually("the second count", LIMIT, async || (caller.metric(INVALID).await == 2.0).then_some(())).await;
    assert_eq!(signalbox.log().matches("request.nope").count(), 1, "{}", signalbox.log());

    signalbox.rewrite_config(&config(after, ", max_pending: 7"));
    eventually("an answer of the new route", LIMIT, async || (route().await == "after").then_some(())).await;
    let log = signalbox.log();
    assert!(log.contains("wait for a restart") && log.contains("server.max_pending"), "{log}");
    assert!(!log.contains("server.port"), "{log}");
    assert_eq!((caller.metric(SUCCESS).await, caller.metric(INVALID).await, caller.metric(OK).await), (1.0, 2.0, 1.0));
    assert!(caller.metric("signalbox_config_last_reload_success_timestamp_seconds").await > 1e9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn model_unloads_when_last_route_drops_it() {
    let mlflow = Mlflow::shared();
    let cache = fresh_directory("cache");
    let config = |moving: &str, other: &str| {
        format!(
            "model_endpoints:\n{moving}{other}kafka: {{bootstrap_servers: embedded}}\nserver: {{port: 0}}\nregistry: {{tracking_uri: \"{}\", refresh: 200ms}}\n\
             models: {{python: \"{}\", cache: {{directory: \"{}\"}}, idle_timeout: 10s}}\n",
            mlflow.tracking_uri(),
            Mlflow::python().display(),
            cache.display()
        )
    };
    let moving = |keys: &str, timeout: &str| {
        format!(
            "  - {{name: moving, timeout: {timeout}, routes: [{{model_uri: \"models:/moving-model/1\", alias: only{keys}}}]}}\n"
        )
    };
    let other = "  - {name: other, routes: [{model_uri: builtin:noop, alias: only}]}\n";
    let signalbox = Signalbox::start(&config(&moving("", "60s"), ""));
    let caller = Caller::of(&signalbox);
    let ask = async |endpoint: &str| caller.ask(endpoint, &json!({"dataframe_records": [{"seconds": 0.0}]})).await;
    assert_eq!(ask("moving").await.predictions(), json!([1]));
    let before = caller.model("moving-model/1").await.unwrap();
    assert_eq!(ask("other").await.status, 404);
    for (n, keys) in ["", ", model_request_condition: \"True\"", ", weight: 3"].into_iter().enumerate() {
        signalbox.rewrite_config(&config(&moving(keys, &format!("5{n}s")), other));
        signal("HUP", signalbox.pid());
        let count = (n + 1) as f64;
        eventually("a reload", LIMIT, async || (caller.metric(OK).await >= count).then_some(())).await;
        assert_eq!(ask("moving").await.predictions(), json!([1]));
        assert_eq!(ask("other").await.status, 200);
        let now = caller.model("moving-model/1").await.unwrap();
        assert_eq!((now.loads, &now.pids, now.evictions), (1, &before.pids, 0));
    }
    signalbox.rewrite_config(&config("", other));
    eventually("an endpoint that is gone", LIMIT, async || (ask("moving").await.status == 404).then_some(())).await;
    eventually("a URI that is forgotten", LIMIT, async || caller.models().await.following.is_empty().then_some(()))
        .await;
    eventually("a model that has left", LIMIT, async || {
        let model = caller.model("moving-model/1").await;
        model.is_none_or(|model| model.state == "unloaded").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Apache Kafka; tests/run starts it"]
async fn separate_shim_follows_reloads() {
    let setup = Setup::new(Kafka::shared());
    let base = setup.config("ENDPOINTS", "", "http://127.0.0.1:9");
    let config = |names: &[&str]| {
        let endpoints: Vec<_> = names.iter().map(|name| endpoint(name, "first", &[("only".to_owned(), "")])).collect();
        base.replace("ENDPOINTS", &endpoints.concat())
    };
    let first = config(&["one", "two"]);
    let (router, shim) = (Signalbox::start_role("router", &first), Signalbox::start_role("shim", &first));
    let caller = Caller::of(&shim);
    for (name, status) in [("one", 200), ("two", 200), ("three", 404)] {
        assert_eq!(caller.ask(name, &payload()).await.status, status, "{name}");
    }
    let second = config(&["two", "three"]);
    router.rewrite_config(&second);
    shim.rewrite_config(&second);
    signal("HUP", router.pid());
    signal("HUP", shim.pid());
    eventually("the new endpoint", LIMIT, async || (caller.ask("three", &payload()).await.status == 200).then_some(()))
        .await;
    let gone = caller.ask("one", &payload()).await;
    assert_eq!((gone.status, gone.fault().0.as_str()), (404, "RESOURCE_DOES_NOT_EXIST"));
    assert!(gone.fault().1.ends_with("three, two"), "{:?}", gone.fault());
    assert_eq!(caller.ask("two", &payload()).await.status, 200);
    let mut seen = HashSet::new();
    seen.extend([caller.metric(OK).await as usize, Caller::of(&router).metric(OK).await as usize]);
    assert_eq!(seen, HashSet::from([1]));
}
