use super::*;

const ENDPOINTS: &str = r#"model_endpoints:
  - name: tiers
    routes:
      - {model_uri: builtin:noop, alias: fast}
      - {model_uri: builtin:noop, alias: accurate, model_request_condition: "request.headers['x-tier'] == 'gold'"}
      - {model_uri: builtin:noop, alias: strict, on_condition_error: fail, model_request_condition: "request.json()['n'] > 1"}
  - name: shared
    strategy: weighted
    sticky_by: request.headers.get('x-user')
    route_override: true
    routes:
      - {model_uri: builtin:noop, alias: a, weight: 1}
      - {model_uri: builtin:noop, alias: b, weight: 1}
      - {model_uri: builtin:noop, alias: never, weight: 0}
  - name: turns
    strategy: round_robin
    routes: [{model_uri: builtin:noop, alias: a}, {model_uri: builtin:noop, alias: b}]
tests:
"#;

fn with(tests: &str) -> String {
    format!("{ENDPOINTS}{tests}\n")
}

#[test]
fn route_test_is_no_problem_when_it_holds() {
    let tests = with(
        r#"
  - {name: gold goes to accurate, endpoint: tiers, headers: {X-Tier: gold}, body: {n: 0}, route: accurate}
  - {endpoint: tiers, headers: {x-tier: lead}, body: {n: 0}, route: fast}
  - {endpoint: tiers, body: '{"n": 2', route: strict}
  - {endpoint: tiers, body: '{', fault: CONDITION_FAILED}
  - {endpoint: tiers, fault: CONDITION_FAILED}
  - {endpoint: nope, fault: RESOURCE_DOES_NOT_EXIST}
  - {fault: RESOURCE_DOES_NOT_EXIST}
  - {endpoint: shared, route: a}
  - {endpoint: shared, route: b}
  - {endpoint: shared, headers: {x-signalbox-route: never}, route: never}
  - {endpoint: shared, headers: {x-signalbox-route: nope}, fault: BAD_REQUEST}
  - {endpoint: turns, route: a}
  - {endpoint: turns, route: b}"#,
    );
    assert_eq!(loaded(&tests).warnings.problems, []);
}

#[test]
fn route_test_is_reported_at_its_line_when_it_fails() {
    let tests = with(
        r#"
  - {name: gold goes to accurate, endpoint: tiers, body: {n: 0}, headers: {x-tier: lead}, route: accurate}
  - {endpoint: tiers, body: {n: 0}, route: accurate}
  - {endpoint: tiers, route: fast}
  - {endpoint: tiers, body: {n: 5}, fault: CONDITION_FAILED}
  - {endpoint: shared, route: never}"#,
    );
    let help = "; `signalbox route` shows how a request is decided";
    let first = "no condition holds, and it is the first route without one";
    assert_eq!(
        report(&tests).replace(help, ""),
        format!(
            "gateway.yaml:20:98: tests[0].route: test `gold goes to accurate`: takes `fast` ({first}), expected `accurate`\n\
             gateway.yaml:21:44: tests[1].route: this test: takes `fast` ({first}); the condition of `accurate` fails: request.headers: KeyError: 'x-tier', expected `accurate`\n\
             gateway.yaml:22:30: tests[2].route: this test: gets the fault `CONDITION_FAILED`; the condition of `accurate` fails: request.headers: KeyError: 'x-tier'; the condition of `strict` fails: request.json()['n']: 400 Bad Request: the body is empty, expected `fast`\n\
             gateway.yaml:23:44: tests[3].fault: this test: takes `strict` (its condition is the first that holds); the condition of `accurate` fails: request.headers: KeyError: 'x-tier', expected `CONDITION_FAILED`\n\
             gateway.yaml:24:31: tests[4].route: this test: takes `a` or `b` (it was drawn by chance, as often as its share says), expected `never`"
        )
    );
}

#[test]
fn route_test_expects_one_route_when_caller_is_sticky() {
    let problems = ["a", "b"].map(|route| {
        let test = with(&format!("  - {{endpoint: shared, headers: {{x-user: '7'}}, route: {route}}}"));
        parse(&test, "gateway.yaml", &env).err().map_or(0, |report| report.errors())
    });
    assert_eq!(problems.iter().sum::<usize>(), 1);
}

#[test]
fn route_test_is_refused_when_it_names_unknown_things() {
    let tests = with(
        "  - {endpoint: tiers}\n  - {endpoint: tiers, route: fast, fault: CONDITION_FAILED}\n  - {endpoint: nope, route: fast}\n  \
         - {route: fast}\n  - {endpoint: tiers, route: nope}\n  - {endpoint: tiers, fault: NOPE}",
    );
    let either = "a test needs either `route` or `fault`; give the alias of the route that must be taken, or the code of the fault";
    assert_eq!(
        report(&tests),
        format!(
            "gateway.yaml:19:5: tests[0]: {either}\n\
             gateway.yaml:20:5: tests[1]: {either}\n\
             gateway.yaml:21:16: tests[2].endpoint: there is no endpoint 'nope'; endpoints are: tiers, shared, turns\n\
             gateway.yaml:22:5: tests[3].endpoint: the test has to name its endpoint, since there are several; endpoints are: tiers, shared, turns\n\
             gateway.yaml:23:30: tests[4].route: no route has the alias 'nope'; routes of this endpoint: fast, accurate, strict\n\
             gateway.yaml:24:30: tests[5].fault: no decision ends in 'NOPE'; one of BAD_REQUEST, RESOURCE_DOES_NOT_EXIST, CONDITION_FAILED"
        )
    );
}

#[test]
fn route_test_report_hides_secret() {
    let text = r#"model_endpoints:
  - name: a
    routes:
      - {model_uri: builtin:noop, alias: "${SECRET}"}
      - {model_uri: builtin:noop, alias: other, model_request_condition: "request.json()['${SECRET}']"}
tests: [{body: {}, route: other}]"#;
    let report = report(text);
    assert!(!report.contains("hunter2") && report.contains("takes `${SECRET}`"), "{report}");
}

#[test]
fn route_test_asks_no_decision_service() {
    let text = r#"model_endpoints:
  - name: a
    decision: {url: 'http://127.0.0.1:9'}
    routes: [{model_uri: builtin:noop, alias: b}, {model_uri: builtin:noop, alias: c}]
tests: [{route: c}]"#;
    let warnings = loaded(text).warnings.to_string();
    assert!(warnings.contains("5:9: warning: tests[0]: not tried: an outside service is asked first"), "{warnings}");
}
