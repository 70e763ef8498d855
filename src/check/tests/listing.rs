//! The effective configuration: values, origins, secrets, and that it loads again.

use super::*;
use crate::check::effective;

fn shown(text: &str) -> String {
    effective(&loaded(text), &env).unwrap()
}

/// Removes the origins.
fn without_origins(text: &str) -> String {
    text.lines()
        .map(|line| line.rsplit_once("  # ").map_or(line, |(value, _)| value.trim_end()).to_owned() + "\n")
        .collect()
}

#[test]
fn effective_config_loads_again_and_is_the_same() {
    for text in [GATEWAY, CONDITIONAL, REFERENCE] {
        let once = without_origins(&shown(text));
        let again = parse(&once, "gateway.yaml", &env).unwrap_or_else(|report| panic!("{report}\n{once}"));
        assert_eq!(without_origins(&effective(&again, &env).unwrap()), once);
        let mut config = loaded(text).config;
        config.kafka.delivery = Some(config.kafka.delivery());
        config.registry.tracking_uri = again.config.registry.tracking_uri.clone();
        assert_eq!(config, again.config);
    }
}

#[test]
fn effective_config_names_the_origin_of_each_value() {
    let text = "\
model_endpoints:
  - name: any
    timeout: 1500ms
    let: {first: \"request.json['a']\", price: \"'$${5}'\"}
    routes: [{model_uri: 'builtin:noop', alias: 'null', batch: off}]
kafka:
  bootstrap_servers: kafka:9092
  properties: {sasl.password: ${SECRET}, sasl.username: ann, linger.ms: 5}
server: {port: '${PORT}'}
registry: {tracking_uri: 'https://ann:secret@host/${NOBODY:-x}'}
";
    // A number from the environment stands without quotes.
    let shown = shown(&text.replace("'${PORT}'", "${PORT}"));
    let line = |key: &str| {
        let found =
            shown.lines().find(|line| line.trim_start().trim_start_matches("- ").starts_with(&format!("{key}:")));
        let line = found.unwrap_or_else(|| panic!("no {key} in\n{shown}"));
        let (value, origin) = line.split_once("  # ").unwrap_or((line, ""));
        format!("{} # {origin}", value.trim().trim_start_matches("- "))
    };
    for expected in [
        "name: any # gateway.yaml:2",
        "timeout: \"1s 500ms\" # gateway.yaml:3",
        "first: \"request.json['a']\" # gateway.yaml:4",
        "price: \"'$${5}'\" # gateway.yaml:4",
        "alias: \"null\" # gateway.yaml:5",
        "batch: off # gateway.yaml:5",
        "workers: null # default",
        "bootstrap_servers: \"kafka:9092\" # gateway.yaml:7",
        "delivery: exactly_once # default",
        "retry_delays: [1s, 10s, 1m] # default",
        "max_in_flight_bytes: 256MiB # default",
        "sasl.password: \"***\" # environment variable SECRET (gateway.yaml:8), masked",
        "linger.ms: \"5\" # gateway.yaml:8",
        "port: 7000 # environment variable PORT (gateway.yaml:9)",
        "tracking_uri: \"https://***@host/x\" # gateway.yaml:10, masked",
    ] {
        let key = expected.split(':').next().unwrap();
        assert_eq!(line(key), expected, "{shown}");
    }
    assert!(!shown.contains("hunter2") && !shown.contains("ann:secret"), "{shown}");
    assert!(line("weight").ends_with("# default: 1"), "{shown}");
}

#[test]
fn effective_tracking_uri_comes_from_the_environment() {
    let of_mlflow = |name: &str| (name == "MLFLOW_TRACKING_URI").then(|| "http://mlflow:5000".to_owned());
    let shown = effective(&loaded(GATEWAY), &of_mlflow).unwrap();
    let line = shown.lines().find(|line| line.contains("tracking_uri:")).unwrap();
    assert!(
        line.contains("\"http://mlflow:5000\"") && line.ends_with("# environment variable MLFLOW_TRACKING_URI"),
        "{line}"
    );
}
