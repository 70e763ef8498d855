//! Covers conditions that Python evaluates: over HTTP and Kafka, and when their evaluators are killed or late.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Caller, Kafka, Scrape, Setup, Signalbox, fresh_directory, signal, wait_until};

const LIMIT: Duration = Duration::from_secs(300);
const NO_REGISTRY: &str = "http://127.0.0.1:9";

/// Endpoint with a compiled condition, conditions and a `sticky_by` in Python, and a name that they share.
const ENDPOINT: &str = r#"
  - name: ruled
    timeout: 60s
    strategy: weighted
    let: {text: "request.json['inputs'][0]"}
    sticky_by: re.sub('[^0-9]', '', text)
    routes:
      - {model_uri: "builtin:noop", alias: vip, model_request_condition: "text.startswith('vip')"}
      - {model_uri: "builtin:noop", alias: ticket, model_request_condition: "re.fullmatch('T-[0-9]+', text)"}
      - {model_uri: "builtin:noop", alias: letters, model_request_condition: "re.match('^(a+)+$', text)"}
      - {model_uri: "builtin:noop", alias: left}
      - {model_uri: "builtin:noop", alias: right}
"#;

/// Text on which the regular expression of `letters` takes for ever.
const ENDLESS: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";

fn config(setup: &Setup<'_>, timeout: &str) -> String {
    let config = setup.config(ENDPOINT, "", NO_REGISTRY);
    format!("{config}conditions: {{timeout: {timeout}}}\n")
}

fn payload(text: &str) -> Value {
    json!({"inputs": [text]})
}

/// Makes the text of a request, and the route that takes it; none where the number in the text decides between two.
fn text(n: usize) -> (String, Option<&'static str>) {
    match n % 4 {
        0 => (format!("vip {n}"), Some("vip")),
        1 => (format!("T-{n}"), Some("ticket")),
        2 => ("aaa".to_owned(), Some("letters")),
        _ => (format!("order {n}"), None),
    }
}

#[tokio::test]
#[ignore = "needs Apache Kafka and MLflow; tests/run starts them"]
async fn requests_are_routed_by_python_over_http_and_kafka() {
    let setup = Setup::new(Kafka::shared());
    let signalbox = Signalbox::start(&config(&setup, "10s"));
    let caller = Caller::of(&signalbox);
    let mut sides = HashMap::new();
    for n in 0..80 {
        let (text, route) = text(n);
        let answer = caller.ask("ruled", &payload(&text)).await;
        assert_eq!(answer.status, 200, "{text}: {}", answer.text());
        let taken = answer.header("x-route").to_owned();
        match route {
            Some(route) => assert_eq!(taken, route, "{text}"),
            None => drop(sides.insert(text, taken)),
        }
    }
    let count = |side| sides.values().filter(|taken| *taken == side).count();
    assert!(count("left") + count("right") == 20 && count("left") > 0 && count("right") > 0, "{sides:?}");

    // The same requests come to the same routes as records.
    let seen = tokio::task::spawn_blocking(move || {
        Kafka::shared().send_orders(&setup.requests, 80, |n| payload(&text(n).0).to_string().into_bytes());
        setup.replies(160, LIMIT)
    });
    let orders: Vec<_> = seen.await.unwrap().into_iter().filter(|reply| reply.key.starts_with("order-")).collect();
    assert_eq!(orders.len(), 80, "{}", signalbox.log());
    for reply in orders {
        let (text, route) = text(reply.key.strip_prefix("order-").unwrap().parse().unwrap());
        assert_eq!(reply.status(), 200, "{reply:?}");
        assert_eq!(reply.header("route"), route.unwrap_or_else(|| &sides[&text]), "{text}");
    }
    assert!(caller.metric("signalbox_evaluations_total{result=\"ok\",way=\"python\"}").await >= 480.0);
    assert!(caller.metric("signalbox_evaluations_total{result=\"ok\",way=\"compiled\"}").await >= 160.0);
    assert_eq!(caller.metric("signalbox_ready{part=\"evaluators\"}").await, 1.0);
}

#[test]
#[ignore = "needs Apache Kafka and MLflow; tests/run starts them"]
fn no_request_is_lost_when_evaluators_are_killed_under_load() {
    const REQUESTS: usize = 6_000;
    const KILLS: usize = 10;
    let setup = Setup::new(Kafka::shared());
    let signalbox = Signalbox::start(&config(&setup, "10s"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let evaluators = || -> Vec<u32> {
        let page = runtime.block_on(async {
            reqwest::get(format!("{}/evaluators", signalbox.url())).await.unwrap().text().await.unwrap()
        });
        let page: Value = serde_json::from_str(&page).unwrap();
        let pids = page["evaluators"].as_array().unwrap().iter().map(|it| it["pid"].as_u64().unwrap());
        pids.filter(|pid| *pid > 0).map(|pid| u32::try_from(pid).unwrap()).collect()
    };
    Kafka::shared().send_orders(&setup.requests, REQUESTS, |n| payload(&text(n).0).to_string().into_bytes());
    let mut killed = Vec::new();
    while killed.len() < KILLS {
        let pid = wait_until("an evaluator", LIMIT, || evaluators().into_iter().find(|pid| !killed.contains(pid)));
        signal("KILL", pid);
        killed.push(pid);
        std::thread::sleep(Duration::from_millis(50));
    }
    let replies = setup.replies(REQUESTS, LIMIT);
    let keys: HashMap<_, _> = replies.iter().map(|reply| (&reply.key, reply)).collect();
    assert_eq!((replies.len(), keys.len()), (REQUESTS, REQUESTS), "{}", signalbox.log());
    let faults: Vec<_> = replies.iter().filter(|reply| reply.status() != 200).collect();
    assert!(faults.len() <= KILLS, "{faults:?}");
    for fault in faults {
        let said = fault.json()["message"].to_string();
        assert!(said.contains("the condition of route `ticket`") && said.contains("has ended"), "{said}");
    }
    for reply in replies.iter().filter(|reply| reply.status() == 200) {
        let (text, route) = text(reply.key.strip_prefix("order-").unwrap().parse().unwrap());
        assert!(route.is_none_or(|route| reply.header("route") == route), "{text}: {reply:?}");
    }
    let lost = Scrape::of(&signalbox).sum("evaluators_lost_total", &["reason=\"crashed\""]);
    assert!(lost >= 1.0, "{lost}");
}

#[tokio::test]
#[ignore = "needs Apache Kafka and MLflow; tests/run starts them"]
async fn endless_condition_fails_alone() {
    let setup = Setup::new(Kafka::shared());
    let signalbox = Signalbox::start(&config(&setup, "2s"));
    let caller = Caller::of(&signalbox);
    assert_eq!(caller.ask("ruled", &payload("T-1")).await.status, 200);
    let calls = (0..200).map(|n| {
        let caller = caller.clone();
        async move {
            let (text, route) = text(n);
            let is_endless = n % 50 == 3;
            let answer = caller.ask("ruled", &payload(if is_endless { ENDLESS } else { &text })).await;
            if is_endless {
                let (code, message) = answer.fault();
                assert_eq!((answer.status, &*code), (422, "CONDITION_FAILED"), "{message}");
                assert!(message.contains("TimeoutError: the evaluation took longer than 2s"), "{message}");
            } else {
                assert_eq!(answer.status, 200, "{text}: {}", answer.text());
                assert!(route.is_none_or(|route| answer.header("x-route") == route), "{text}");
            }
        }
    });
    join_all(calls).await;
    assert_eq!(caller.metric("signalbox_evaluators_lost_total{reason=\"timed_out\"}").await, 4.0);
}

#[test]
#[ignore = "needs MLflow; tests/run starts it"]
fn route_command_shows_parts_that_python_evaluates() {
    let condition = "re.search('[0-9]', text) and round(len(text) / 3, 1) < len(text) and not text.islower()";
    let config = format!(
        "model_endpoints:\n  - name: ruled\n    let: {{text: \"request.json['inputs'][0]\"}}\n    routes:\n      \
         - {{model_uri: \"builtin:noop\", alias: numbered, model_request_condition: \"{condition}\"}}\n      \
         - {{model_uri: \"builtin:noop\", alias: rest}}\nmodels: {{python: {}}}\n",
        std::env::var("SIGNALBOX_TEST_PYTHON").unwrap()
    );
    let file = fresh_directory("route").join("signalbox.yaml");
    std::fs::write(&file, config).unwrap();
    let body = file.with_file_name("body.json");
    std::fs::write(&body, payload("T-1234").to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox"));
    let output = command.arg("route").arg("--config").arg(&file).arg("--body").arg(&body).output().unwrap();
    let explained: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(explained["route"], "numbered", "{explained}");
    assert_eq!(
        explained["conditions"][0]["parts"],
        json!([
            {"part": "re.search('[0-9]', text)", "value": true},
            {"part": "text", "value": "T-1234"},
            {"part": "round(len(text) / 3, 1) < len(text)", "value": true},
            {"part": "round(len(text) / 3, 1)", "value": 2.0},
            {"part": "len(text)", "value": 6},
            {"part": "not text.islower()", "value": true},
            {"part": "text.islower()", "value": false},
        ]),
        "{explained}"
    );
}
