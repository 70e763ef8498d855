//! Conditions and expressions, compiled at their place in the file.

use super::*;
use crate::check::load::parse_with;
use crate::config::Position;
use crate::routing::ResultKind;
use crate::routing::condition::{CheckedExpression, ConditionProblem, ConditionsBuilder, Way};

#[test]
fn flaw_is_placed_in_file_when_condition_does_not_compile() {
    let flawed = |_: &mut ConditionsBuilder, text: &str, _: ResultKind| {
        let before = text.split_once('@').map(|(before, _)| before);
        let sound = CheckedExpression { way: Way::Compiled, reason: None, constant: None };
        before.map_or(Ok(sound), |before| {
            let line = before.split('\n').count();
            let column = before.chars().rev().take_while(|letter| *letter != '\n').count() + 1;
            Err(ConditionProblem { line, column, message: "stray".to_owned(), hint: None })
        })
    };
    for (condition, line, column) in [
        ("aé@", 6, 36),
        ("'it''s @'", 6, 41),
        (r#""a\"b\u00e9\x41 \n@""#, 6, 52),
        ("  # comment\n          a @", 7, 13),
        ("|\n          @", 7, 11),
        ("|\n          a and\n            b @ c", 8, 15),
        (">\n          a and\n          b @ c", 8, 13),
        (">-\n          a and\n\n            b\n          @ c", 10, 11),
        ("'a\n           @'", 7, 12),
        ("'it''s\n           a @'", 7, 14),
        ("a and\n          b @ c", 7, 13),
        (
            r#""a\"b\u00e9\x41 \n
          @""#,
            7,
            11,
        ),
        ("${PORT} @", 6, 34),
    ] {
        let text = format!(
            "model_endpoints:\n  - name: a\n    routes:\n      - alias: one\n        model_uri: models:/m/1\n        model_request_condition: {condition}\n"
        );
        let report = parse_with(&text, "gateway.yaml", &env, &flawed).unwrap_err();
        assert_eq!(report.problems.len(), 1, "{report}");
        assert_eq!(report.problems[0].at, Some(Position { line, column }), "{condition}");
    }
}

#[test]
fn conditions_and_model_uris_are_compiled_by_check() {
    let text = "\
model_endpoints:
  - name: a
    routes:
      - alias: one
        model_uri: models:/x
        model_request_condition: \"request.json()['a'] and request.jsn()\"
      - alias: two
        model_uri: http://me:secret@localhost:1
        model_request_condition: 'rhai: request.headers['
";
    let report = report(text);
    let starts: Vec<_> = report.lines().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(
        starts,
        ["gateway.yaml:5:20", "gateway.yaml:6:67", "gateway.yaml:8:20", "gateway.yaml:9:57"],
        "{report}"
    );
    assert!(!report.contains("secret"), "{report}");
    let ways = |text: &str| loaded(text).outline[0].routes[1].condition.as_ref().map(|condition| condition.way);
    assert_eq!(ways(CONDITIONAL), Some(Way::Compiled));
    assert_eq!(ways(&CONDITIONAL.replace("request.json()['", "rhai: 1 == 1 // ")), Some(Way::Rhai));
}
