//! Keys of fallbacks, breakers and retries.

use super::*;

#[test]
fn recovery_keys_are_checked() {
    let text = "\
model_endpoints:
  - name: a
    routes:
      - {model_uri: 'models:/m/1', alias: one, fallback: two, fallback_on: [timeout, slow]}
      - {model_uri: 'models:/m/2', alias: two, fallback: three, timeout: 20s}
      - {model_uri: 'models:/m/3', alias: three, fallback: two, fallback_on: []}
      - {model_uri: 'models:/m/4', alias: four, fallback_on: [timeout], timeout: 0s}
      - {model_uri: 'models:/m/5', alias: five, fallback: five, breaker: {error_share: 0, slow_share: 1.1, slow_call: 0s}}
      - {model_uri: 'models:/m/6', alias: six, breaker: {window: 0s, minimum_calls: 0, open_for: 0s, probes: 0, error_share: .nan}}
      - {model_uri: 'models:/m/7', alias: seven, retries: {max_attempts: 1, backoff: 2s}}
";
    insta::assert_snapshot!(report(text), @r"
    gateway.yaml:4:86: model_endpoints[0].routes[0].fallback_on[1]: unknown value 'slow'; valid values: load_failure, server_error, timeout, breaker_open, overload
    gateway.yaml:5:58: model_endpoints[0].routes[1].fallback: the fallbacks go in a circle: two → three → two; let one of them have no fallback
    gateway.yaml:5:74: model_endpoints[0].routes[1].timeout: must not be longer than the timeout of the endpoint
    gateway.yaml:6:78: model_endpoints[0].routes[2].fallback_on: must name a cause; all of them count without this key
    gateway.yaml:7:62: model_endpoints[0].routes[3].fallback_on: there is nothing to fall back to; name a route with `fallback`, or leave it out
    gateway.yaml:7:82: model_endpoints[0].routes[3].timeout: must be more than nothing
    gateway.yaml:8:59: model_endpoints[0].routes[4].fallback: a route cannot be its own; name another route of this endpoint
    gateway.yaml:8:88: model_endpoints[0].routes[4].breaker.error_share: must be more than 0, and 1 at most
    gateway.yaml:8:103: model_endpoints[0].routes[4].breaker.slow_share: must be more than 0, and 1 at most
    gateway.yaml:8:119: model_endpoints[0].routes[4].breaker.slow_call: must be more than nothing
    gateway.yaml:9:66: model_endpoints[0].routes[5].breaker.window: must be more than nothing
    gateway.yaml:9:85: model_endpoints[0].routes[5].breaker.minimum_calls: must be at least 1
    gateway.yaml:9:98: model_endpoints[0].routes[5].breaker.open_for: must be more than nothing
    gateway.yaml:9:110: model_endpoints[0].routes[5].breaker.probes: must be at least 1
    gateway.yaml:9:126: model_endpoints[0].routes[5].breaker.error_share: must be more than 0, and 1 at most
    gateway.yaml:10:59: model_endpoints[0].routes[6].retries.max_backoff: must not be shorter than backoff
    gateway.yaml:10:74: model_endpoints[0].routes[6].retries.max_attempts: must be at least 2: the first call is one of them
    ");
}
