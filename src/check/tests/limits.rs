//! Limits of a request's size.

use super::*;
use crate::config::Limits;

#[test]
fn limits_are_refused_when_fault_would_not_fit() {
    let text = gateway_with(
        "kafka:
  limits: {value: 512KiB, key: 0B, headers: 0, correlation_id: 200KiB, size: 1}
server:
  max_body: 513KiB
",
    );
    insta::assert_snapshot!(report(&text), @r"
    gateway.yaml:9:11: warning: kafka.limits: a fault repeats the correlation id and the carried headers, and may then have 1392640 bytes, but a record has 1000000 at most (message.max.bytes); lower correlation_id or header_bytes
    gateway.yaml:9:32: kafka.limits.key: must be at least 1
    gateway.yaml:9:45: kafka.limits.headers: must be at least 16
    gateway.yaml:9:72: kafka.limits.size: unknown key 'size'; valid keys: value, key, headers, header_bytes, header_name, correlation_id
    gateway.yaml:11:13: server.max_body: a body is the value of a record, of which kafka.limits.value allows 512.0 KiB; lower it, or raise kafka.limits.value
    ");
    let config = loaded(&gateway_with("kafka: {limits: {value: 1GiB, headers: 30}}\n")).config;
    assert_eq!((config.kafka.limits.value.as_u64(), config.kafka.limits.headers), (1 << 30, 30));
    assert_eq!(config.kafka.limits.key, Limits::default().key);
    for bytes in ["4000000", "4e6", "'4000000'"] {
        let raised =
            format!("kafka: {{limits: {{correlation_id: 200KiB}}, properties: {{message.max.bytes: {bytes}}}}}\n");
        let CheckedConfig { config, warnings, .. } = loaded(&gateway_with(&raised));
        assert_eq!(config.kafka.properties["message.max.bytes"], "4000000");
        assert!(!warnings.to_string().contains("kafka.limits"), "{bytes}: {warnings}");
    }
}
