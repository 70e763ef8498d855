//! Whole files, checked: each test shows the report that its author reads.

use super::{CheckedConfig, parse};

mod batch;
mod canary;
mod conditions;
mod decision;
mod listing;
mod environment;
mod evaluators;
mod hosting;
mod limits;
mod properties;
mod recovery;
mod reference;
mod restart;
mod retry_delays;
mod route_tests;
mod shares;
mod yaml;

const GATEWAY: &str = include_str!("../../config/gateway.yaml");
const CONDITIONAL: &str = include_str!("../../config/gateway-conditional.yaml");
const REFERENCE: &str = include_str!("../../config/reference.yaml");

fn env(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("7000".to_owned()),
        "SECRET" => Some("hunter2: # [}".to_owned()),
        _ => None,
    }
}

fn loaded(text: &str) -> CheckedConfig {
    parse(text, "gateway.yaml", &env).unwrap_or_else(|report| panic!("{report}"))
}

fn report(text: &str) -> String {
    match parse(text, "gateway.yaml", &env) {
        Ok(loaded) => panic!("it loads: {loaded:?}"),
        Err(report) => report.to_string(),
    }
}

/// Returns the report of a file that has one problem.
fn problem(text: &str) -> String {
    let report = report(text);
    assert_eq!(report.lines().count(), 1, "{report}");
    report
}

/// Returns a valid file with something more at its end.
fn gateway_with(rest: &str) -> String {
    format!("{GATEWAY}{rest}")
}

#[test]
fn example_configs_load() {
    let config = loaded(GATEWAY).config;
    assert_eq!(config.model_endpoints[0].routes[1].alias, "accurate");
    assert!(config.kafka.is_embedded());
    let config = loaded(CONDITIONAL).config;
    assert_eq!(
        config.model_endpoints[0].routes[1].model_request_condition.as_deref(),
        Some("request.json()['dataframe_split']['data'][0][0].startswith('Domain specific text')"),
    );
}

#[test]
fn report_places_every_problem() {
    let text = "\
model_endpoints:
  - name: sentiment-router
    timeout: 10
    routes:
      - model_uri: models:/fast/production
        alias: fast
        weigth: 90
        on_condition_error: skp
      - model_uri: [models, fast]
        modelUri: models:/accurate/production
      - just some text
  - name: sentiment-router
    strategy: weighted
    routes: []
kafka:
  bootstrap_servers: kafka-1:port
  replies_topic: inference-requests
  max_in_flight_bytes: 256 parsecs
  partitions: 0
  ordering: 'kee'
  allowed_reply_topics: ['ok-.*', 'un(closed']
  properties:
    linger.ms: 5
    compression.typ: lz4
  group_id: a
  group_id: b
server: {port: 70000, host: localhost, tls: {certificate: a.pem}}
modles: {}
registry:
  tracking_uri: ${TRACKING_URI}
";
    insta::assert_snapshot!(report(text), @r#"
    gateway.yaml:3:14: model_endpoints[0].timeout: expected a duration such as 250ms, 10s or 5m, found '10'
    gateway.yaml:7:9: model_endpoints[0].routes[0].weigth: unknown key 'weigth'; did you mean 'weight'? valid keys: model_uri, alias, model_request_condition, on_condition_error, weight, timeout, fallback, fallback_on, breaker, retries, shadow, canary, batch, python, runtime, env_manager, workers, threads, max_concurrency
    gateway.yaml:8:29: model_endpoints[0].routes[0].on_condition_error: unknown value 'skp'; did you mean 'skip'? valid values: skip, fail
    gateway.yaml:9:9: model_endpoints[0].routes[1].alias: missing key 'alias'
    gateway.yaml:9:20: model_endpoints[0].routes[1].model_uri: expected text (put it in quotes if it looks like a number), found a list
    gateway.yaml:10:9: model_endpoints[0].routes[1].modelUri: unknown key 'modelUri'; did you mean 'model_uri'? valid keys: model_uri, alias, model_request_condition, on_condition_error, weight, timeout, fallback, fallback_on, breaker, retries, shadow, canary, batch, python, runtime, env_manager, workers, threads, max_concurrency
    gateway.yaml:11:9: model_endpoints[0].routes[2]: expected a mapping of keys, found 'just some text'
    gateway.yaml:12:11: model_endpoints[1].name: duplicate name 'sentiment-router'; model_endpoints[0].name in line 2 has it already
    gateway.yaml:14:13: model_endpoints[1].routes: at least one route is needed
    gateway.yaml:16:22: kafka.bootstrap_servers: 'kafka-1:port' is not a list of host:port; such as kafka-1:9092,kafka-2:9092, or: embedded
    gateway.yaml:17:18: kafka.replies_topic: 'inference-requests' is requests_topic already; each of the topics needs a name of its own
    gateway.yaml:18:24: kafka.max_in_flight_bytes: expected a size such as 512KiB or 4GiB, found '256 parsecs'
    gateway.yaml:19:15: kafka.partitions: must be at least 1
    gateway.yaml:20:13: kafka.ordering: unknown value 'kee'; did you mean 'key'? valid values: unordered, key, partition
    gateway.yaml:21:35: kafka.allowed_reply_topics[1]: 'un(closed' is not a regular expression: unclosed group
    gateway.yaml:24:22: kafka.properties.compression.typ: librdkafka does not take this property: No such configuration property: "compression.typ"
    gateway.yaml:26:3: kafka.group_id: duplicate key 'group_id'; it is first given in line 25
    gateway.yaml:27:16: server.port: expected a whole number from 0 to 65535, found '70000'
    gateway.yaml:27:29: server.host: expected an IP address such as 127.0.0.1 or ::1, found 'localhost'
    gateway.yaml:27:40: server.tls: `tls` is not supported yet; leave it out
    gateway.yaml:28:1: modles: unknown key 'modles'; did you mean 'models'? valid keys: model_endpoints, kafka, server, registry, models, conditions, tests
    gateway.yaml:30:17: registry.tracking_uri: the environment variable TRACKING_URI is not set; set it, or give a default: ${TRACKING_URI:-…}
    "#);
}

#[test]
fn unsupported_keys_are_refused_by_name() {
    let endpoint = GATEWAY.trim_end();
    for (text, what) in [
        (format!("{endpoint}\nserver: {{auth: {{a: b}}}}"), "`auth`"),
        (format!("{endpoint}\nserver: {{tls: x}}"), "`tls`"),
    ] {
        let report = report(&text);
        let errors: Vec<_> = report.lines().filter(|line| !line.contains("warning: ")).collect();
        assert!(
            errors.len() == 1 && errors[0].ends_with(&format!("{what} is not supported yet; leave it out")),
            "{report}"
        );
    }
    assert!(loaded(&gateway_with("models: {preload: []}")).config.models.preload.is_empty());
}

#[test]
fn report_names_dangling_aliases_and_forbidden_properties() {
    let text = "\
model_endpoints:
  - name: a
    routes:
      - {model_uri: 'models:/m/1', alias: one, fallback: nobody, shadow: one}
kafka:
  allowed_reply_topics: ['.*']
  properties: {group.id: other, security.protocol: SSLL, linger.ms: true, enable.idempotence: false}
  ordering: key
";
    insta::assert_snapshot!(report(text), @r#"
    gateway.yaml:4:58: model_endpoints[0].routes[0].fallback: no route has the alias 'nobody'; routes of this endpoint: one
    gateway.yaml:4:74: model_endpoints[0].routes[0].shadow: a route cannot be its own; name another route of this endpoint
    gateway.yaml:6:26: warning: kafka.allowed_reply_topics[0]: this also allows requests_topic, where a reply would be read as a request; narrow the pattern
    gateway.yaml:7:26: kafka.properties.group.id: this is not to be set, since several groups are named after Signalbox's own; use kafka.group_id
    gateway.yaml:7:52: kafka.properties.security.protocol: librdkafka does not take this property: Invalid value "SSLL" for configuration property "security.protocol"
    gateway.yaml:7:69: kafka.properties.linger.ms: librdkafka does not take this property: Invalid value for configuration property "queue.buffering.max.ms"
    gateway.yaml:7:95: kafka.properties.enable.idempotence: this is not to be set, since without it a reply that is sent again may be there twice, or after later ones; leave it out: it is on
    "#);
}
