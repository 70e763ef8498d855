//! YAML that is broken, unusual or hostile, and files that cannot be read.

use super::*;
use crate::check::load;
use crate::config::Position;

#[test]
fn report_places_problem_when_yaml_is_broken_or_odd() {
    for (text, wanted) in [
        ("", "gateway.yaml:1:1: the file is empty; it needs model_endpoints"),
        ("# nothing\n", "gateway.yaml:1:1: the file is empty; it needs model_endpoints"),
        ("[1, 2]", "gateway.yaml:1:1: expected a mapping of keys, found a list"),
        ("{}", "gateway.yaml:1:1: model_endpoints: missing key 'model_endpoints'"),
        ("model_endpoints:\n", "gateway.yaml:1:16: model_endpoints: at least one endpoint is needed"),
        ("model_endpoints: []", "gateway.yaml:1:18: model_endpoints: at least one endpoint is needed"),
        ("model_endpoints: \"a\\nb\"", r"gateway.yaml:1:18: model_endpoints: expected a list, found 'a\nb'"),
        ("a: [1, 2\nb: 3", ""),
        ("a: 'b", ""),
        ("a: b: c", ""),
        ("a: *nobody", ""),
        ("a: 1\n---\nb: 2\n", "gateway.yaml:2:1: a second YAML document starts here; one file holds one"),
    ] {
        let report = problem(text);
        println!("{report}");
        assert!(report.starts_with("gateway.yaml:") && (wanted.is_empty() || report == wanted), "{text:?}: {report}");
    }
}

#[test]
fn report_stays_inside_the_file_when_last_key_is_empty() {
    let text = gateway_with("? ");
    let report = problem(&text);
    let (lines, last) = (text.lines().count(), text.lines().next_back().unwrap());
    assert_eq!(last, "? ");
    assert!(report.starts_with(&format!("gateway.yaml:{lines}:3: unknown key ''")), "{report}");
}

#[test]
fn section_counts_as_left_out_when_empty() {
    let config = loaded(&gateway_with("kafka:\nserver: ~\nregistry:\n  tracking_uri:\nmodels: null\n")).config;
    assert_eq!(config.server.port, 5000);
}

#[test]
fn anchors_aliases_and_merge_keys_load() {
    let text = "\
model_endpoints:
  - name: a
    timeout: &long 1m
    routes:
      - &route {model_uri: 'models:/m/1', alias: one}
  - name: b
    timeout: *long
    routes:
      - <<: *route
        alias: two
        model_request_condition: 'True'
      - *route
";
    let config = loaded(text).config;
    assert_eq!(config.model_endpoints[1].timeout.as_secs(), 60);
    let routes = &config.model_endpoints[1].routes;
    assert_eq!((routes[0].model_uri.as_str(), routes[0].alias.as_str()), ("models:/m/1", "two"));
    assert_eq!(routes[1].alias, "one");
}

#[test]
fn document_is_refused_when_aliases_blow_up() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let before = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    assert!(problem(&bomb).contains("more than 100000 values"));
    let deep: String = (1..9_000).map(|level| format!("a{level}: &a{level} [*a{}]\n", level - 1)).collect();
    assert!(problem(&format!("a0: &a0 [x]\n{deep}")).contains("more than 64 levels"));
    for open in ["[", "{a: ", "- "] {
        let problem = problem(&open.repeat(50_000));
        assert!(problem.contains("more than 64 levels") || problem.contains("recursion limit"), "{problem}");
    }
}

#[test]
fn load_reports_file_when_unreadable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.yaml");
    let missing = load(&path).unwrap_err();
    assert!(missing.to_string().starts_with(&format!("{}: cannot be read: No such file", path.display())), "{missing}");
    std::fs::write(&path, b"model_endpoints:\n  - n\xc3\xa9: \xff").unwrap();
    assert_eq!(load(&path).unwrap_err().problems[0].at, Some(Position { line: 2, column: 9 }));
    std::fs::write(&path, format!("\u{FEFF}{GATEWAY}")).unwrap();
    assert!(load(&path).is_ok());
    std::fs::write(&path, GATEWAY.replace('\n', "\r\n")).unwrap();
    assert!(load(&path).is_ok());
}
