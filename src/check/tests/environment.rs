//! Values of the environment in a file.

use super::*;

#[test]
fn environment_values_keep_their_types() {
    let text = gateway_with(
        "server: {port: ${PORT}, max_pending: ${NOBODY:-12}}\nkafka:\n  properties: {sasl.password: ${SECRET}}\n  group_id: '$${PORT}'\n",
    );
    let config = loaded(&text).config;
    assert_eq!((config.server.port, config.server.max_pending), (7000, 12));
    assert_eq!(config.kafka.properties["sasl.password"], "hunter2: # [}");
    assert_eq!(config.kafka.group_id, "${PORT}");
}

#[test]
fn report_hides_value_when_from_environment() {
    // Each place where a value could end up in a message: types, names, patterns, URIs, properties, conditions.
    let text = "\
model_endpoints:
  - name: ${SECRET}
    strategy: ${SECRET}
    timeout: ${SECRET}
    routes:
      - {model_uri: ${SECRET}, alias: ${SECRET}, model_request_condition: ${SECRET}, fallback: x}
      - {model_uri: ${SECRET}, alias: ${SECRET}, max_concurrency: ${SECRET}, shadow: ${SECRET}}
  - name: ${SECRET}
    routes: ${SECRET}
kafka:
  bootstrap_servers: ${SECRET}:x
  replies_topic: ${SECRET}
  dead_letter_topic: ${SECRET}
  allowed_reply_topics: ['${SECRET}(']
  max_in_flight_bytes: ${SECRET}
  properties: {statistics.interval.ms: ${SECRET}, security.protocol: ${SECRET}}
server: {host: ${SECRET}}
registry: {tracking_uri: ${SECRET}}
${SECRET}: 1
";
    let report = report(text);
    assert!(!report.contains("hunter2"), "{report}");
    assert!(report.lines().count() > 15, "{report}");
    assert!(report.contains("3:15: model_endpoints[0].strategy: the value of '${SECRET}' is unknown"), "{report}");
}

#[test]
fn report_places_problem_when_variable_is_missing() {
    assert_eq!(
        problem(&gateway_with("server:\n  host: ${HOST_OF_IT}\n")),
        "gateway.yaml:9:9: server.host: the environment variable HOST_OF_IT is not set; set it, or give a default: ${HOST_OF_IT:-…}"
    );
    loaded(&gateway_with("# ${HOST_OF_IT} in a comment\n"));
    let malformed = problem(&gateway_with("kafka:\n  group_id: ${NOT A NAME}\n"));
    assert!(malformed.starts_with("gateway.yaml:9:13: kafka.group_id: '${' does not start a reference"), "{malformed}");
}
