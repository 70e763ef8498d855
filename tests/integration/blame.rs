//! Covers the blame for a missing prediction: the caller's request, the model's exception, or the model's answer.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Answer, Caller, handmade};

const CSV: &str = "text/csv";
const PARQUET: &str = "application/vnd.apache.parquet";

const MODEL: &str = r"
import decimal
import logging
import sys
import uuid


class Model:
    calls = 0

    def predict(self, model_input, params=None):
        self.calls += 1
        what = str(model_input['what'][0])
        if what == 'raise':
            raise ValueError('no')
        if what == 'forge':
            print('a model says\r2026-01-01T00:00:00Z ERROR forged: \x1b[31mall is lost\u2028and more')
            print('x' * 5000)
            logging.getLogger('zoo').warning('logged by the model')
        if what == 'flood':
            for number in range(20_000):
                print(f'flood {number}')
        answers = {
            'calls': lambda: [self.calls],
            'decimal': lambda: [decimal.Decimal('1.5')],
            'set': lambda: {1},
            'uuid': lambda: [uuid.UUID(int=1)],
            'keys': lambda: {(1, 2): 'a secret'},
            'circle': self.circle,
        }
        return answers.get(what, lambda: [1])()

    def circle(self):
        circle = []
        circle.append(circle)
        return circle
";

fn model() -> PathBuf {
    handmade::handmade(MODEL)
}

fn request(what: &str) -> Value {
    json!({"dataframe_records": [{"what": what}]})
}

async fn calls(caller: &Caller) -> u64 {
    caller.ask("blame", &request("calls")).await.predictions()[0].as_u64().unwrap()
}

/// Lists payloads that no model gets to see.
fn unreadable() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        (CSV, text("")),
        (CSV, text("what,x\n1,2\n1,2,3\n")),
        (CSV, text("what\n\"1")),
        (CSV, "what\n\u{e9}\n".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        (CSV, vec![b'w', 0xe9, b'\n', b'1']),
        (PARQUET, text("")),
        (PARQUET, text("PAR1")),
        (PARQUET, text("PAR1 and so on PAR1")),
        ("application/json", text(&format!("{{\"inputs\": {}", "[".repeat(100_000)))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn unreadable_request_is_blamed_on_its_caller_alone() {
    let model = model();
    let routes = [
        handmade::route("only", &model, ", breaker: {minimum_calls: 3}, fallback: other"),
        handmade::route("other", &model, ", weight: 0"),
    ];
    let signalbox = handmade::start(&[("blame", "60s", &routes)]);
    let caller = Caller::of(&signalbox);
    assert_eq!(calls(&caller).await, 1);
    for (content_type, body) in unreadable() {
        let answer = caller.send("blame", content_type, body.clone()).await.unwrap();
        let (code, _) = answer.fault();
        let told = (answer.status, &*code, answer.json()["retryable"].as_bool());
        assert_eq!(told, (400, "BAD_REQUEST", Some(false)), "{content_type} {body:?} {}", answer.text());
        assert_eq!((answer.header("x-route"), answer.header("x-attempts")), ("only", "1"));
    }
    // The model was not called for these payloads, and none of them has opened its breaker, or was asked elsewhere.
    let answer = caller.ask("blame", &request("calls")).await;
    assert_eq!((answer.predictions(), answer.header("x-route")), (json!([2]), "only"));

    // An exception that the model raises is the model's own doing, and opens the breaker.
    for _ in 0..20 {
        caller.ask("blame", &request("raise")).await;
    }
    assert_eq!(caller.ask("blame", &request("calls")).await.header("x-route"), "other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn answer_is_not_retried_when_json_cannot_hold_it() {
    let routes = [handmade::route("only", &model(), ", retries: {max_attempts: 3}")];
    let signalbox = handmade::start(&[("blame", "60s", &routes)]);
    let caller = Caller::of(&signalbox);
    // Enough requests succeed that retries could be had.
    for _ in 0..30 {
        calls(&caller).await;
    }
    let before = calls(&caller).await;
    let unwritable = [
        ("decimal", "it holds a value of type Decimal"),
        ("set", "it holds a value of type set"),
        ("uuid", "it holds a value of type UUID"),
        ("keys", "it has a key of type tuple"),
        ("circle", "it holds itself"),
    ];
    for (what, why) in unwritable {
        let answer = caller.ask("blame", &request(what)).await;
        let (code, message) = answer.fault();
        let told = (answer.status, &*code, answer.json()["retryable"].as_bool());
        assert_eq!(told, (502, "MODEL_ERROR", Some(false)), "{}", answer.text());
        let said = format!("the model's answer cannot be written as JSON: {why}");
        assert_eq!((message, answer.header("x-attempts")), (said.clone(), "1"));
        let log = signalbox.log();
        let line = log.lines().find(|line| line.contains(&said)).unwrap_or_else(|| panic!("{said} is not in {log}"));
        assert!(line.contains("Traceback (most recent call last)") && line.contains("Error"), "{line}");
    }
    assert_eq!(calls(&caller).await, before + unwritable.len() as u64 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MLflow; tests/run starts it"]
async fn log_holds_model_output_by_line_within_limit() {
    let routes = [handmade::route("only", &model(), "")];
    let signalbox = handmade::start(&[("blame", "60s", &routes)]);
    let caller = Caller::of(&signalbox);
    let answered = |answer: Answer| assert_eq!(answer.status, 200, "{}", answer.text());
    answered(caller.ask("blame", &request("forge")).await);
    let in_log = async |text: &str| {
        crate::support::eventually(&format!("{text} in the log"), std::time::Duration::from_secs(60), async || {
            let log = signalbox.log();
            log.lines().find(|line| line.contains(text)).map(str::to_owned)
        })
        .await
    };
    let forged = in_log("a model says").await;
    assert!(
        forged.contains(r"a model says\r2026-01-01T00:00:00Z ERROR forged: \u{1b}[31mall is lost\u{2028}and more"),
        "{forged}"
    );
    assert!(forged.contains(" INFO ") && !signalbox.log().contains('\r'), "{forged}");
    assert!(in_log("xxxxx").await.len() < 2000);
    in_log("logged by the model").await;

    answered(caller.ask("blame", &request("flood")).await);
    let left_out = in_log("more lines left out").await;
    let shown = signalbox.log().lines().filter(|line| line.contains("flood ")).count();
    let more: usize = left_out.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or_default();
    assert!((1..=200).contains(&shown) && more > 10_000, "{shown} lines are shown: {left_out}");
}
