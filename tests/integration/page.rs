//! Covers the status page: in a real browser live numbers, a request, actions, accessibility, and a restart of the
//! server, by `tests/page/page.mjs`, which drives Chromium; and its data where each half runs by itself.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::{
    Caller, Kafka, Process, Setup, Signalbox, browser_modules, free_port, fresh_directory, http_model, wait_until,
};

const LIMIT: Duration = Duration::from_secs(120);

/// Writes a config whose embedded broker and built-in model need no service. The page comes back at the same address,
/// so the port is fixed.
fn config(port: u16) -> String {
    format!(
        "
model_endpoints:
  - name: echo
    routes:
      - {{model_uri: builtin:noop, alias: main}}
      - model_uri: builtin:noop
        alias: gold
        model_request_condition: \"request.headers.get('x-tier') == 'gold'\"
  - name: broken
    routes: [{{model_uri: 'http://127.0.0.1:9', alias: nowhere, breaker: {{}}}}]
  - name: careful
    strategy: weighted
    routes:
      - {{model_uri: builtin:noop, alias: stable}}
      - {{model_uri: builtin:noop, alias: candidate, canary: {{steps: [10, 50], every: 1h}}}}
kafka: {{bootstrap_servers: embedded, partitions: 4}}
server: {{port: {port}}}
"
    )
}

#[test]
#[ignore = "needs Chromium and Node; tests/run installs them"]
fn page_shows_process_and_survives_its_restart() {
    let mut signalbox = Signalbox::start(&config(free_port()));
    let directory = fresh_directory("page");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/page.mjs");
    let modules = browser_modules();
    let arguments = [signalbox.url(), modules.to_str().unwrap(), directory.to_str().unwrap()];
    let command = ["node", script.to_str().unwrap()].into_iter().chain(arguments);
    let mut page = Process::start("page", &directory, &[], command);
    let said = |line: &'static str| move |log: &str| log.lines().find(|said| *said == line).map(|_| ());
    page.wait_for("page that has been seen", LIMIT, said("restart, please"));
    signalbox.terminate();
    page.wait_for("page that misses its server", LIMIT, said("it is gone"));
    signalbox.start_again();
    let status = wait_until("the page to be done", LIMIT, || page.ended());
    assert!(status.success(), "{}", page.log());
}

#[test]
#[ignore = "needs Apache Kafka; tests/run starts it"]
fn status_shows_each_half_and_what_holds_oldest_request() {
    let kafka = Kafka::shared();
    let setup = Setup::with_partitions(kafka, 1);
    let (_model, url) = http_model(3000);
    let config = setup.single_config(&url, "");
    let (router, shim) = (Signalbox::start_role("router", &config), Signalbox::start_role("shim", &config));
    let (runtime, client) = (Runtime::new().unwrap(), reqwest::Client::new());
    let status = |signalbox: &Signalbox| -> Value {
        let url = format!("{}/status", signalbox.url());
        runtime.block_on(async { client.get(url).send().await.unwrap().json().await.unwrap() })
    };

    kafka.send(&setup.requests, None, &[], b"{\"inputs\": [1]}");
    kafka.flush();
    let oldest = wait_until("the call to be shown", LIMIT, || {
        let oldest = status(&router)["partitions"][0]["oldest"].clone();
        (oldest["step"] == "calling").then_some(oldest)
    });
    let of = |name: &str| oldest[name].clone();
    assert_eq!((of("offset"), of("endpoint"), of("route")), (json!(0), json!("only"), json!("only")));
    let answered = wait_until("the answer to be counted", LIMIT, || {
        let route = status(&router)["endpoints"][0]["routes"][0].clone();
        (route["recent"]["requests"] == 1).then_some(route)
    });
    assert_eq!((&answered["share"], &answered["requests"]), (&json!(1.0), &json!({"200": 1})));
    assert!(answered["recent"]["p50_ms"].as_f64().is_some_and(|p50| p50 > 2500.0), "{answered}");

    let answer = runtime.block_on(Caller::of(&shim).ask("only", &json!({"inputs": [1]})));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = status(&shim);
    assert_eq!((&said["role"], &said["models"], &said["partitions"]), (&json!("shim"), &Value::Null, &json!([])));
    let calls = &said["endpoints"][0]["routes"][1];
    assert_eq!((&calls["alias"], &calls["requests"]), (&json!(""), &json!({"200": 1})));

    let explain = |signalbox: &Signalbox| {
        let url = format!("{}/status/route", signalbox.url());
        runtime.block_on(async { client.post(url).body("{}").send().await.unwrap() })
    };
    assert_eq!(explain(&shim).status(), 404);
    let explanation: Value = runtime.block_on(explain(&router).json()).unwrap();
    assert_eq!((&explanation["route"], &explanation["model_uri"]), (&json!("only"), &json!(url)));
}
