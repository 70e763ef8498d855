//! Keys of canaries that contradict others.

use super::*;

#[test]
fn canary_needs_other_routes_and_rising_steps() {
    let text = "\
model_endpoints:
  - name: a
    routes:
      - {model_uri: 'models:/m/1', alias: one, canary: {steps: [], every: 0s}}
  - name: b
    strategy: weighted
    routes:
      - {model_uri: 'models:/m/1', alias: one}
      - {model_uri: 'models:/m/2', alias: two, weight: 5, canary: {steps: [5, 5, 101, 0], every: 1m}}
      - model_uri: 'models:/m/3'
        alias: three
        model_request_condition: 'request.key'
        canary: {steps: [1], every: 1m, abort_if: {error_share: 2, p95_ratio: .5, minimum_calls: 0}}
";
    insta::assert_snapshot!(report(text), @r#"
    gateway.yaml:4:56: model_endpoints[0].routes[0].canary: there is no other route without a condition that takes the rest; add another route without a condition
    gateway.yaml:4:64: model_endpoints[0].routes[0].canary.steps: at least one step is needed
    gateway.yaml:4:75: model_endpoints[0].routes[0].canary.every: must be more than nothing
    gateway.yaml:9:67: model_endpoints[1].routes[1].canary: a canary's share moves by itself, so it has no weight; leave `weight` out
    gateway.yaml:9:67: model_endpoints[1].routes[1].canary: an endpoint has one canary at a time; leave one of them out
    gateway.yaml:9:75: model_endpoints[1].routes[1].canary.steps: each step must be more than the one before
    gateway.yaml:9:82: model_endpoints[1].routes[1].canary.steps[2]: must be more than 0, and 100 at most: a share in percent
    gateway.yaml:9:87: model_endpoints[1].routes[1].canary.steps[3]: must be more than 0, and 100 at most: a share in percent
    gateway.yaml:13:17: model_endpoints[1].routes[2].canary: a canary takes its share of what no condition took, so it has no condition; leave one of them out
    gateway.yaml:13:17: model_endpoints[1].routes[2].canary: an endpoint has one canary at a time; leave one of them out
    gateway.yaml:13:65: model_endpoints[1].routes[2].canary.abort_if.error_share: must be from 0 to 1
    gateway.yaml:13:79: model_endpoints[1].routes[2].canary.abort_if.p95_ratio: must be 1 or more
    gateway.yaml:13:98: model_endpoints[1].routes[2].canary.abort_if.minimum_calls: must be at least 1
    "#);
    let fine = "\
model_endpoints:
  - name: a
    sticky_by: request.headers['x-user']
    routes:
      - {model_uri: 'models:/m/1', alias: stable}
      - {model_uri: 'models:/m/2', alias: candidate, canary: {steps: [0.1, 5, 100], every: 10m}}
";
    assert_eq!(loaded(fine).warnings.problems, []);
}
