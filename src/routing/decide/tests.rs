use bytes::Bytes;

use super::*;
use crate::config::Config;
use crate::message::{Headers, Source};
use crate::routing::{Explanation, RoutingTable};

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
        parked: None,
    })
}

fn decide(endpoint: &str, headers: &[(&str, &str)], body: &str) -> Result<RouteDecision, Fault> {
    table(CONFIG).named(endpoint).unwrap().decide(&request(headers, body))
}

#[test]
fn decide_takes_first_condition_that_holds() {
    let domain = r#"{"text": "Domain specific"}"#;
    let taken = |route, reason, skipped: &[usize]| {
        Ok(RouteDecision { route, reason, skipped: skipped.to_vec(), sticky_failed: false })
    };
    assert_eq!(decide("sentiment-router", &[], domain), taken(1, Reason::ConditionHolds, &[]));
    assert_eq!(decide("sentiment-router", &[("X-Tier", "gold")], domain), taken(1, Reason::ConditionHolds, &[]));
    let other = r#"{"text": "other"}"#;
    assert_eq!(decide("sentiment-router", &[("X-Tier", "gold")], other), taken(2, Reason::ConditionHolds, &[]));
    assert_eq!(decide("sentiment-router", &[], other), taken(0, Reason::NoConditionHolds, &[]));
    assert_eq!(decide("sentiment-router", &[], "{}"), taken(0, Reason::NoConditionHolds, &[1]));
    assert_eq!(decide("sentiment-router", &[("x-tier", "gold")], "no"), taken(2, Reason::ConditionHolds, &[1]));
}

#[test]
fn fault_names_route_and_condition_when_failure_is_not_skipped() {
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
fn endpoint_is_the_named_or_the_only_one() {
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
fn build_reports_every_problem_with_its_place() {
    let config = CONFIG
        .replace("request.headers.get('x-tier')", "request.header")
        .replace("request.json()['n'] > 3", "n > 3")
        .replace("name: strict", "name: strict\n    sticky_by: user");
    let config: Config = serde_yaml::from_str(&config).unwrap();
    let problems = RoutingTable::build(&config).unwrap_err();
    let places: Vec<_> =
        problems.iter().map(|problem| (problem.endpoint, problem.key.as_str(), problem.problem.column)).collect();
    assert_eq!(
        places,
        [(0, "routes[2].model_request_condition", 9), (1, "routes[0].model_request_condition", 1), (1, "sticky_by", 1)]
    );
}

/// Explains a decision, with the parts of each condition.
fn explained(endpoint: &Endpoint, request: &Arc<Request>) -> Explanation {
    let mut explanation = endpoint.explain(request, None);
    for (condition, parts) in explanation.conditions.iter_mut().zip(endpoint.parts()) {
        condition.show(parts.values(request, None));
    }
    explanation
}

#[test]
fn explanation_shows_every_condition() {
    let table = table(CONFIG);
    let explanation = explained(table.named("sentiment-router").unwrap(), &request(&[("x-tier", "gold")], "{}"));
    assert_eq!(
        serde_json::to_value(explanation).unwrap(),
        serde_json::json!({
            "endpoint": "sentiment-router",
            "route": "gold",
            "model_uri": "models:/gold/production",
            "reason": "its condition is the first that holds",
            "conditions": [
                {"routes": ["accurate"], "condition": "request.json()['text'].startswith('Domain')", "language": "python",
                 "error": "request.json()['text']: KeyError: 'text'",
                 "parts": [{"part": "request.json()['text']", "error": "request.json()['text']: KeyError: 'text'"}]},
                {"routes": ["gold"], "condition": "request.headers.get('x-tier') == 'gold'", "language": "python", "value": true,
                 "parts": [{"part": "request.headers.get('x-tier')", "value": "gold"}]},
            ],
        })
    );
    let explanation = table.named("strict").unwrap().explain(&request(&[], "{}"), None);
    assert_eq!((explanation.route, explanation.error_code), (None, Some("CONDITION_FAILED")));
}

const SHARES: &str = r#"
model_endpoints:
  - name: shared
    strategy: weighted
    sticky_by: request.json().get('user')
    route_override: true
    routes:
      - {model_uri: "models:/a/1", alias: a, weight: 3, fallback: c}
      - {model_uri: "models:/gold/1", alias: gold, weight: 1, model_request_condition: "request.headers['x-tier'] == 'gold'"}
      - {model_uri: "models:/b/1", alias: b}
      - {model_uri: "models:/gold/2", alias: gold-2, weight: 0, model_request_condition: "request.headers['x-tier'] == 'gold'"}
      - {model_uri: "models:/c/1", alias: c, weight: 0, fallback: gold}
      - {model_uri: "models:/d/1", alias: d, model_request_condition: "request.json()['user'] == 'dora'"}
"#;

fn shared(strategy: &str) -> RoutingTable {
    table(&SHARES.replace("strategy: weighted", &format!("strategy: {strategy}")))
}

fn chosen(table: &RoutingTable, headers: &[(&str, &str)], body: &str) -> (usize, Reason) {
    let decision = table.named("shared").unwrap().decide(&request(headers, body)).unwrap();
    (decision.route, decision.reason)
}

#[test]
fn routes_share_requests_when_condition_is_the_same() {
    let gold = [("x-tier", "gold")];
    let table = shared("weighted");
    for user in 0..100 {
        assert_eq!(chosen(&table, &gold, &format!("{{\"user\": {user}}}")), (1, Reason::StickyShare));
    }
    let table = shared("round_robin");
    let turns: Vec<_> = (0..4).map(|_| chosen(&table, &gold, "{}")).collect();
    assert_eq!(turns, [1, 3, 1, 3].map(|route| (route, Reason::RoundRobin)));
    // The routes without a condition have turns of their own.
    let turns: Vec<_> = (0..4).map(|_| chosen(&table, &[("x-tier", "tin")], r#"{"user": 1}"#)).collect();
    assert_eq!(turns, [0, 2, 4, 0].map(|route| (route, Reason::RoundRobin)));
    assert_eq!(chosen(&shared("first"), &gold, "{}"), (1, Reason::ConditionHolds));
    assert_eq!(chosen(&table, &[("x-tier", "tin")], r#"{"user": "dora"}"#), (5, Reason::ConditionHolds));
}

#[test]
fn chance_decides_when_caller_is_unknown() {
    let table = shared("weighted");
    let endpoint = table.named("shared").unwrap();
    for (body, skipped, sticky_failed, reason) in [
        (r#"{"user": "x"}"#, &[][..], false, Reason::StickyShare),
        (r#"{"user": null}"#, &[], true, Reason::Share),
        (r#"{"user": {}}"#, &[], true, Reason::Share),
        ("not JSON", &[5], true, Reason::Share),
    ] {
        let decision = endpoint.decide(&request(&[("x-tier", "tin")], body)).unwrap();
        assert_eq!((&*decision.skipped, decision.sticky_failed, decision.reason), (skipped, sticky_failed, reason));
        assert!([0, 2].contains(&decision.route), "{body}: {decision:?}");
    }
}

#[test]
fn least_loaded_reads_loads() {
    let busy = |route| LoadReading { in_flight: 9 - route, mean: None };
    let table = shared("least_loaded");
    let request = request(&[("x-tier", "tin")], "{}");
    let decision = table.named("shared").unwrap().decide_by_load(&request, None, busy).unwrap();
    assert_eq!((decision.route, decision.reason), (4, Reason::LeastLoaded));
}

#[test]
fn request_names_route_when_override_is_allowed() {
    let table = shared("weighted");
    for name in ["x-signalbox-route", "X-Signalbox-Route"] {
        assert_eq!(chosen(&table, &[("x-tier", "gold"), (name, " c ")], "{}"), (4, Reason::Override));
    }
    for unknown in ["nope", ""] {
        let fault =
            table.named("shared").unwrap().decide(&request(&[("x-signalbox-route", unknown)], "{}")).unwrap_err();
        assert_eq!((fault.code, fault.stage), (Code::BadRequest, Stage::Route));
        assert!(fault.message.ends_with("its routes are: a, gold, b, gold-2, c, d"), "{}", fault.message);
    }
    let closed = self::table(&SHARES.replace("route_override: true", ""));
    assert_eq!(chosen(&closed, &[("x-tier", "gold"), ("x-signalbox-route", "nope")], r#"{"user": 1}"#).0, 1);
}

#[test]
fn explanation_shows_shares_callers_and_fallbacks() {
    let table = shared("weighted");
    let explain = |headers: &[(&str, &str)], body: &str| {
        serde_json::to_value(explained(table.named("shared").unwrap(), &request(headers, body))).unwrap()
    };
    let explanation = explain(&[("x-tier", "tin")], r#"{"user": "u-1"}"#);
    insta::assert_snapshot!(serde_json::to_string_pretty(&explanation).unwrap(), @r#"
    {
      "conditions": [
        {
          "condition": "request.headers['x-tier'] == 'gold'",
          "language": "python",
          "parts": [
            {
              "part": "request.headers['x-tier']",
              "value": "tin"
            }
          ],
          "routes": [
            "gold",
            "gold-2"
          ],
          "value": false
        },
        {
          "condition": "request.json()['user'] == 'dora'",
          "language": "python",
          "parts": [
            {
              "part": "request.json()['user']",
              "value": "u-1"
            }
          ],
          "routes": [
            "d"
          ],
          "value": false
        }
      ],
      "endpoint": "shared",
      "fallbacks": [
        "c",
        "gold"
      ],
      "model_uri": "models:/a/1",
      "reason": "among those that share, it is the nearest to this caller",
      "route": "a",
      "shares": {
        "draw": {
          "by": "sticky_by",
          "expression": "request.json().get('user')",
          "hash": "ea72db3c499847f0",
          "value": "u-1"
        },
        "routes": [
          {
            "distance": 0.3489762493726894,
            "route": "a",
            "share": 0.75
          },
          {
            "distance": 2.4554167045127024,
            "route": "b",
            "share": 0.25
          },
          {
            "route": "c",
            "share": 0.0
          }
        ],
        "strategy": "weighted"
      }
    }
    "#);
    let by_chance = explain(&[("x-tier", "tin")], r#"{"user": null}"#);
    assert_eq!(by_chance["shares"]["draw"], serde_json::json!({"by": "chance", "because": "sticky_by gives None"}));
    let named = explain(&[("x-tier", "gold"), ("x-signalbox-route", "a")], "{}");
    assert_eq!((&named["route"], &named["shares"]), (&"a".into(), &serde_json::Value::Null));
    assert_eq!(named["conditions"][0]["value"], true);
    assert_eq!(named["fallbacks"], serde_json::json!(["c", "gold"]));
}

/// Counts the allocations of one decision, after a first one.
fn allocations(table: &RoutingTable, headers: &[(&str, &str)], body: &str) -> u64 {
    let (endpoint, request) = (table.named("shared").unwrap(), request(headers, body));
    endpoint.decide(&request).unwrap();
    allocation_counter::measure(|| assert!(endpoint.decide(&request).is_ok())).count_total
}

#[test]
fn decide_allocates_nothing_when_routes_share() {
    let only_shares: String = SHARES
        .lines()
        .filter(|line| !line.contains("condition") && !line.contains("sticky_by"))
        .collect::<Vec<_>>()
        .join("\n");
    for strategy in ["first", "weighted", "round_robin", "least_loaded"] {
        let table = self::table(&only_shares.replace("strategy: weighted", &format!("strategy: {strategy}")));
        assert_eq!(allocations(&table, &[], "{}"), 0, "{strategy}");
    }
    let by_condition = |strategy: &str| allocations(&shared(strategy), &[("x-tier", "tin")], r#"{"user": "x"}"#);
    assert_eq!(by_condition("round_robin"), by_condition("first"));
    assert_eq!(by_condition("least_loaded"), by_condition("first"));
}

#[test]
fn question_is_left_out_when_no_expression_for_python_is_reached() {
    let rule = |condition: &str| {
        format!("{{model_uri: m, alias: a{}, model_request_condition: {condition:?}}}", condition.len())
    };
    let (gold, broken, number) =
        ("request.headers['x-tier'] == 'gold'", "request.json['n'] > 3", "re.search('[0-9]', request.json['t'])");
    let asks = |rules: &[&str], keys: &str, headers: &[(&str, &str)]| {
        let routes: Vec<_> = rules.iter().copied().map(rule).collect();
        let table = table(&format!(
            "model_endpoints: [{{name: e, route_override: true{keys}, routes: [{}, {{model_uri: m, alias: rest}}]}}]",
            routes.join(", ")
        ));
        table.named("e").unwrap().question_about(&request(headers, "{}")).unwrap().is_some()
    };
    let (is_gold, is_tin) = ([("x-tier", "gold")], [("x-tier", "tin")]);
    assert!(!asks(&[gold, number], "", &is_gold));
    assert!(asks(&[gold, number], "", &is_tin));
    assert!(asks(&[number, gold], "", &is_gold));
    // A condition that fails takes nothing.
    assert!(!asks(&[broken, gold, number], "", &is_gold));
    assert!(asks(&[gold, broken, number], "", &[]));
    assert!(!asks(&[gold], "", &is_tin));
    assert!(!asks(&[number], "", &[("x-signalbox-route", "rest")]));
    // A value that a share may need is asked for always.
    let sticky = format!(", strategy: weighted, sticky_by: {:?}", "re.sub('a', '', request.json['t'])");
    assert!(asks(&[gold], &sticky, &is_gold));
}
