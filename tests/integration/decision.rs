//! Covers routing by a policy service: Open Policy Agent itself decides which route a request takes, over a real Kafka.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Kafka, Opa, Reply, Setup, Signalbox, fresh_directory, wait_until};

const BODY: &[u8] = br#"{"inputs": [1, 2, 3]}"#;
const LIMIT: Duration = Duration::from_secs(120);

const POLICY: &str = r#"
package routing

route := "accurate" if input.headers["x-tier"] == "gold"

route := "fast" if {
    input.endpoint == "lenient"
    input.values.rows > 2
    input.headers["x-tier"] == "silver"
}

route := "nowhere" if input.headers["x-tier"] == "odd"
"#;

/// Configures three endpoints that ask one OPA: `lenient` goes on without a decision, to `basic`; `strict` does not;
/// `cached` remembers decisions.
fn endpoints(opa: &Opa) -> String {
    let endpoint = |name: &str, url: &str, more: &str| {
        format!(
            "
  - name: {name}
    decision:
      url: {url}
      timeout: 2s
      headers: [x-tier, x-number]
      values: {{rows: \"len(request.json['inputs'])\", absent: \"request.json['nothing']\"}}
      {more}
    routes:
      - {{model_uri: builtin:noop, alias: accurate, model_request_condition: \"request.headers.get('x-tier') == 'none'\"}}
      - {{model_uri: builtin:noop, alias: basic}}
      - {{model_uri: builtin:noop, alias: fast}}
"
        )
    };
    [
        endpoint("lenient", &opa.url("routing/route"), ""),
        // The answer is the whole package: {"result": {"route": …}}.
        endpoint("strict", &opa.url("routing"), "on_error: fail"),
        endpoint("cached", &opa.url("routing/route"), "cache: 1h"),
    ]
    .concat()
}

fn config(setup: &Setup<'_>, opa: &Opa) -> String {
    setup.config(&endpoints(opa), "  retry_delays: []", "http://127.0.0.1:9")
}

/// Holds a producer, and the number of requests that it has sent.
struct Producer<'a> {
    kafka: &'a Kafka,
    setup: &'a Setup<'a>,
    sent: usize,
}

impl Producer<'_> {
    /// Sends a request for each pair of endpoint and tier, and returns the replies in that order. Each request is
    /// another question, and the next round repeats the questions.
    fn ask(&mut self, asked: &[(&str, &str)]) -> Vec<Reply> {
        let ids: Vec<String> = (self.sent..self.sent + asked.len()).map(|id| id.to_string()).collect();
        for (number, ((endpoint, tier), id)) in asked.iter().zip(&ids).enumerate() {
            let number = number.to_string();
            let headers =
                [("endpoint", *endpoint), ("x-tier", tier), ("x-number", &number), ("kafka_correlationId", id)];
            self.kafka.send(&self.setup.requests, None, &headers, BODY);
        }
        self.kafka.flush();
        self.sent += asked.len();
        let replies = self.setup.replies(self.sent, LIMIT);
        let reply = |id: &String| replies.iter().find(|reply| reply.key == *id).unwrap().clone();
        ids.iter().map(reply).collect()
    }
}

fn decisions(signalbox: &Signalbox, endpoint: &str, result: &str) -> f64 {
    let series = format!("signalbox_decisions_total{{endpoint=\"{endpoint}\",result=\"{result}\"}}");
    signalbox.metric(&series).unwrap_or_default()
}

/// Runs `signalbox route`, and returns its output.
fn explain(config: &str, arguments: &[&str]) -> Value {
    let file = fresh_directory("route").join("signalbox.yaml");
    std::fs::write(&file, config).unwrap();
    std::fs::write(file.with_file_name("body.json"), BODY).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox"));
    let body = file.with_file_name("body.json");
    command.args(["route", "--config", file.to_str().unwrap(), "--body", body.to_str().unwrap()]);
    let output = command.args(arguments).output().unwrap();
    assert!(!output.stdout.is_empty(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
#[ignore = "needs Apache Kafka and Open Policy Agent; tests/run starts them"]
fn policy_decides_and_conditions_route_what_it_leaves_open() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let opa = Opa::start(POLICY);
    let config = config(&setup, &opa);
    let signalbox = Signalbox::start(&config);

    let cases = [
        ("lenient", "gold", "accurate"),
        ("lenient", "silver", "fast"),
        ("lenient", "bronze", "basic"),
        // The condition decides.
        ("lenient", "none", "accurate"),
        // The policy names a route that does not exist, which counts as an error, and errors are ignored here.
        ("lenient", "odd", "basic"),
        ("strict", "gold", "accurate"),
        ("strict", "bronze", "basic"),
        ("strict", "odd", ""),
        ("cached", "gold", "accurate"),
    ];
    let asked = cases.map(|(endpoint, tier, _)| (endpoint, tier));
    let replies = Producer { kafka, setup: &setup, sent: 0 }.ask(&asked);
    for ((endpoint, tier, route), reply) in cases.iter().zip(&replies) {
        assert_eq!(reply.header("route"), *route, "{endpoint} {tier}: {reply:?}");
        assert_eq!(reply.status(), if route.is_empty() { 503 } else { 200 }, "{reply:?}");
    }
    let message = replies[7].json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("\"nowhere\"; the routes are: accurate, basic, fast"), "{message}");
    let by_policy =
        "signalbox_route_decisions_total{endpoint=\"lenient\",reason=\"outside_decision\",route=\"accurate\"}";
    assert_eq!(signalbox.metric(by_policy), Some(1.0));
    let lenient = ["answered", "none", "failed"].map(|result| decisions(&signalbox, "lenient", result));
    assert_eq!(lenient, [2.0, 2.0, 1.0]);

    let gold = ["--endpoint", "lenient", "--header", "x-tier: gold"];
    let unasked = explain(&config, &gold);
    assert_eq!((&unasked["route"], &unasked["decision"]["asked"]), (&"basic".into(), &false.into()), "{unasked}");
    assert_eq!(unasked["decision"]["input"]["values"], serde_json::json!({"rows": 3, "absent": null}), "{unasked}");
    let asked = explain(&config, &[gold.as_slice(), &["--ask"]].concat());
    assert_eq!((&asked["route"], &asked["decision"]["answer"]), (&"accurate".into(), &"accurate".into()), "{asked}");
    let refused = explain(&config, &["--endpoint", "strict", "--header", "x-tier: odd", "--ask"]);
    assert_eq!((&refused["route"], &refused["error_code"]), (&Value::Null, &"TEMPORARILY_UNAVAILABLE".into()));
}

#[test]
#[ignore = "needs Apache Kafka and Open Policy Agent; tests/run starts them"]
fn requests_wait_only_briefly_when_opa_hangs_or_is_gone() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let mut producer = Producer { kafka, setup: &setup, sent: 0 };
    let mut opa = Opa::start(POLICY);
    let signalbox = Signalbox::start(&config(&setup, &opa));
    let gold = ["lenient", "strict", "cached"].map(|endpoint| (endpoint, "gold"));
    let replies = producer.ask(&gold);
    assert!(replies.iter().all(|reply| reply.header("route") == "accurate"), "{replies:?}");

    // All requests wait for the same two seconds, and then OPA is left alone.
    opa.stand_still();
    let slow: Vec<_> = gold.iter().take(2).cycle().take(40).copied().collect();
    let begun = Instant::now();
    let replies = producer.ask(&slow);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(15), "{took:?}");
    for ((endpoint, _), reply) in slow.iter().zip(&replies) {
        let expected = if *endpoint == "lenient" { (200, "basic") } else { (503, "") };
        assert_eq!((reply.status(), reply.header("route")), expected, "{endpoint}: {reply:?}");
    }
    let message = replies[1].json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("http://127.0.0.1:") && message.contains("did not answer within 2s"), "{message}");
    producer.ask(&gold[..2]);
    assert!(["lenient", "strict"].iter().all(|endpoint| decisions(&signalbox, endpoint, "open") > 0.0));

    opa.go_on();
    wait_until("OPA to be asked again", LIMIT, || {
        producer.ask(&gold[..2]).iter().all(|reply| reply.header("route") == "accurate").then_some(())
    });
    // Decisions from before OPA went are still known, and no others.
    opa.kill();
    let replies = producer.ask(&[gold[0], gold[1], gold[2], ("cached", "gold")]);
    let routes: Vec<_> = replies.iter().map(|reply| reply.header("route")).collect();
    assert_eq!(routes, ["basic", "", "accurate", "basic"], "{replies:?}");
    assert_eq!(decisions(&signalbox, "cached", "cached"), 1.0);
    assert!(replies[1].json()["message"].as_str().unwrap().contains("cannot be reached"), "{replies:?}");

    opa.start_again();
    wait_until("OPA to be asked once more", LIMIT, || {
        producer.ask(&gold).iter().all(|reply| reply.header("route") == "accurate").then_some(())
    });
}
