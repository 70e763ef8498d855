use std::time::Duration;

use regex::Regex;

use super::load::parse_with;
use super::validate::Checks;
use super::*;
use crate::routing::condition::{ConditionProblem, Language};

mod batch;
mod canary;
mod decision;
mod limits;
mod properties;
mod recovery;
mod retry_delays;
mod route_tests;
mod shares;

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

fn loaded(text: &str) -> Loaded {
    parse(text, "gateway.yaml", &env).unwrap_or_else(|report| panic!("{report}"))
}

fn report(text: &str) -> String {
    match parse(text, "gateway.yaml", &env) {
        Ok(loaded) => panic!("it loads: {loaded:?}"),
        Err(report) => report.to_string(),
    }
}

/// The one problem of a file.
fn problem(text: &str) -> String {
    let report = report(text);
    assert_eq!(report.lines().count(), 1, "{report}");
    report
}

/// A valid file with something more at its end.
fn gateway_with(rest: &str) -> String {
    format!("{GATEWAY}{rest}")
}

#[test]
fn the_examples_load_as_they_stand() {
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
fn every_problem_is_reported_at_its_place() {
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
    gateway.yaml:28:1: modles: unknown key 'modles'; did you mean 'models'? valid keys: model_endpoints, kafka, server, registry, models, tests
    gateway.yaml:30:17: registry.tracking_uri: the environment variable TRACKING_URI is not set; set it, or give a default: ${TRACKING_URI:-…}
    "#);
}

#[test]
fn values_come_from_the_environment_and_keep_their_types() {
    let text = gateway_with(
        "server: {port: ${PORT}, max_pending: ${NOBODY:-12}}\nkafka:\n  properties: {sasl.password: ${SECRET}}\n  group_id: '$${PORT}'\n",
    );
    let config = loaded(&text).config;
    assert_eq!((config.server.port, config.server.max_pending), (7000, 12));
    assert_eq!(config.kafka.properties["sasl.password"], "hunter2: # [}");
    assert_eq!(config.kafka.group_id, "${PORT}");
}

#[test]
fn a_value_of_the_environment_is_never_repeated() {
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
fn a_missing_variable_is_a_problem_at_its_place() {
    assert_eq!(
        problem(&gateway_with("server:\n  host: ${HOST_OF_IT}\n")),
        "gateway.yaml:9:9: server.host: the environment variable HOST_OF_IT is not set; set it, or give a default: ${HOST_OF_IT:-…}"
    );
    loaded(&gateway_with("# ${HOST_OF_IT} in a comment\n"));
    let malformed = problem(&gateway_with("kafka:\n  group_id: ${NOT A NAME}\n"));
    assert!(malformed.starts_with("gateway.yaml:9:13: kafka.group_id: '${' does not start a reference"), "{malformed}");
}

#[test]
fn broken_yaml_and_odd_yaml() {
    for (text, wanted) in [
        ("", "gateway.yaml:1:1: the file is empty; it needs model_endpoints"),
        ("# nothing\n", "gateway.yaml:1:1: the file is empty; it needs model_endpoints"),
        ("[1, 2]", "gateway.yaml:1:1: expected a mapping of keys, found a list"),
        ("{}", "gateway.yaml:1:1: model_endpoints: missing key 'model_endpoints'"),
        ("model_endpoints:\n", "gateway.yaml:1:16: model_endpoints: at least one endpoint is needed"),
        ("model_endpoints: []", "gateway.yaml:1:18: model_endpoints: at least one endpoint is needed"),
        ("model_endpoints: \"a\\nb\"", r"gateway.yaml:1:18: model_endpoints: expected a list, found 'a\nb'"),
        ("a: [1, 2\nb: 3", ""),
        ("a: 'b", ""),
        ("a: b: c", ""),
        ("a: *nobody", ""),
        ("a: 1\n---\nb: 2\n", "gateway.yaml:2:1: a second YAML document starts here; one file holds one"),
    ] {
        let report = problem(text);
        println!("{report}");
        assert!(report.starts_with("gateway.yaml:") && (wanted.is_empty() || report == wanted), "{text:?}: {report}");
    }
}

#[test]
fn empty_sections_count_as_left_out() {
    let config = loaded(&gateway_with("kafka:\nserver: ~\nregistry:\n  tracking_uri:\nmodels: null\n")).config;
    assert_eq!(config.server.port, 5000);
}

#[test]
fn anchors_aliases_and_merge_keys_are_understood() {
    let text = "\
model_endpoints:
  - name: a
    timeout: &long 1m
    routes:
      - &route {model_uri: 'models:/m/1', alias: one}
  - name: b
    timeout: *long
    routes:
      - <<: *route
        alias: two
        model_request_condition: 'True'
      - *route
";
    let config = loaded(text).config;
    assert_eq!(config.model_endpoints[1].timeout.as_secs(), 60);
    let routes = &config.model_endpoints[1].routes;
    assert_eq!((routes[0].model_uri.as_str(), routes[0].alias.as_str()), ("models:/m/1", "two"));
    assert_eq!(routes[1].alias, "one");
}

#[test]
fn aliases_cannot_blow_up() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let before = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    assert!(problem(&bomb).contains("more than 100000 values"));
    let deep: String = (1..9_000).map(|level| format!("a{level}: &a{level} [*a{}]\n", level - 1)).collect();
    assert!(problem(&format!("a0: &a0 [x]\n{deep}")).contains("more than 64 levels"));
    for open in ["[", "{a: ", "- "] {
        let problem = problem(&open.repeat(50_000));
        assert!(problem.contains("more than 64 levels") || problem.contains("recursion limit"), "{problem}");
    }
}

#[test]
fn keys_of_later_features_are_refused_by_name() {
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
fn dangling_aliases_and_own_properties() {
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
    gateway.yaml:7:26: kafka.properties.group.id: Signalbox sets this property itself; use kafka.group_id
    gateway.yaml:7:52: kafka.properties.security.protocol: librdkafka does not take this property: Invalid value "SSLL" for configuration property "security.protocol"
    gateway.yaml:7:69: kafka.properties.linger.ms: librdkafka does not take this property: Invalid value for configuration property "queue.buffering.max.ms"
    gateway.yaml:7:95: kafka.properties.enable.idempotence: without it a reply that is sent again would come after later ones; leave it out, or use kafka.ordering: unordered
    "#);
}

#[test]
fn hosting_is_for_models_that_are_loaded_here() {
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
fn calls_that_no_worker_will_take_are_warned_of() {
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
fn threads_are_for_hosts_and_as_many_as_can_be() {
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

#[test]
fn a_condition_that_does_not_compile_is_shown_at_its_place() {
    let flawed = |text: &str| {
        let before = text.split_once('@').map(|(before, _)| before);
        before.map_or(Ok(Language::Python), |before| {
            let line = before.split('\n').count();
            let column = before.chars().rev().take_while(|letter| *letter != '\n').count() + 1;
            Err(ConditionProblem { line, column, message: "stray".to_owned(), hint: None })
        })
    };
    let checks = Checks { condition: &flawed, ..Checks::default() };
    for (condition, line, column) in [
        ("aé@", 6, 36),
        ("'it''s @'", 6, 41),
        (r#""a\"b\u00e9\x41 \n@""#, 6, 52),
        ("  # comment\n          a @", 7, 13),
        ("|\n          @", 7, 11),
        ("|\n          a and\n            b @ c", 8, 15),
        (">\n          a and\n          b @ c", 7, 11),
        ("'a\n           @'", 6, 34),
        ("${PORT} @", 6, 34),
    ] {
        let text = format!(
            "model_endpoints:\n  - name: a\n    routes:\n      - alias: one\n        model_uri: models:/m/1\n        model_request_condition: {condition}\n"
        );
        let report = parse_with(&text, "gateway.yaml", &env, &checks).unwrap_err();
        assert_eq!(report.problems.len(), 1, "{report}");
        assert_eq!(report.problems[0].at, Some(Position { line, column }), "{condition}");
    }
}

#[test]
fn conditions_and_model_uris_are_read_as_they_will_be_used() {
    let text = "\
model_endpoints:
  - name: a
    routes:
      - alias: one
        model_uri: models:/x
        model_request_condition: \"request.json()['a'] and request.jsn()\"
      - alias: two
        model_uri: http://me:secret@localhost:1
        model_request_condition: 'rhai: request.headers['
";
    let report = report(text);
    let starts: Vec<_> = report.lines().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(
        starts,
        ["gateway.yaml:5:20", "gateway.yaml:6:67", "gateway.yaml:8:20", "gateway.yaml:9:57"],
        "{report}"
    );
    assert!(!report.contains("secret"), "{report}");
    let languages = |text: &str| loaded(text).outline[0].routes[1].condition.as_ref().map(|(language, _)| *language);
    assert_eq!(languages(CONDITIONAL), Some(Language::Python));
    assert_eq!(languages(&CONDITIONAL.replace("request.json()['", "rhai: 1 == 1 // ")), Some(Language::Rhai));
}

#[test]
fn files_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.yaml");
    let missing = load(&path).unwrap_err();
    assert!(missing.to_string().starts_with(&format!("{}: cannot be read: No such file", path.display())), "{missing}");
    std::fs::write(&path, b"model_endpoints:\n  - n\xc3\xa9: \xff").unwrap();
    assert_eq!(load(&path).unwrap_err().problems[0].at, Some(Position { line: 2, column: 9 }));
    std::fs::write(&path, format!("\u{FEFF}{GATEWAY}")).unwrap();
    assert!(load(&path).is_ok());
    std::fs::write(&path, GATEWAY.replace('\n', "\r\n")).unwrap();
    assert!(load(&path).is_ok());
}

#[test]
fn the_reference_shows_the_defaults() {
    let Loaded { config, warnings, .. } = parse(REFERENCE, "reference.yaml", &|_| None).unwrap();
    assert_eq!(warnings.problems, []);
    assert_eq!(format!("{:?}", config.kafka), format!("{:?}", Kafka::default()));
    assert_eq!(format!("{:?}", config.server), format!("{:?}", Server::default()));
    assert_eq!(format!("{:?}", config.models), format!("{:?}", Models::default()));
    // The reference spells out where the address comes from when none is given.
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
fn the_reference_has_every_key_in_the_order_of_the_structs() {
    let structs = Regex::new(r"(?ms)^pub struct (\w+) \{\n(.*?)^\}").unwrap();
    let field = Regex::new(r"(?m)^    pub (\w+):").unwrap();
    let sources = [
        include_str!("mod.rs"),
        include_str!("endpoint.rs"),
        include_str!("kafka.rs"),
        include_str!("limits.rs"),
        include_str!("server.rs"),
        include_str!("registry.rs"),
        include_str!("models.rs"),
        include_str!("recovery.rs"),
        include_str!("batch.rs"),
        include_str!("canary.rs"),
        include_str!("route_test.rs"),
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
fn the_reference_marks_what_is_not_supported_yet() {
    for line in REFERENCE.lines().filter(|line| !line.trim_start().starts_with('#')) {
        assert!(!line.contains("not supported yet"), "{line}");
    }
    let marks = REFERENCE.matches("(not supported yet)").count();
    assert_eq!(marks, unsupported::NOT_YET.len(), "one mark a key, and one in the introduction in other words");
}
