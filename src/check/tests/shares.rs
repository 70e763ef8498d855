//! Routes that share, and routes that get nothing.

use super::*;

#[test]
fn routes_are_warned_of_when_unreachable() {
    let text = "\
model_endpoints:
  - name: a
    routes:
      - {model_uri: 'models:/m/1', alias: one, model_request_condition: 'request.key'}
      - {model_uri: 'models:/m/2', alias: two}
      - {model_uri: 'models:/m/3', alias: three}
      - {model_uri: 'models:/m/4', alias: four, model_request_condition: 'request.key'}
      - {model_uri: 'models:/m/5', alias: five, model_request_condition: 'request.topic'}
";
    insta::assert_snapshot!(loaded(text).warnings, @r#"
    gateway.yaml:6:9: warning: model_endpoints[0].routes[2]: no request can take this route: model_endpoints[0].routes[1] has no condition either and comes first; give it a model_request_condition, or remove it
    gateway.yaml:7:9: warning: model_endpoints[0].routes[3]: no request can take this route: model_endpoints[0].routes[0] has the same condition and comes first; change its condition, or remove it
    "#);
}

#[test]
fn shares_are_refused_when_contradictory() {
    let text = "\
model_endpoints:
  - name: a
    strategy: weighted
    sticky_by: request.headers['x-user'] and usr
    routes:
      - {model_uri: 'models:/m/1', alias: one, weight: 0}
      - {model_uri: 'models:/m/2', alias: two, weight: 0.0}
      - {model_uri: 'models:/m/3', alias: three, weight: 0, model_request_condition: 'request.key'}
      - {model_uri: 'models:/m/4', alias: four, weight: 0, model_request_condition: 'request.topic'}
      - {model_uri: 'models:/m/5', alias: five, model_request_condition: 'request.topic'}
  - name: b
    sticky_by: request.key
    routes:
      - {model_uri: 'models:/m/1', alias: one, weight: -1}
      - {model_uri: 'models:/m/2', alias: two, weight: .inf, model_request_condition: 'request.key'}
      - {model_uri: 'models:/m/3', alias: three, weight: 9, model_request_condition: 'request.topic'}
  - name: c
    strategy: least_loaded
    sticky_by: 'rhai: request.key +'
    routes: [{model_uri: 'models:/m/1', alias: one, weight: much}]
";
    insta::assert_snapshot!(report(text), @r#"
    gateway.yaml:4:46: model_endpoints[0].sticky_by: the expression does not compile: there is no name 'usr'; text needs quotes around it; the modules are base64, datetime, hashlib, json, math, re, statistics, urllib, zlib
    gateway.yaml:6:56: model_endpoints[0].routes[0].weight: every route without a condition has weight 0, so that no route takes those requests; give one of them a weight of more than 0
    gateway.yaml:8:58: model_endpoints[0].routes[2].weight: every route with this condition has weight 0, so that no route takes those requests; give one of them a weight of more than 0
    gateway.yaml:12:16: warning: model_endpoints[1].sticky_by: it counts for nothing without `strategy: weighted`: only shares are kept for a caller; add that, or leave it out
    gateway.yaml:14:56: model_endpoints[1].routes[0].weight: must be 0 or more
    gateway.yaml:15:56: model_endpoints[1].routes[1].weight: must be 0 or more
    gateway.yaml:16:58: warning: model_endpoints[1].routes[2].weight: a weight counts for nothing without `strategy: weighted`; add that to the endpoint, or leave the weight out
    gateway.yaml:19:16: warning: model_endpoints[2].sticky_by: it counts for nothing without `strategy: weighted`: only shares are kept for a caller; add that, or leave it out
    gateway.yaml:19:36: model_endpoints[2].sticky_by: the expression does not compile: not a Rhai expression: Script is incomplete
    gateway.yaml:20:61: model_endpoints[2].routes[0].weight: expected a number, found 'much'
    "#);
    let fine = "\
model_endpoints:
  - name: a
    strategy: weighted
    sticky_by: request.json()['user']
    route_override: true
    routes:
      - {model_uri: 'models:/m/1', alias: one, weight: 0.5}
      - {model_uri: 'models:/m/2', alias: two, weight: 0}
      - {model_uri: 'models:/m/3', alias: three}
";
    assert_eq!(loaded(fine).warnings.problems, []);
}
