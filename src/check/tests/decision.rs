//! Keys of decision services and shadows.

use super::*;

#[test]
fn decision_is_checked_at_its_place() {
    let text = "\
model_endpoints:
  - name: a
    decision:
      url: someone:secret@h/v1
      timeout: 0s
      cache: 0s
      headers: [x-tier, '']
      values:
        fine: request.json['a']
        flawed: request.json['a'] +
    routes:
      - {model_uri: 'models:/m/1', alias: one, shadow: two}
      - {model_uri: 'models:/m/2', alias: two, shadow: nobody}
kafka: {shadow_topic: inference-replies}
";
    insta::assert_snapshot!(report(text), @r"
    gateway.yaml:4:12: model_endpoints[0].decision.url: not an http(s):// address; such as http://127.0.0.1:8181/v1/data/routing/route
    gateway.yaml:5:16: model_endpoints[0].decision.timeout: must be more than nothing
    gateway.yaml:6:14: model_endpoints[0].decision.cache: must be more than nothing
    gateway.yaml:7:25: model_endpoints[0].decision.headers[1]: must name a header
    gateway.yaml:10:36: model_endpoints[0].decision.values.flawed: the expression does not compile: not a Python expression: Expected an expression
    gateway.yaml:13:56: model_endpoints[0].routes[1].shadow: no route has the alias 'nobody'; routes of this endpoint: one, two
    gateway.yaml:14:23: kafka.shadow_topic: 'inference-replies' is replies_topic already; each of the topics needs a name of its own
    ");
    assert!(!report(text).contains("secret"));
}
