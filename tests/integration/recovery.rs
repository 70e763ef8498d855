//! Covers routes that cannot answer: another takes their place, they are left alone for a while, or they are called
//! again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::{
    Caller, Kafka, Reaction, Reply, Scrape, Setup, Signalbox, StubModel, eventually, unique, wait_until,
};

const LIMIT: Duration = Duration::from_secs(60);
const PAYLOAD: &[u8] = b"{\"inputs\": [1]}";

fn config(setup: &Setup<'_>, endpoints: &str) -> String {
    // Retry delays are off, as the tests look at the faults themselves.
    setup.config(endpoints, "  retry_delays: []", "http://127.0.0.1:9")
}

/// Writes one route with these keys, for a flow mapping.
fn route(alias: &str, model_uri: &str, keys: &str) -> String {
    format!("{{alias: {alias}, model_uri: \"{model_uri}\", max_concurrency: 64{keys}}}")
}

fn endpoint(name: &str, routes: &[String]) -> String {
    format!("\n  - {{name: {name}, timeout: 3s, routes: [{}]}}", routes.join(", "))
}

fn by_key(replies: &[Reply]) -> HashMap<&str, &Reply> {
    let by_key: HashMap<_, _> = replies.iter().map(|reply| (reply.key.as_str(), reply)).collect();
    assert_eq!(by_key.len(), replies.len(), "a request was answered twice");
    by_key
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn breaker_opens_until_failing_route_recovers() {
    const GOOD_CALLS: usize = 150;
    const REQUESTS: usize = 500;
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let recovered = Arc::new(AtomicBool::new(false));
    let main = {
        let recovered = Arc::clone(&recovered);
        StubModel::start(move |before, _| match before < GOOD_CALLS || recovered.load(Ordering::SeqCst) {
            true => Reaction::Answer,
            false => Reaction::Status(500),
        })
    };
    let spare = StubModel::start(|_, _| Reaction::Answer);
    let breaker = ", fallback: spare, breaker: {error_share: 0.2, minimum_calls: 10, open_for: 300ms, probes: 2}";
    let routes = [route("main", main.url(), breaker), route("spare", spare.url(), "")];
    let signalbox = Signalbox::start(&config(&setup, &endpoint("only", &routes)));
    let state = || Scrape::of(&signalbox).sum("breaker_state", &["route=\"main\""]);
    assert_eq!(state(), 0.0);

    kafka.send_orders(&setup.requests, REQUESTS, |_| PAYLOAD.to_vec());
    let replies = setup.replies(REQUESTS, LIMIT);
    let answered = by_key(&replies);
    assert_eq!(answered.len(), REQUESTS, "{}", signalbox.log());
    let mut by_main = 0;
    for reply in answered.values() {
        assert_eq!(reply.status(), 200, "{reply:?}");
        match reply.header("route") {
            "main" => by_main += 1,
            _ => assert_eq!((reply.header("route"), reply.header("fallback-from")), ("spare", "main"), "{reply:?}"),
        }
    }
    assert_eq!((by_main, spare.calls()), (GOOD_CALLS, REQUESTS - GOOD_CALLS));
    let then = Scrape::of(&signalbox);
    let fallbacks = |scrape: &Scrape, reason: &str| {
        scrape.sum("fallbacks_total", &["route=\"main\"", &format!("reason=\"{reason}\"")])
    };
    let transitions = |scrape: &Scrape, to: &str| {
        scrape.sum("breaker_transitions_total", &["route=\"main\"", &format!("to=\"{to}\"")])
    };
    assert_eq!(then.sum("breaker_state", &["route=\"main\""]), 2.0);
    let (failed, kept_away) = (fallbacks(&then, "server_error"), fallbacks(&then, "breaker_open"));
    assert_eq!(failed + kept_away, (REQUESTS - GOOD_CALLS) as f64);
    assert_eq!(failed, (main.calls() - GOOD_CALLS) as f64, "each failed call, and no other, fell back for that");
    assert!(kept_away > 100.0, "{kept_away} were kept away");
    assert!(transitions(&then, "open") >= 1.0 && transitions(&then, "closed") == 0.0);
    assert!(signalbox.log().contains("breaker opened"), "{}", signalbox.log());

    recovered.store(true, Ordering::SeqCst);
    let mut probes = 0;
    wait_until("the breaker to close", LIMIT, || {
        let id = format!("probe-{probes}");
        kafka.produce(&setup.requests, None, &[("kafka_correlationId", &id)], PAYLOAD);
        probes += 1;
        (state() == 0.0).then_some(())
    });
    for n in 0..100 {
        kafka.send(&setup.requests, None, &[("kafka_correlationId", &format!("after-{n}"))], PAYLOAD);
    }
    kafka.flush();
    let all = REQUESTS + probes + 100;
    let replies = setup.replies(all, LIMIT);
    assert_eq!(by_key(&replies).len(), all);
    assert!(replies.iter().all(|reply| reply.status() == 200));
    let mut afterwards = replies.iter().filter(|reply| reply.key.starts_with("after-"));
    assert!(afterwards.all(|reply| reply.header("route") == "main" && reply.header("fallback-from").is_empty()));
    let now = Scrape::of(&signalbox);
    assert_eq!((now.sum("breaker_state", &["route=\"main\""]), transitions(&now, "closed")), (0.0, 1.0));
    assert!(transitions(&now, "half_open") >= 1.0);
    assert_eq!(fallbacks(&now, "server_error"), failed, "no call failed after it had recovered");
    assert_eq!(now.sum("requests_total", &["status=\"200\""]), all as f64);
    assert!(signalbox.log().contains("breaker closed"));
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn fallback_takes_only_faults_that_permit_it() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let refuses = StubModel::start(|_, _| Reaction::Status(400));
    let sleeps = StubModel::start(|_, _| Reaction::Late(Duration::from_secs(20)));
    let fails = StubModel::start(|_, _| Reaction::Status(500));
    let spare = StubModel::start(|_, _| Reaction::Answer);
    let unused = StubModel::start(|_, _| Reaction::Answer);
    let fallback = ", fallback: spare";
    let everything = ", fallback: spare, retries: {}, breaker: {minimum_calls: 2}";
    let patient = ", fallback: spare, timeout: 300ms";
    let endpoints = [
        endpoint("refuses", &[route("main", refuses.url(), everything), route("spare", unused.url(), "")]),
        endpoint("sleeps", &[route("main", sleeps.url(), patient), route("spare", spare.url(), "")]),
        endpoint("hurried", &[route("main", sleeps.url(), fallback), route("spare", unused.url(), "")]),
        endpoint(
            "narrow",
            &[
                route("main", fails.url(), ", fallback: spare, fallback_on: [timeout]"),
                route("spare", unused.url(), ""),
            ],
        ),
        endpoint(
            "chain",
            &[
                "{alias: first, model_uri: 'models:/nowhere/1', fallback: second}".to_owned(),
                route("second", "http://127.0.0.1:9", ", fallback: third"),
                route("third", spare.url(), ""),
            ],
        ),
        endpoint("alone", &[route("main", fails.url(), ", breaker: {minimum_calls: 2, open_for: 30s}")]),
    ];
    let hangs = endpoint("hangs", &[route("main", sleeps.url(), ", breaker: {minimum_calls: 2, open_for: 30s}")]);
    let endpoints = [endpoints.concat(), hangs.replace("timeout: 3s", "timeout: 500ms")].concat();
    let signalbox = Signalbox::start(&config(&setup, &endpoints));
    let mut expected = 0;
    let mut send = |endpoint: &str, id: &str, deadline: Option<u128>| {
        let deadline = deadline.map(|deadline| deadline.to_string());
        let mut headers = vec![("endpoint", endpoint), ("kafka_correlationId", id)];
        headers.extend(deadline.as_deref().map(|deadline| ("deadline", deadline)));
        kafka.send(&setup.requests, None, &headers, PAYLOAD);
        expected += 1;
    };
    (0..30).for_each(|n| send("refuses", &format!("refused-{n}"), None));
    send("sleeps", "patient", None);
    send("narrow", "narrow", None);
    send("chain", "chain", None);
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() + 1_000;
    send("hurried", "hurried", Some(soon));
    kafka.flush();
    let replies = setup.replies(expected, LIMIT);
    let replies = by_key(&replies);
    assert_eq!(replies.len(), expected);

    // The fault is the caller's own: the model is called once, here, and nothing is concluded from it.
    for n in 0..30 {
        let reply = replies[format!("refused-{n}").as_str()];
        let told = (reply.status(), reply.header("attempts"), reply.header("route"), reply.header("fallback-from"));
        assert_eq!(told, (400, "1", "main", ""));
    }
    let scrape = Scrape::of(&signalbox);
    for metric in ["fallbacks_total", "breaker_state", "breaker_transitions_total", "retries_total"] {
        assert_eq!(scrape.sum(metric, &["endpoint=\"refuses\""]), 0.0, "{metric}");
    }

    // The patient route takes longer than it may, while there is time for another.
    let patient = replies["patient"];
    assert_eq!((patient.status(), patient.header("route"), patient.header("fallback-from")), (200, "spare", "main"));
    assert_eq!(scrape.sum("fallbacks_total", &["endpoint=\"sleeps\"", "reason=\"timeout\""]), 1.0);
    // A request that is out of time is out of time for every route.
    let hurried = replies["hurried"];
    assert_eq!((hurried.status(), hurried.header("route"), hurried.header("fallback-from")), (504, "main", ""));
    assert_eq!(scrape.sum("fallbacks_total", &["endpoint=\"hurried\""]), 0.0);

    let narrow = replies["narrow"];
    assert_eq!((narrow.status(), narrow.header("fallback-from")), (502, ""));
    assert_eq!(unused.calls(), 0, "a route was asked that had no call to be");

    let chain = replies["chain"];
    assert_eq!((chain.status(), chain.header("route"), chain.header("fallback-from")), (200, "third", "first"));
    assert_eq!((chain.header("attempts"), chain.header("model-uri")), ("2", spare.url()));
    assert_eq!(scrape.sum("fallbacks_total", &["route=\"first\"", "reason=\"load_failure\""]), 1.0);
    assert_eq!(scrape.sum("fallbacks_total", &["route=\"second\"", "reason=\"server_error\""]), 1.0);

    over_http(&signalbox);
}

fn over_http(signalbox: &Signalbox) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let caller = Caller::of(signalbox);
        let payload = serde_json::json!({"inputs": [1]});
        let answer = caller.ask("sleeps", &payload).await;
        assert_eq!((answer.status, answer.header("x-route")), (200, "spare"), "{}", answer.text());
        assert_eq!(answer.header("x-fallback-from"), "main");

        for _ in 0..2 {
            assert_eq!(caller.ask("alone", &payload).await.fault().0, "MODEL_ERROR");
        }
        let begun = Instant::now();
        let answer = caller.ask("alone", &payload).await;
        let (code, message) = answer.fault();
        assert_eq!(
            (answer.status, code.as_str(), &answer.json()["stage"]),
            (503, "TEMPORARILY_UNAVAILABLE", &"invoke".into())
        );
        assert!(
            message.contains("route `main` of endpoint `alone`") && message.contains("2 of 2 calls failed"),
            "{message}"
        );
        let after: u64 = answer.header("retry-after").parse().unwrap();
        assert!((30 - begun.elapsed().as_secs() - 5..=30).contains(&after), "{after}");

        // Callers over HTTP have no more time than the model: it is blamed all the same.
        eventually("a breaker that opens for calls that hang", LIMIT, async || {
            let answer = caller.ask("hangs", &payload).await;
            assert!(matches!(answer.status, 503 | 504), "{}", answer.text());
            (answer.status == 503).then(|| assert!(answer.fault().1.contains("calls failed")))
        })
        .await;
    });
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn transient_faults_are_retried_and_lasting_ones_cause_no_storm() {
    const CALM: usize = 100;
    const FLAKY: usize = 20;
    const BROKEN: usize = 200;
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let seen = Mutex::new(HashSet::new());
    let model = StubModel::start(move |_, headers| match headers.get("x-mood").map(|mood| mood.to_str().unwrap()) {
        Some("broken") => Reaction::Status(503),
        Some(name) if seen.lock().unwrap().insert(name.to_owned()) => Reaction::Status(503),
        _ => Reaction::Answer,
    });
    let routes = [route("main", model.url(), ", retries: {max_attempts: 4, backoff: 5ms}")];
    let signalbox = Signalbox::start(&config(&setup, &endpoint("only", &routes)));
    let send = |kind: &str, count: usize, mood: &dyn Fn(usize) -> Option<String>| {
        for n in 0..count {
            let (id, mood) = (format!("{kind}-{n}"), mood(n));
            let mut headers = vec![("kafka_correlationId", id.as_str())];
            headers.extend(mood.as_deref().map(|mood| ("x-mood", mood)));
            kafka.send(&setup.requests, None, &headers, PAYLOAD);
        }
        kafka.flush();
    };
    // Calm requests pay for the retries of the others.
    send("calm", CALM, &|_| None);
    setup.replies(CALM, LIMIT);
    send("flaky", FLAKY, &|n| Some(format!("flaky-{n}")));
    let replies = setup.replies(CALM + FLAKY, LIMIT);
    for reply in replies.iter().filter(|reply| reply.key.starts_with("flaky")) {
        assert_eq!((reply.status(), reply.header("attempts")), (200, "2"), "{reply:?}");
    }
    let scrape = Scrape::of(&signalbox);
    assert_eq!((scrape.sum("retries_total", &[]), scrape.sum("retries_refused_total", &[])), (FLAKY as f64, 0.0));

    send("broken", BROKEN, &|_| Some("broken".to_owned()));
    let all = CALM + FLAKY + BROKEN;
    let replies = setup.replies(all, LIMIT);
    assert_eq!(by_key(&replies).len(), all);
    assert!(replies.iter().all(|reply| reply.status() == if reply.key.starts_with("broken") { 503 } else { 200 }));
    let scrape = Scrape::of(&signalbox);
    let retries = scrape.sum("retries_total", &["route=\"main\""]);
    assert!(retries <= all as f64 / 5.0 && retries > FLAKY as f64, "{retries}");
    assert_eq!(model.calls(), all + retries as usize);
    assert!(scrape.sum("retries_refused_total", &["route=\"main\""]) > 0.0);
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn canary_is_rolled_back_when_its_fallback_hides_failures() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let (stable, candidate) =
        (StubModel::start(|_, _| Reaction::Answer), StubModel::start(|_, _| Reaction::Status(500)));
    let canary = ", fallback: stable, canary: {steps: [50, 100], every: 10m, abort_if: {minimum_calls: 20}}";
    let routes = [route("stable", stable.url(), ""), route("candidate", candidate.url(), canary)];
    let state_topic = format!("  state_topic: {}", unique("state"));
    let config = setup.config(&endpoint("only", &routes), &state_topic, "http://127.0.0.1:9");
    let signalbox = Signalbox::start(&config);
    let mut sent = 0;
    wait_until("the way back", LIMIT, || {
        for _ in 0..10 {
            kafka.send(&setup.requests, None, &[("kafka_correlationId", &format!("order-{sent}"))], PAYLOAD);
            sent += 1;
        }
        kafka.flush();
        (Scrape::of(&signalbox).sum("canary_aborts_total", &["route=\"candidate\""]) == 1.0).then_some(())
    });
    let replies = setup.replies(sent, LIMIT);
    assert_eq!(by_key(&replies).len(), sent);
    assert!(replies.iter().all(|reply| reply.status() == 200 && reply.header("route") == "stable"));
    assert!(replies.iter().any(|reply| reply.header("fallback-from") == "candidate"));
}
