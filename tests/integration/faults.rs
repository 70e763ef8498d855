//! Covers bad requests: each gets one clear fault, and the others go on.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{Kafka, Mlflow, Reply, Setup, Signalbox};

const GOOD: &[u8] = br#"{"dataframe_split": {"columns": ["text"], "data": [["a great day"]]}}"#;
const LIMIT: Duration = Duration::from_secs(120);

fn endpoints() -> String {
    let endpoint = |name: &str, uri: &str| {
        format!("  - {{name: {name}, timeout: 30s, routes: [{{model_uri: \"{uri}\", alias: only}}]}}\n")
    };
    [
        "\n".to_owned(),
        endpoint("good", "models:/sentiment-model-fast/production"),
        endpoint("raises", "models:/raises-model/production"),
        endpoint("no-stage", "models:/sentiment-model-fast/archived"),
        endpoint("no-model", "models:/nowhere/1"),
        "  - {name: conditional, routes: [{model_uri: \"builtin:noop\", alias: only, model_request_condition: \"request.headers['x-tier'] == 'gold'\"}]}\n".to_owned(),
    ]
    .concat()
}

#[test]
#[ignore = "needs Apache Kafka and MLflow; tests/run starts them"]
fn bad_requests_get_one_clear_fault_while_good_ones_succeed() {
    let (kafka, mlflow) = (Kafka::shared(), Mlflow::shared());
    let setup = Setup::new(kafka);
    let _signalbox = Signalbox::start(&setup.config(&endpoints(), "", &mlflow.tracking_uri()));
    let past = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() - 1_000).to_string();
    let huge =
        [br#"{"dataframe_split": {"columns": ["text"], "data": [[""#, "x".repeat(900_000).as_bytes(), br#""]]}}"#]
            .concat();

    // Name, headers besides the correlation id, value, status, error code, and a word of the message.
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a [u8], u16, &'a str, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("good", vec![("endpoint", "good")], GOOD, 200, "", ""),
        ("large", vec![("endpoint", "good")], &huge, 200, "", ""),
        ("not json", vec![("endpoint", "good")], b"{\"dataframe_split\":", 400, "BAD_REQUEST", "JSON"),
        ("empty", vec![("endpoint", "good")], b"", 400, "BAD_REQUEST", "JSON"),
        (
            "column",
            vec![("endpoint", "good")],
            br#"{"dataframe_split": {"columns": ["nope"], "data": [["x"]]}}"#,
            400,
            "BAD_REQUEST",
            "text",
        ),
        (
            "media type",
            vec![("endpoint", "good"), ("content-type", "text/plain")],
            GOOD,
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "text/plain",
        ),
        ("no endpoint", vec![], GOOD, 404, "RESOURCE_DOES_NOT_EXIST", "good"),
        ("unknown", vec![("endpoint", "nowhere")], GOOD, 404, "RESOURCE_DOES_NOT_EXIST", "nowhere"),
        ("no stage", vec![("endpoint", "no-stage")], GOOD, 404, "RESOURCE_DOES_NOT_EXIST", "rchived"),
        ("no model", vec![("endpoint", "no-model")], GOOD, 404, "RESOURCE_DOES_NOT_EXIST", "nowhere"),
        ("raises", vec![("endpoint", "raises")], GOOD, 502, "MODEL_ERROR", ""),
        ("no route", vec![("endpoint", "conditional")], GOOD, 404, "RESOURCE_DOES_NOT_EXIST", "conditional"),
        ("route", vec![("endpoint", "conditional"), ("x-tier", "gold")], GOOD, 200, "", ""),
        ("expired", vec![("endpoint", "good"), ("deadline", &past)], GOOD, 504, "DEADLINE_EXCEEDED", "deadline"),
        ("deadline", vec![("endpoint", "good"), ("deadline", "soon")], GOOD, 400, "BAD_REQUEST", "deadline"),
        (
            "forbidden topic",
            vec![("endpoint", "good"), ("kafka_replyTopic", "elsewhere")],
            GOOD,
            403,
            "PERMISSION_DENIED",
            "elsewhere",
        ),
    ];
    for (name, headers, value, ..) in &cases {
        let headers: Vec<_> = headers.iter().copied().chain([("kafka_correlationId", *name)]).collect();
        kafka.send(&setup.requests, None, &headers, value);
    }
    kafka.flush();

    let replies = setup.replies(cases.len(), LIMIT);
    let by_name: HashMap<_, _> = replies.iter().map(|reply| (reply.key.as_str(), reply)).collect();
    assert_eq!((replies.len(), by_name.len()), (cases.len(), cases.len()), "{:?}", by_name.keys());
    for (name, _, _, status, code, word) in &cases {
        let reply: &Reply = by_name[name];
        assert_eq!(reply.status(), *status, "{name}: {reply:?}");
        if *status >= 400 {
            let fault = reply.json();
            assert_eq!(fault["error_code"], *code, "{name}: {fault}");
            let message = fault["message"].as_str().unwrap();
            assert!(message.contains(word) && !message.contains("Traceback"), "{name}: {message}");
            assert_eq!(fault["correlation_id"], *name);
        }
    }
    // The request that may not be answered at the place it asked for is a dead letter as well, as it came.
    let dead = kafka.consume(&setup.dead_letters, 1, LIMIT);
    let letter = Reply::of(&dead[0]);
    assert_eq!(letter.body, GOOD);
    assert_eq!(letter.header("kafka_dlt-original-topic"), setup.requests);
    assert_eq!(letter.header("kafka_dlt-exception-fqcn"), "PERMISSION_DENIED");
    assert_eq!(letter.header("kafka_correlationId"), "forbidden topic");
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn fault_names_registry_when_down_and_other_endpoints_go_on() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    let endpoints = "
  - {name: far, routes: [{model_uri: \"models:/sentiment-model-fast/production\", alias: only}]}
  - {name: near, routes: [{model_uri: \"builtin:noop\", alias: only}]}
";
    let _signalbox = Signalbox::start(&setup.config(endpoints, "", "http://127.0.0.1:9"));
    for endpoint in ["far", "near"] {
        kafka.send(&setup.requests, None, &[("endpoint", endpoint), ("kafka_correlationId", endpoint)], GOOD);
    }
    kafka.flush();
    let replies = setup.replies(2, LIMIT);
    let status = |name: &str| replies.iter().find(|reply| reply.key == name).map(Reply::status);
    assert_eq!((status("far"), status("near")), (Some(503), Some(200)), "{replies:?}");
    let fault = replies.iter().find(|reply| reply.key == "far").unwrap().json();
    assert!(fault["message"].as_str().unwrap().contains("127.0.0.1:9"), "{fault}");
    assert_eq!(fault["retryable"], true);
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn answer_becomes_small_fault_when_too_large_for_broker() {
    let kafka = Kafka::shared();
    let setup = Setup::new(kafka);
    // The client's own limit stands in for the broker's, which is the same check a hop earlier.
    let keys = "  properties: {message.max.bytes: 1000}";
    let (_model, url) = crate::support::http_model_of_size(5_000);
    let _signalbox = Signalbox::start(&setup.single_config(&url, keys));
    kafka.produce(&setup.requests, None, &[("kafka_correlationId", "big")], b"{\"inputs\": [1]}");
    let replies = setup.replies(1, LIMIT);
    assert_eq!(replies[0].status(), 413, "{replies:?}");
    assert_eq!(replies[0].json()["error_code"], "PAYLOAD_TOO_LARGE");
}

/// Covers small answers beside a small limit: the broker refuses a batch as a whole, so the batch has to fit.
#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn small_answers_are_published_when_topic_limits_batch_size() {
    let kafka = Kafka::shared();
    let (_model, url) = crate::support::http_model_of_size(1_000);
    for delivery in ["at_least_once", "exactly_once"] {
        let setup = Setup::with_replies(kafka, &[("max.message.bytes", "4000")]);
        let _signalbox = Signalbox::start(&setup.single_config(&url, &format!("  delivery: {delivery}")));
        kafka.send_orders(&setup.requests, 1_000, |_| b"{\"inputs\": [1]}".to_vec());
        let replies = setup.replies(1_000, LIMIT);
        assert_eq!(replies.iter().filter(|reply| reply.status() == 200).count(), 1_000, "{delivery}");
    }
}

#[test]
#[ignore = "needs Apache Kafka and Python; tests/run starts them"]
fn shim_refuses_body_of_five_megabytes() {
    let setup = Setup::new(Kafka::shared());
    let signalbox = Signalbox::start(&setup.single_config("builtin:noop", ""));
    let call = |size: usize| {
        let client = reqwest::Client::new();
        let post = client.post(format!("{}/invocations", signalbox.url())).header("content-type", "application/json");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let answer = post.body(vec![b' '; size]).send().await.unwrap();
            (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
        })
    };
    let (status, fault) = call(5_000_000);
    assert_eq!((status, &fault["error_code"]), (413, &"PAYLOAD_TOO_LARGE".into()), "{fault}");
    assert_eq!(call(1_000).0, 200);
}
