//! Tests of the page's answers, for a process that has the HTTP side alone and for counters of routes.

use axum::http::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

const ENDPOINTS: &str = "
model_endpoints:
  - name: a
    strategy: weighted
    routes:
      - {model_uri: 'http://me:secret@host', alias: fast, weight: 3, breaker: {}}
      - {model_uri: builtin:noop, alias: slow, fallback: fast, model_request_condition: \"'secret' in request.data\"}
  - {name: b, routes: [{model_uri: builtin:noop, alias: only}]}
";

fn page(metrics: &Metrics) -> StatusPage {
    let config: Config = serde_yaml::from_str(ENDPOINTS).unwrap();
    let parts = PageParts { role: "shim", metrics: metrics.clone(), readiness: Readiness::default(), router: None };
    StatusPage::start(&config, parts)
}

async fn get(page: &StatusPage, path: &str) -> (StatusCode, HeaderMap, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(axum::serve(listener, page.routes()).into_future());
    let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = answer.text().await.unwrap();
    serving.abort();
    (status, headers, body)
}

async fn status_of(page: &StatusPage, path: &str) -> Value {
    let (code, headers, body) = get(page, path).await;
    assert_eq!((code, headers["cache-control"].to_str().unwrap()), (StatusCode::OK, "no-store"));
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn status_counts_calls_of_endpoints_where_no_route_is_known() {
    let metrics = Metrics::new().unwrap();
    let page = page(&metrics);
    metrics.shim_requests.with_label_values(&["a", "200"]).inc_by(3);
    metrics.shim_requests.with_label_values(&["a", "504"]).inc();
    for _ in 0..4 {
        metrics.shim_duration.with_label_values(&["a"]).observe(0.03);
    }
    let status = status_of(&page, "/status").await;
    assert_eq!((&status["role"], &status["ready"], &status["models"]), (&json!("shim"), &json!(true), &Value::Null));
    let a = &status["endpoints"][0];
    assert_eq!((&a["recent"]["requests"], &a["recent"]["faults"]), (&json!(4), &json!(1)));
    assert_eq!(a["recent"]["p50_ms"], json!(37.5));
    let aliases: Vec<_> = a["routes"].as_array().unwrap().iter().map(|route| route["alias"].clone()).collect();
    assert_eq!(aliases, ["fast", "slow", ""]);
    assert_eq!((&a["routes"][0]["share"], &a["routes"][2]["share"]), (&json!(0.0), &json!(1.0)));
    assert_eq!(a["routes"][2]["requests"], json!({"200": 3, "504": 1}));
    assert_eq!((&a["routes"][0]["weight"], &a["routes"][1]["fallback"]), (&json!(1.0), &json!("fast")));
    assert_eq!(a["routes"][1]["conditional"], json!(true));
    assert_eq!(
        (&status["endpoints"][1]["recent"]["requests"], status["faults"].as_array()),
        (&json!(0), Some(&vec![]))
    );
}

#[tokio::test]
async fn status_shows_no_secret() {
    let metrics = Metrics::new().unwrap();
    let (_, _, body) = get(&page(&metrics), "/status").await;
    assert!(!body.contains("secret") && body.contains("http://***@host"), "{body}");
}

#[tokio::test]
async fn status_has_samples_after_given_one() {
    let metrics = Metrics::new().unwrap();
    let page = page(&metrics);
    for _ in 0..3 {
        metrics.shim_requests.with_label_values(&["b", "200"]).inc();
        let shared = &page.shared;
        shared.traffic.lock().sample(&shared.outline.load(), &shared.counters(), shared.now());
    }
    let all = status_of(&page, "/status").await;
    assert_eq!(all["history"], json!({"interval_seconds": 5, "last": 3}));
    assert_eq!(all["endpoints"][1]["history"]["requests"], json!([1, 1, 1]));
    let newer = status_of(&page, "/status?after=2").await;
    assert_eq!(newer["endpoints"][1]["history"]["requests"], json!([1]));
    assert_eq!(newer["endpoints"][1]["routes"][0]["history"]["requests"], json!([0]));
}

#[tokio::test]
async fn endpoints_follow_config() {
    let metrics = Metrics::new().unwrap();
    let page = page(&metrics);
    let config: Config = serde_yaml::from_str(ENDPOINTS).unwrap();
    page.set_endpoints(&config.model_endpoints[1..]);
    let status = status_of(&page, "/status").await;
    assert_eq!((&status["endpoints"][0]["name"], status["endpoints"].as_array().unwrap().len()), (&json!("b"), 1));
}

#[test]
fn counters_of_routes_have_times_and_breakers() {
    let metrics = Metrics::new().unwrap();
    let route = metrics.route("a", "fast");
    route.answered.inc_by(2);
    route.request_duration.observe(0.0002);
    route.request_duration.observe(0.2);
    metrics.requests.with_label_values(&["a", "fast", "502"]).inc();
    metrics.breaker_state.with_label_values(&["a", "fast"]).set(2);
    let counters = Counters::of_routes(&metrics);
    let reading = counters.reading("a", "fast");
    assert_eq!((reading.requests, reading.faults), (3, 1));
    assert_eq!((reading.counts.first(), reading.counts.last()), (Some(&0), Some(&2)));
    assert_eq!((counters.breaker("a", "fast"), counters.breaker("a", "slow")), (Some("open"), None));
}

#[tokio::test]
async fn files_load_nothing_from_elsewhere() {
    let metrics = Metrics::new().unwrap();
    let page = page(&metrics);
    let (code, headers, html) = get(&page, "/").await;
    assert_eq!((code, headers["content-type"].to_str().unwrap()), (StatusCode::OK, "text/html; charset=utf-8"));
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
    assert!(!html.contains("style=") && !html.contains("onclick") && !html.contains("://"), "{html}");
    for path in ["page/style.css", "page/main.js", "page/icon.svg"] {
        assert!(html.contains(path), "{path}");
        assert_eq!(get(&page, &format!("/{path}")).await.0, StatusCode::OK, "{path}");
    }
}
