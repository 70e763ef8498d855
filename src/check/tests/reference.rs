//! `config/reference.yaml` against the structs of `config`.

use std::time::Duration;

use regex::Regex;

use super::*;
use crate::config::{
    Batch, Batching, Breaker, Conditions, FallbackOn, Kafka, Models, Registry, Retries, Server, unsupported,
};

#[test]
fn reference_shows_defaults() {
    let CheckedConfig { config, warnings, .. } = parse(REFERENCE, "reference.yaml", &|_| None).unwrap();
    assert_eq!(warnings.problems, []);
    assert_eq!(format!("{:?}", config.kafka), format!("{:?}", Kafka::default()));
    assert_eq!(format!("{:?}", config.server), format!("{:?}", Server::default()));
    assert_eq!(format!("{:?}", config.models), format!("{:?}", Models::default()));
    assert_eq!(config.conditions, Conditions::default());
    // The reference spells out the address that counts when none is given.
    assert_eq!(config.registry.tracking_uri.as_deref(), Some("http://127.0.0.1:5001"));
    assert_eq!(
        format!("{:?}", Registry { tracking_uri: None, ..config.registry }),
        format!("{:?}", Registry::default())
    );
    let (shown, default) = (&config.model_endpoints[0], &loaded(GATEWAY).config.model_endpoints[0]);
    assert_eq!((shown.timeout, shown.strategy), (default.timeout, default.strategy));
    assert_eq!(shown.routes[0].on_condition_error, default.routes[0].on_condition_error);
    let breaker = Breaker { slow_call: Some(Duration::from_secs(2)), ..Breaker::default() };
    assert_eq!((&shown.routes[0].breaker, &shown.routes[0].retries), (&Some(breaker), &Some(Retries::default())));
    assert_eq!(shown.routes[0].batch, Some(Batching::On(Batch::default())));
    assert_eq!(shown.routes[0].fallback_on.as_deref(), Some(&FallbackOn::ALL[..]));
}

#[test]
fn reference_has_every_key_in_order_of_structs() {
    let structs = Regex::new(r"(?ms)^pub struct (\w+) \{\n(.*?)^\}").unwrap();
    let field = Regex::new(r"(?m)^    pub (?:r#)?(\w+):").unwrap();
    let sources = [
        include_str!("../../config/mod.rs"),
        include_str!("../../config/endpoint.rs"),
        include_str!("../../config/kafka.rs"),
        include_str!("../../config/limits.rs"),
        include_str!("../../config/server.rs"),
        include_str!("../../config/registry.rs"),
        include_str!("../../config/models.rs"),
        include_str!("../../config/conditions.rs"),
        include_str!("../../config/recovery.rs"),
        include_str!("../../config/batch.rs"),
        include_str!("../../config/canary.rs"),
        include_str!("../../config/route_test.rs"),
    ];
    let mut fields = 0;
    for (name, body) in sources
        .iter()
        .flat_map(|source| structs.captures_iter(source))
        .map(|found| found.extract().1)
        .map(|[name, body]| (name, body))
    {
        let section = match name {
            "Config" => "",
            "Endpoint" => "model_endpoints:",
            "Route" => "routes:",
            "Decision" => "decision:",
            "Batch" => "batch:",
            "Canary" => "# canary:",
            "AbortIf" => "abort_if:",
            "RouteTest" => "# tests:",
            section => &format!("{}:", section.to_lowercase()),
        };
        let mut from = REFERENCE.find(&format!("{section}\n")).unwrap();
        for key in field.captures_iter(body).map(|found| found.extract::<1>().1[0]) {
            let line = Regex::new(&format!(r"(?m)^ *(?:- |# +)?{key}:")).unwrap();
            let found = line.find_at(REFERENCE, from);
            from = found
                .unwrap_or_else(|| panic!("reference.yaml lacks {key} of {name}, or has it in another place"))
                .end();
            fields += 1;
        }
    }
    assert!(fields > 45, "{fields}");
}

#[test]
fn reference_marks_unsupported_keys() {
    for line in REFERENCE.lines().filter(|line| !line.trim_start().starts_with('#')) {
        assert!(!line.contains("not supported yet"), "{line}");
    }
    let marks = REFERENCE.matches("(not supported yet)").count();
    assert_eq!(marks, unsupported::NOT_YET.len(), "one mark a key, and one in the introduction in other words");
}
