//! Keys of evaluators: the section `conditions`.

use super::*;
use crate::routing::condition::Way;

#[test]
fn keys_of_evaluators_are_checked() {
    let with = |keys: &str| format!("{GATEWAY}\nconditions: {{{keys}}}\n");
    let config = loaded(&with("evaluators: 4, timeout: 20ms, max_memory: 1GiB")).config.conditions;
    assert_eq!((config.evaluators, config.timeout.as_millis(), config.max_memory.as_u64()), (4, 20, 1 << 30));
    let report = report(&with("evaluators: 0, timeout: 0s, max_memory: 0, memory: 1GiB"));
    for part in ["evaluators: must be at least 1", "timeout: ", "max_memory: must be more than nothing", "memory: "] {
        assert!(report.contains(&format!("conditions.{part}")), "{report}");
    }
}

/// Writes a file whose first route has this condition, with more keys of the endpoint and of the file.
fn file(model_uri: &str, condition: &str, endpoint: &str, rest: &str) -> String {
    format!(
        "model_endpoints:\n  - name: a\n{endpoint}    routes:\n      - alias: one\n        model_uri: {model_uri}\n        \
         model_request_condition: {condition}\n      - {{alias: two, model_uri: {model_uri}}}\n{rest}"
    )
}

#[test]
fn python_is_refused_without_interpreter() {
    let condition = "request.is_json and re.search('x', request.key)";
    insta::assert_snapshot!(problem(&file("http://h:1", condition, "", "")), @"gateway.yaml:6:57: model_endpoints[0].routes[0].model_request_condition: the method `.search()` is not compiled, so that the condition needs Python, and no model here does; name an interpreter that has MLflow: models.python");
    for text in
        [file("http://h:1", condition, "", "models: {python: /opt/python}\n"), file("models:/m/1", condition, "", "")]
    {
        let outline = loaded(&text).outline;
        let one = outline[0].routes[0].condition.as_ref().unwrap();
        assert_eq!((one.way, &*one.text), (Way::Python, condition));
        assert_eq!(one.reason.as_deref(), Some("the method `.search()` is not compiled"));
    }
}

#[test]
fn conditions_that_are_the_same_for_every_request_are_warned_of() {
    let warnings = |condition: &str| loaded(&file("models:/m/1", condition, "", "")).warnings.to_string();
    insta::assert_snapshot!(warnings("request.key == 'a' or 'b'"), @"gateway.yaml:6:34: warning: model_endpoints[0].routes[0].model_request_condition: it holds for every request, so that none comes to what follows; leave it out, or compare with something of the request");
    insta::assert_snapshot!(warnings("1 > 2"), @"gateway.yaml:6:34: warning: model_endpoints[0].routes[0].model_request_condition: it holds for no request, so that none takes this route by it; remove the route, or compare with something of the request");
    for condition in ["re.search('a', 'b')", "'rhai: 1 > 2'"] {
        let said = warnings(condition);
        assert!(said.contains("it does not look at the request, so that it holds for every one or for none"), "{said}");
    }
    for condition in ["request.key == 'a'", "re.search('a', request.key)", "'rhai: request.key == \"a\"'"] {
        assert_eq!(warnings(condition), "");
    }
}

#[test]
fn names_are_checked_and_shared() {
    let names = |names: &str| format!("    let: {{{names}}}\n    strategy: weighted\n    sticky_by: total\n");
    let text = |given: &str| file("models:/m/1", "total > 3", &names(given), "");
    let outline = loaded(&text("total: len(rows), rows: \"request.json['rows']\"")).outline;
    assert_eq!(outline[0].routes[0].condition.as_ref().unwrap().way, Way::Compiled);
    assert_eq!(outline[0].expressions[0].0, "sticky_by");
    insta::assert_snapshot!(report(&text("total: len(rows), rows: total")), @r"
    gateway.yaml:3:22: model_endpoints[0].let.total: the expression does not compile: the name `total` needs itself, through `rows`
    gateway.yaml:3:35: model_endpoints[0].let.rows: the expression does not compile: the name `rows` needs itself, through `total`
    ");
    insta::assert_snapshot!(report(&text("totl: request.key")), @r"
    gateway.yaml:5:16: model_endpoints[0].sticky_by: the expression does not compile: there is no name 'total'; did you mean 'totl'?
    gateway.yaml:9:34: model_endpoints[0].routes[0].model_request_condition: the condition does not compile: there is no name 'total'; did you mean 'totl'?
    ");
}

#[test]
fn route_tests_are_not_tried_when_python_does_not_start() {
    let rest = "models: {python: /nowhere/python}\ntests: [{body: {}, route: two}]\n";
    let condition = "re.search('x', request.path)";
    let warnings = loaded(&file("models:/m/1", condition, "", rest)).warnings.to_string();
    let said = "warning: tests[0]: not tried: a condition needs Python, which cannot be started: ";
    assert!(warnings.contains(said) && warnings.contains("/nowhere/python"), "{warnings}");
}

#[test]
#[ignore = "needs MLflow; tests/run starts it"]
fn route_tests_are_tried_with_python() {
    let python = crate::config::environment("SIGNALBOX_TEST_PYTHON").unwrap();
    let tests = |first: &str| format!("  - {{key: x, route: {first}}}\n  - {{key: y, route: two}}\n");
    let text = |first: &str| {
        let rest = format!("models: {{python: {python}}}\ntests:\n{}", tests(first));
        file("models:/m/1", "re.search('x', request.key)", "", &rest)
    };
    assert_eq!(loaded(&text("one")).warnings.to_string(), "");
    assert!(problem(&text("two")).contains("takes `one`"));
}
