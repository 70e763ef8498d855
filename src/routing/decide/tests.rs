use bytes::Bytes;

use super::*;
use crate::config::Config;
use crate::message::{Headers, Source};
use crate::routing::RoutingTable;

const CONFIG: &str = r#"
model_endpoints:
  - name: sentiment-router
    routes:
      - {model_uri: "models:/fast/production", alias: fast}
      - model_uri: "models:/accurate/production"
        alias: accurate
        model_request_condition: "request.json()['text'].startswith('Domain')"
      - model_uri: "models:/gold/production"
        alias: gold
        model_request_condition: "request.headers.get('x-tier') == 'gold'"
  - name: strict
    routes:
      - {model_uri: "models:/a/1", alias: a, model_request_condition: "request.json()['n'] > 3", on_condition_error: fail}
      - {model_uri: "models:/b/1", alias: b, model_request_condition: "len('a' * request.json()['n']) > 5"}
"#;

fn table(config: &str) -> RoutingTable {
    let config: Config = serde_yaml::from_str(config).unwrap();
    RoutingTable::build(&config).unwrap()
}

fn request(headers: &[(&str, &str)], body: &str) -> Arc<Request> {
    Arc::new(Request {
        source: Source { topic: "t".into(), partition: 0, offset: 0 },
        timestamp: None,
        key: None,
        payload: Some(Bytes::copy_from_slice(body.as_bytes())),
        headers: Headers::from_pairs(headers.iter().map(|(name, value)| (*name, value.as_bytes()))),
    })
}

fn decide(endpoint: &str, headers: &[(&str, &str)], body: &str) -> Result<Decision, Fault> {
    table(CONFIG).named(endpoint).unwrap().decide(&request(headers, body))
}

#[test]
fn the_first_condition_that_holds_wins() {
    let domain = r#"{"text": "Domain specific"}"#;
    let taken = |route, reason, skipped: &[usize]| Ok(Decision { route, reason, skipped: skipped.to_vec() });
    assert_eq!(decide("sentiment-router", &[], domain), taken(1, Reason::ConditionHolds, &[]));
    assert_eq!(decide("sentiment-router", &[("X-Tier", "gold")], domain), taken(1, Reason::ConditionHolds, &[]));
    let other = r#"{"text": "other"}"#;
    assert_eq!(decide("sentiment-router", &[("X-Tier", "gold")], other), taken(2, Reason::ConditionHolds, &[]));
    assert_eq!(decide("sentiment-router", &[], other), taken(0, Reason::NoConditionHolds, &[]));
    assert_eq!(decide("sentiment-router", &[], "{}"), taken(0, Reason::NoConditionHolds, &[1]));
    assert_eq!(decide("sentiment-router", &[("x-tier", "gold")], "no"), taken(2, Reason::ConditionHolds, &[1]));
}

#[test]
fn failures_that_are_not_skipped_are_faults_that_name_route_and_condition() {
    let fault = decide("strict", &[], "{}").unwrap_err();
    assert_eq!((fault.code, fault.stage, fault.retryable), (Code::ConditionFailed, Stage::Route, false));
    for part in ["route `a`", "endpoint `strict`", "KeyError: 'n'", "request.json()['n'] > 3"] {
        assert!(fault.message.contains(part), "{}", fault.message);
    }
    // Exceeding the bounds is a fault although this route's failures are skipped.
    let fault = decide("strict", &[], r#"{"n": -1}"#).unwrap_err();
    assert_eq!(fault.code, Code::ResourceDoesNotExist);
    assert!(fault.message.contains("`strict`") && fault.message.contains("no condition holds"), "{}", fault.message);
    let only_b = CONFIG.replace("request.json()['n'] > 3", "False");
    let fault = table(&only_b).named("strict").unwrap().decide(&request(&[], r#"{"n": 1000000000}"#)).unwrap_err();
    assert_eq!(fault.code, Code::ConditionFailed);
    assert!(fault.message.contains("route `b`") && fault.message.contains("exceeds its bounds"), "{}", fault.message);
}

#[test]
fn the_endpoint_is_the_named_one_or_the_only_one() {
    let table = table(CONFIG);
    assert_eq!(&*table.endpoint(&request(&[("endpoint", "strict")], "")).unwrap().name, "strict");
    for headers in [&[][..], &[("endpoint", "nope")]] {
        let fault = table.endpoint(&request(headers, "")).unwrap_err();
        assert_eq!(fault.code, Code::ResourceDoesNotExist);
        assert!(fault.message.contains("sentiment-router, strict"), "{}", fault.message);
    }
    let one = "model_endpoints: [{name: only, routes: [{model_uri: m, alias: a}]}]";
    let table = self::table(one);
    let endpoint = table.endpoint(&request(&[], "")).unwrap();
    assert_eq!(endpoint.decide(&request(&[], "")).unwrap().reason, Reason::OnlyChoice);
}

#[test]
fn every_problem_is_told_with_its_place() {
    let config =
        CONFIG.replace("request.headers.get('x-tier')", "request.header").replace("request.json()['n'] > 3", "n > 3");
    let config: Config = serde_yaml::from_str(&config).unwrap();
    let problems = RoutingTable::build(&config).unwrap_err();
    let places: Vec<_> =
        problems.iter().map(|problem| (problem.endpoint, problem.route, problem.problem.column)).collect();
    assert_eq!(places, [(0, 2, 9), (1, 0, 1)]);
}

#[test]
fn an_explanation_tells_every_condition_that_was_looked_at() {
    let table = table(CONFIG);
    let explanation = table.named("sentiment-router").unwrap().explain(&request(&[("x-tier", "gold")], "{}"));
    assert_eq!(
        serde_json::to_value(explanation).unwrap(),
        serde_json::json!({
            "endpoint": "sentiment-router",
            "route": "gold",
            "model_uri": "models:/gold/production",
            "reason": "its condition is the first that holds",
            "conditions": [
                {"route": "accurate", "condition": "request.json()['text'].startswith('Domain')", "language": "python",
                 "error": "request.json()['text']: KeyError: 'text'"},
                {"route": "gold", "condition": "request.headers.get('x-tier') == 'gold'", "language": "python", "value": true},
            ],
        })
    );
    let explanation = table.named("strict").unwrap().explain(&request(&[], "{}"));
    assert_eq!((explanation.route, explanation.error_code), (None, Some("CONDITION_FAILED")));
}
