//! Covers the main job: many mixed requests, each answered once by the model that its condition chooses.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Kafka, Mlflow, Setup, Signalbox};

const REQUESTS: usize = 10_000;
const CALLERS: usize = 32;

/// Makes a payload, of which every third text is the accurate model's.
fn payload(n: usize) -> Vec<u8> {
    let text = match n % 3 {
        0 => format!("Domain specific text: result {n} shows significant improvements."),
        1 => format!("This is a great product, number {n}!"),
        _ => format!("A terrible waste of money, number {n}."),
    };
    json!({"dataframe_split": {"columns": ["text"], "data": [[text]]}}).to_string().into_bytes()
}

fn expected_route(n: usize) -> &'static str {
    if n.is_multiple_of(3) { "accurate" } else { "fast" }
}

/// Checks a prediction: the accurate model says more than the fast one, and its answer is passed on as it is.
fn check_prediction(n: usize, body: &Value) {
    let prediction = &body["predictions"][0];
    assert!(prediction["label"].is_string() && prediction["score"].is_number(), "{n}: {body}");
    assert_eq!(prediction.get("domain_confidence").is_some(), n.is_multiple_of(3), "{n}: {body}");
}

#[test]
#[ignore = "needs Apache Kafka and MLflow; tests/run starts them"]
fn kafka_requests_are_answered_once_by_right_model() {
    let (kafka, mlflow) = (Kafka::shared(), Mlflow::shared());
    let setup = Setup::new(kafka);
    let signalbox = Signalbox::start(&setup.sentiment_config(mlflow));
    kafka.send_orders(&setup.requests, REQUESTS, payload);

    let replies = setup.replies(REQUESTS, Duration::from_secs(900));
    assert_eq!(replies.len(), REQUESTS, "{}", signalbox.log());
    let mut seen = HashSet::new();
    for reply in &replies {
        let n: usize = reply.key.strip_prefix("order-").unwrap().parse().unwrap();
        assert!(seen.insert(n), "request {n} was answered twice");
        assert_eq!(reply.header("kafka_correlationId"), reply.key);
        assert_eq!(reply.status(), 200, "{reply:?}");
        assert_eq!(reply.header("route"), expected_route(n), "{n}: {reply:?}");
        assert_eq!(reply.header("model-version"), "1");
        check_prediction(n, &reply.json());
    }
}

#[test]
#[ignore = "needs Apache Kafka and MLflow; tests/run starts them"]
fn http_requests_are_answered_by_right_model_with_many_callers() {
    let setup = Setup::new(Kafka::shared());
    let signalbox = Signalbox::start(&setup.sentiment_config(Mlflow::shared()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = reqwest::Client::new();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (client, url) = (client.clone(), format!("{}/invocations", signalbox.url()));
            runtime.spawn(async move {
                for n in (caller..REQUESTS).step_by(CALLERS) {
                    let call = client.post(&url).header("content-type", "application/json").body(payload(n));
                    let answer = call.send().await.unwrap();
                    let (status, headers) = (answer.status(), answer.headers().clone());
                    let body: Value = answer.json().await.unwrap();
                    assert_eq!(status, 200, "{n}: {body}");
                    assert_eq!(headers["x-route"], expected_route(n), "{n}");
                    check_prediction(n, &body);
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for caller in callers {
            caller.await.unwrap();
        }
    });
}
