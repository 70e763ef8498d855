use std::sync::atomic::{AtomicUsize, Ordering};

use axum::routing::post;
use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::message::{Headers, Source};
use crate::routing::RoutingTable;

/// An endpoint with a decision service, as it would be served.
struct World {
    table: RoutingTable,
    outside: Arc<DecisionService>,
    metrics: Metrics,
}

impl World {
    fn new(url: &str, more: &str) -> Self {
        let config = config(url, more);
        let metrics = Metrics::new().unwrap();
        let outside = DecisionService::new(&config.model_endpoints[0], &metrics).unwrap();
        Self { table: RoutingTable::build(&config).unwrap(), outside, metrics }
    }

    async fn ask(&self, tier: &str) -> Result<Option<usize>, Fault> {
        let request = request(tier, "{}");
        self.outside.decide(self.table.named("e").unwrap(), &request, None, Deadline::NONE).await
    }

    fn count(&self, result: &str) -> u64 {
        self.metrics.decisions.with_label_values(&["e", result]).get()
    }
}

fn config(url: &str, more: &str) -> Config {
    let text = format!(
        "
model_endpoints:
  - name: e
    decision:
      url: {url}
      timeout: 5s
      headers: [X-Tier, x-other]
      values: {{first: \"request.json()['a'][0]\", all: \"request.json()['a']\", size: \"len(request.json()['a'])\"}}
      {more}
    routes:
      - {{model_uri: 'builtin:noop', alias: fast}}
      - {{model_uri: 'builtin:noop', alias: accurate}}
"
    );
    crate::check::parse(&text, "test.yaml", &|_| None).unwrap_or_else(|report| panic!("{report}")).config
}

fn request(tier: &str, body: &str) -> Arc<Request> {
    Arc::new(Request {
        source: Source { topic: "requests".into(), partition: 0, offset: 0 },
        timestamp: None,
        key: None,
        payload: Some(Bytes::from(body.to_owned())),
        headers: Headers::from_pairs([("x-tier", tier.as_bytes())]),
        parked: None,
    })
}

/// Starts a service that answers with what `answer` makes of the tier, a little later; returns its address and the
/// count of its calls.
async fn service(answer: fn(&str) -> Option<Value>) -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let decide = async move |axum::Json(question): axum::Json<Value>| {
        count.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let tier = question["input"]["headers"]["X-Tier"].as_str().unwrap_or_default();
        answer(tier).map(axum::Json).ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = axum::Router::new().route("/decide", post(decide));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (format!("http://someone:secret@{address}/decide?key=secret"), asked)
}

fn by_tier(tier: &str) -> Option<Value> {
    Some(match tier {
        "gold" => json!({"result": "accurate"}),
        "silver" => json!({"result": {"route": "fast"}}),
        "odd" => json!({"result": "nowhere"}),
        _ => json!({}),
    })
}

fn summary(endpoint: &Endpoint, body: &str) -> Result<Bytes, DecisionError> {
    let request = request("gold", body);
    endpoint.summary(&request, &endpoint.conditions.evaluation(&request, None))
}

#[test]
fn summary_holds_configured_input_only() {
    let table = RoutingTable::build(&config("http://h/", "")).unwrap();
    let summary = |body: &str| summary(table.named("e").unwrap(), body);
    let said: Value = serde_json::from_slice(&summary(r#"{"a": ["x", {"b": 1.5}], "c": 1}"#).unwrap()).unwrap();
    let values = json!({"first": "x", "all": ["x", {"b": 1.5}], "size": 2});
    assert_eq!(said, json!({"input": {"endpoint": "e", "headers": {"X-Tier": "gold"}, "values": values}}));
    let said: Value = serde_json::from_slice(&summary("no json").unwrap()).unwrap();
    assert_eq!(said["input"]["values"], json!({"first": null, "all": null, "size": null}));
    // A number that JSON can hold and a condition cannot becomes null.
    let said: Value = serde_json::from_slice(&summary(r#"{"a": [123456789012345678901234567890]}"#).unwrap()).unwrap();
    assert_eq!(said["input"]["values"], json!({"first": null, "all": null, "size": 1}));
    let long = summary(&format!(r#"{{"a": ["{}"]}}"#, "x".repeat(2_000))).unwrap_err().to_string();
    assert!(long.contains("'all' is longer than 1024 bytes"), "{long}");
}

#[test]
fn summary_is_refused_when_too_long() {
    let mut config = config("http://h/", "");
    let decision = config.model_endpoints[0].decision.as_mut().unwrap();
    decision.values = (0..20).map(|number| (format!("v{number}"), "request.json()['a']".to_owned())).collect();
    let table = RoutingTable::build(&config).unwrap();
    let body = format!(r#"{{"a": "{}"}}"#, "x".repeat(1_000));
    let long = summary(table.named("e").unwrap(), &body).unwrap_err().to_string();
    assert!(long.contains("longer than 16 KiB"), "{long}");
}

#[tokio::test]
async fn decision_service_names_route_or_has_no_opinion() {
    let (url, _) = service(by_tier).await;
    let world = World::new(&url, "on_error: fail");
    assert_eq!(world.ask("gold").await, Ok(Some(1)));
    assert_eq!(world.ask("silver").await, Ok(Some(0)));
    assert_eq!(world.ask("bronze").await, Ok(None));
    let fault = world.ask("odd").await.unwrap_err();
    assert_eq!((fault.code, fault.stage), (Code::TemporarilyUnavailable, Stage::Route));
    let message = fault.message;
    assert!(message.contains("\"nowhere\"") && message.contains("fast, accurate"), "{message}");
    assert!(message.contains("http://127.0.0.1:") && !message.contains("secret"), "{message}");
    assert_eq!((world.count("answered"), world.count("none"), world.count("failed")), (2, 1, 1));
}

#[tokio::test]
async fn decision_service_is_asked_once_when_summaries_are_equal() {
    let (url, asked) = service(by_tier).await;
    let world = World::new(&url, "cache: 1h");
    let answers = futures_util::future::join_all((0..50).map(|_| world.ask("gold"))).await;
    assert!(answers.iter().all(|answer| *answer == Ok(Some(1))), "{answers:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(world.ask("gold").await, Ok(Some(1)));
    assert_eq!((asked.load(Ordering::Relaxed), world.count("answered"), world.count("cached")), (1, 50, 1));
    // Failures are not kept.
    assert_eq!((world.ask("odd").await, world.ask("odd").await), (Ok(None), Ok(None)));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn decision_service_is_left_alone_when_it_keeps_failing() {
    let (url, asked) = service(|_| None).await;
    let world = World::new(&url, "on_error: fail");
    for number in 0..15 {
        assert!(world.ask(&number.to_string()).await.is_err());
    }
    assert_eq!((asked.load(Ordering::Relaxed), world.count("failed"), world.count("open")), (10, 10, 5));
    let fault = world.ask("gold").await.unwrap_err();
    assert!(fault.message.contains("not asked for another") && fault.retry_after.is_some(), "{fault}");
    assert!(!fault.message.contains("secret"), "{fault}");
}

#[tokio::test]
async fn answer_reaches_followers_when_leader_is_out_of_time() {
    let (url, asked) = service(by_tier).await;
    let world = World::new(&url, "on_error: fail");
    let (request, endpoint) = (request("gold", "{}"), world.table.named("e").unwrap());
    let soon = Deadline::NONE.within(Duration::from_millis(1));
    let (short, long) = tokio::join!(world.outside.decide(endpoint, &request, None, soon), world.ask("gold"));
    assert!(short.is_err() && long == Ok(Some(1)), "{short:?} {long:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
