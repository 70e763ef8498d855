//! Keys of hosts: `workers`, `threads`, `runtime`, `max_concurrency`.

use super::*;

#[test]
fn host_keys_are_refused_when_model_is_served_elsewhere() {
    let text = "\
model_endpoints:
  - name: a
    routes:
      - {model_uri: 'http://h:1', alias: one, python: python3, runtime: mlflow_serve, env_manager: uv, workers: 2}
      - {model_uri: builtin:noop, alias: two, workers: 2, max_concurrency: 8}
      - {model_uri: 'models:/m/1', alias: three, workers: 2, max_concurrency: 2}
models:
  memory_limit: 0
  preload: ['http://h:1', 'models:/m/1']
  pin: [builtin:noop]
";
    insta::assert_snapshot!(report(text), @r#"
    gateway.yaml:4:55: model_endpoints[0].routes[0].python: no process is started for what is served elsewhere; leave it out
    gateway.yaml:4:73: model_endpoints[0].routes[0].runtime: no process is started for what is served elsewhere; leave it out
    gateway.yaml:4:100: model_endpoints[0].routes[0].env_manager: no process is started for what is served elsewhere; leave it out
    gateway.yaml:4:113: model_endpoints[0].routes[0].workers: no process is started for what is served elsewhere; leave it out
    gateway.yaml:5:56: model_endpoints[0].routes[1].workers: no process is started for what is served elsewhere; leave it out
    gateway.yaml:8:17: models.memory_limit: must be more than nothing
    gateway.yaml:9:13: models.preload[0]: nothing is loaded for what is served elsewhere; leave it out
    gateway.yaml:10:9: models.pin[0]: nothing is loaded for what is served elsewhere; leave it out
    "#);
}

#[test]
fn max_concurrency_is_warned_of_when_beyond_workers() {
    let route = |more: &str| {
        format!(
            "model_endpoints:\n  - name: a\n    routes:\n      - {{model_uri: 'models:/m/1', alias: one, {more}}}\n"
        )
    };
    insta::assert_snapshot!(
        loaded(&route("max_concurrency: 4")).warnings,
        @"gateway.yaml:4:65: warning: model_endpoints[0].routes[0].max_concurrency: a worker takes one call at a time, and there is 1; set workers to as many, or leave it out"
    );
    insta::assert_snapshot!(
        loaded(&route("max_concurrency: 7, workers: 2, threads: 3")).warnings,
        @"gateway.yaml:4:65: warning: model_endpoints[0].routes[0].max_concurrency: workers and threads take 6 calls at a time; set threads or workers to more, or leave it out"
    );
    for fits in [
        "max_concurrency: 4, workers: 4",
        "max_concurrency: 4, runtime: mlflow_serve",
        "workers: 4",
        "max_concurrency: 6, workers: 2, threads: 3",
    ] {
        assert_eq!(loaded(&route(fits)).warnings.problems, []);
    }
}

#[test]
fn threads_are_checked_for_range_and_runtime() {
    let text = "\
model_endpoints:
  - name: a
    routes:
      - {model_uri: 'models:/m/1', alias: one, threads: 0}
      - {model_uri: 'models:/m/1', alias: two, threads: 129}
      - {model_uri: 'models:/m/1', alias: three, threads: 2, runtime: mlflow_serve}
      - {model_uri: 'http://h:1', alias: four, threads: 2}
      - {model_uri: 'models:/m/1', alias: five, threads: 128, workers: 2}
";
    insta::assert_snapshot!(report(text), @r#"
    gateway.yaml:4:57: model_endpoints[0].routes[0].threads: must be from 1 to 128
    gateway.yaml:5:57: model_endpoints[0].routes[1].threads: must be from 1 to 128
    gateway.yaml:6:59: model_endpoints[0].routes[2].threads: `mlflow models serve` has threads of its own; use max_concurrency, or take `runtime: forked`
    gateway.yaml:7:57: model_endpoints[0].routes[3].threads: no process is started for what is served elsewhere; leave it out
    "#);
}
