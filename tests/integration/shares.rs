//! Covers routes that share: by weight, by who calls and by load; and a route that a request names itself.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Kafka, Reply, Setup, Signalbox, fresh_directory, http_model};

const BODY: &[u8] = br#"{"inputs": [1]}"#;
const LIMIT: Duration = Duration::from_secs(120);
/// Address at which no process listens.
const NOWHERE: &str = "http://127.0.0.1:9";

/// Defines three endpoints: the first two share 80/15/5, the second by who calls; the third lets a request name its
/// route.
const ENDPOINTS: &str = r#"
  - name: by-chance
    strategy: weighted
    routes: &shares
      - {model_uri: "builtin:noop", alias: a, weight: 80}
      - {model_uri: "builtin:noop", alias: b, weight: 15}
      - {model_uri: "builtin:noop", alias: c, weight: 5}
      - {model_uri: "builtin:noop", alias: never, weight: 0}
  - name: by-caller
    strategy: weighted
    sticky_by: request.headers['x-user']
    route_override: true
    routes: *shares
"#;

/// Counts the answers of each route.
fn counts<'a>(replies: impl Iterator<Item = &'a Reply>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    replies.for_each(|reply| *counts.entry(reply.header("route")).or_default() += 1);
    counts
}

/// Panics unless the counts are what chance makes of 80/15/5, within five standard deviations.
fn assert_fits(counts: &BTreeMap<&str, usize>) {
    let total: usize = counts.values().sum();
    for (route, share) in [("a", 0.8), ("b", 0.15), ("c", 0.05), ("never", 0.0)] {
        let (count, expected) = (counts.get(route).copied().unwrap_or_default() as f64, share * total as f64);
        assert!((count - expected).abs() <= 5.0 * (expected * (1.0 - share)).sqrt(), "{route}: {counts:?}");
    }
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn shares_and_sticky_callers_persist_over_restart() {
    const REQUESTS: usize = 4_000;
    const CALLERS: usize = 1_000;
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let config = setup.config(ENDPOINTS, "", NOWHERE);
    let mut signalbox = Signalbox::start(&config);
    let send = |endpoint: &str, round: &str, count: usize| {
        for n in 0..count {
            let (user, id) = (format!("user-{}", n % CALLERS), format!("{endpoint}/{round}/{n}"));
            let headers = [("endpoint", endpoint), ("x-user", &user), ("kafka_correlationId", &id)];
            kafka.send(&setup.requests, None, &headers, BODY);
        }
        kafka.flush();
    };
    send("by-chance", "first", REQUESTS);
    send("by-caller", "first", REQUESTS);
    let first = setup.replies(2 * REQUESTS, LIMIT);
    assert_eq!(first.len(), 2 * REQUESTS, "{}", signalbox.log());
    assert_fits(&counts(first.iter().filter(|reply| reply.key.starts_with("by-chance/"))));

    let mut placed: HashMap<String, String> = HashMap::new();
    let mut check = |reply: &Reply| {
        let (user, route) = (reply.header("x-user").to_owned(), reply.header("route").to_owned());
        let before = placed.entry(user.clone()).or_insert_with(|| route.clone());
        assert_eq!(*before, route, "{user} was moved");
    };
    first.iter().filter(|reply| reply.key.starts_with("by-caller/")).for_each(&mut check);
    let once = first.iter().filter(|reply| {
        reply.key.strip_prefix("by-caller/first/").is_some_and(|n| n.parse::<usize>().unwrap() < CALLERS)
    });
    assert_fits(&counts(once));

    signalbox.terminate();
    signalbox.start_again();
    send("by-caller", "second", CALLERS);
    let all = setup.replies(2 * REQUESTS + CALLERS, LIMIT);
    let second: Vec<_> = all.iter().filter(|reply| reply.key.starts_with("by-caller/second/")).collect();
    assert_eq!(second.len(), CALLERS, "{}", signalbox.log());
    second.into_iter().for_each(&mut check);

    let explained = explain(&config, &["--endpoint", "by-caller", "--header", "x-user: user-7"]);
    assert_eq!(explained["route"], placed["user-7"].as_str(), "{explained}");
    assert_eq!(explained["shares"]["draw"]["value"], "user-7", "{explained}");
    assert_eq!(explained["shares"]["routes"][1]["share"], 0.15, "{explained}");
}

/// Runs `signalbox route`, and returns its output.
fn explain(config: &str, arguments: &[&str]) -> Value {
    let file = fresh_directory("route").join("signalbox.yaml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox"));
    let output = command.args(["route", "--config", file.to_str().unwrap()]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn request_names_its_route_when_endpoint_allows_it() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let signalbox = Signalbox::start(&setup.config(ENDPOINTS, "", NOWHERE));
    // Each case has a correlation id, an endpoint, the route that is asked for, and the route that answers, if one
    // does.
    let cases = [
        ("open", "by-caller", "never", Some("never")),
        ("unknown", "by-caller", "nope", None),
        ("closed", "by-chance", "never", Some("a, b or c")),
    ];
    for (id, endpoint, route, _) in cases {
        let headers = [("endpoint", endpoint), ("x-signalbox-route", route), ("kafka_correlationId", id)];
        kafka.send(&setup.requests, None, &headers, BODY);
    }
    kafka.flush();
    let replies = setup.replies(cases.len(), LIMIT);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (id, endpoint, asked, answering) in cases {
        let reply = replies.iter().find(|reply| reply.key == id).unwrap();
        let http = runtime.block_on(async {
            let url = format!("{}/endpoints/{endpoint}/invocations", signalbox.url());
            let call = reqwest::Client::new().post(url).header("x-signalbox-route", asked);
            call.header("content-type", "application/json").body(BODY).send().await.unwrap()
        });
        let said = |name: &str| http.headers().get(name).map_or("", |value| value.to_str().unwrap());
        let over_kafka = (reply.status(), reply.header("route"), reply.header("route-override"));
        let over_http = (http.status().as_u16(), said("x-route"), said("x-route-override"));
        for (status, route, overridden) in [over_kafka, over_http] {
            match answering {
                Some(answering) if answering == asked => {
                    assert_eq!((status, route, overridden), (200, asked, "true"), "{id}");
                }
                Some(_) => {
                    assert_eq!((status, overridden), (200, ""), "{id}");
                    assert!(["a", "b", "c"].contains(&route), "{id}: {route}");
                }
                None => assert_eq!((status, route, overridden), (400, "", ""), "{id}"),
            }
        }
        if answering.is_none() {
            let message = reply.json()["message"].as_str().unwrap().to_owned();
            assert!(message.ends_with("has no route `nope`; its routes are: a, b, c, never"), "{message}");
        }
    }
    let metrics = runtime
        .block_on(async { reqwest::get(format!("{}/metrics", signalbox.url())).await.unwrap().text().await.unwrap() });
    for line in [
        r#"signalbox_route_decisions_total{endpoint="by-caller",reason="override",route="never"} 2"#,
        r#"signalbox_route_decisions_total{endpoint="by-chance",reason="override",route="never"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn fastest_model_gets_most_requests_and_unreachable_one_hardly_any() {
    const REQUESTS: usize = 400;
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let ((_slow, slow), (_fast, fast)) = (http_model(400), http_model(20));
    let endpoints = format!(
        "
  - name: by-load
    strategy: least_loaded
    routes:
      - {{model_uri: \"{slow}\", alias: slow}}
      - {{model_uri: \"{fast}\", alias: fast}}
      - {{model_uri: \"{NOWHERE}\", alias: gone}}
"
    );
    // Each request is to be answered where it went first.
    let keys = "  max_in_flight: 16\n  retry_delays: []";
    let signalbox = Signalbox::start(&setup.config(&endpoints, keys, NOWHERE));
    kafka.send_orders(&setup.requests, REQUESTS, |_| BODY.to_vec());
    let replies = setup.replies(REQUESTS, LIMIT);
    assert_eq!(replies.len(), REQUESTS, "{}", signalbox.log());
    let counts = counts(replies.iter());
    assert!(counts["fast"] > REQUESTS * 8 / 10 && counts["slow"] > 0, "{counts:?}");
    // The route that is gone fails at once, and so has the fewest requests under way.
    assert!((1..REQUESTS / 10).contains(&counts["gone"]), "{counts:?}");
}
