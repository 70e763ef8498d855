//! Tests the pool with real processes: `SIGNALBOX_TEST_PYTHON` names an interpreter that has MLflow, and so Flask.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};

use super::*;
use crate::message::{Headers, Source};
use crate::routing::{PythonExpression, ResultKind, Value};

mod bounds;
mod losses;

/// A pool of evaluators, with the template that they are forked from.
struct World {
    models: Models,
    evaluators: Evaluators,
    metrics: Metrics,
    readiness: Readiness,
    python: String,
}

impl World {
    fn new(config: &config::Conditions) -> Self {
        let python = config::environment("SIGNALBOX_TEST_PYTHON");
        Self::of(&python.expect("SIGNALBOX_TEST_PYTHON names an interpreter that has mlflow"), config)
    }

    fn of(python: &str, config: &config::Conditions) -> Self {
        let template = config::Template { libraries: Vec::new(), exclude: Vec::new() };
        let models = config::Models { python: python.to_owned(), template, ..Default::default() };
        let (metrics, readiness) = (Metrics::new().unwrap(), Readiness::default());
        let models = Models::start(&models, &config::Registry::default(), &metrics).unwrap();
        let evaluators = Evaluators::start(config, &models, python, &metrics, &readiness);
        Self { models, evaluators, metrics, readiness, python: python.to_owned() }
    }

    /// Makes a pool whose evaluators all run.
    async fn running(config: &config::Conditions) -> Self {
        let world = Self::new(config);
        world.evaluators.begin();
        let question = question(&["True"], &[]);
        // So many requests at once need every seat.
        let asked = join_all((0..8 * config.evaluators).map(|_| world.evaluators.ask(&question, &REQUEST)));
        assert!(asked.await.iter().all(|answers| matches!(&answers[..], [Ok(Value::Bool(true))])));
        let full = i64::try_from(config.evaluators).unwrap() + 1;
        eventually("the reserve is filled", || world.metrics.evaluators.get() == full).await;
        world
    }

    async fn ask(&self, question: &Arc<Question>, body: &str) -> Vec<String> {
        said(&self.evaluators.ask(question, &request(body)).await)
    }

    /// Lists the processes that were forked from the template.
    async fn processes(&self) -> Vec<Pid> {
        let template = self.models.template(&self.python).pid().await.unwrap_or_default();
        let children =
            std::fs::read_to_string(format!("/proc/{template}/task/{template}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    }

    async fn end(self) {
        self.evaluators.shutdown().await;
        self.models.shutdown().await;
    }
}

static REQUEST: std::sync::LazyLock<Arc<Request>> = std::sync::LazyLock::new(|| request("{}"));

fn request(body: &str) -> Arc<Request> {
    let source = Source { topic: "requests".into(), partition: 3, offset: 17 };
    let headers = Headers::from_pairs([("x-tier", "gold".as_bytes()), ("http-target", b"POST /invocations?a=b%20c")]);
    let (key, payload) = (Some(Bytes::from_static(b"customer")), Some(Bytes::copy_from_slice(body.as_bytes())));
    Arc::new(Request { source, timestamp: Some(1_700_000_000_123), key, payload, headers, parked: None })
}

fn question(sources: &[&str], names: &[(&str, &str)]) -> Arc<Question> {
    let expression = |source: &&str| PythonExpression { source: (*source).into(), wants: ResultKind::Value };
    let names = names.iter().map(|(name, source)| ((*name).to_owned(), (*source).to_owned())).collect();
    Arc::new(Question::new(sources.iter().map(expression).collect(), names))
}

/// Shows answers: values as JSON, errors as they are.
fn said(answers: &Answers) -> Vec<String> {
    let shown = |answer: &Result<Value, ConditionError>| match answer {
        Ok(value) => serde_json::to_string(value).unwrap(),
        Err(error) => error.to_string(),
    };
    answers.iter().map(shown).collect()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let given_up = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < given_up, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[test]
#[ignore = "needs MLflow; tests/run starts it"]
fn evaluator_passes_its_own_tests() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("evaluator.py"), include_str!("python/evaluator.py")).unwrap();
    std::fs::write(at("channel.py"), include_str!("../models/host/python/channel.py")).unwrap();
    std::fs::write(at("tests.py"), include_str!("tests/evaluator.py")).unwrap();
    let python = config::environment("SIGNALBOX_TEST_PYTHON").unwrap();
    let tested = Command::new(python).arg(at("tests.py")).arg(directory.path()).output().unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn ask_gives_each_expression_its_value_or_its_error() {
    let world = World::new(&config::Conditions::default());
    assert_eq!((world.metrics.evaluators.get(), world.readiness.report().len()), (0, 0));
    let asked = question(
        &[
            "sum(row['a'] for row in request.json['rows']) + most",
            "request.headers.get('X-Tier'), request.args['a'], request.path, request.method",
            "[request.topic, request.partition, request.offset, request.timestamp, request.key]",
            "re.sub('[^a-z]', '', urllib.parse.unquote('a%20b')) + f\"{most:>3}\"",
            "request.json['b']",
            "request.form.get('b')",
            "float('nan'), 2**70 > 1, {1: None}, {'b', 'a'}",
            "(lambda f: f(f))(lambda f: f(f))",
        ],
        &[("most", "max(row['a'] for row in request.json['rows'])")],
    );
    let body = r#"{"rows": [{"a": 1}, {"a": 2}]}"#;
    let expected = [
        "5",
        r#"["gold","b c","/invocations","POST"]"#,
        r#"["requests",3,17,1700000000123,"customer"]"#,
        "\"ab  2\"",
        "KeyError: 'b'",
        "null",
        "[null,true,{\"1\":null},[\"a\",\"b\"]]",
        "RecursionError: maximum recursion depth exceeded",
    ];
    assert_eq!(world.ask(&asked, body).await, expected);
    assert!(world.readiness.is_ready());
    assert_eq!(world.readiness.report().keys().collect::<Vec<_>>(), [&"evaluators"]);

    // The truth of a value is asked for as well.
    let truths = ["[]", "request.json", "request.headers['nope']"]
        .map(|source| PythonExpression { source: source.into(), wants: ResultKind::Truth });
    let truths = Arc::new(Question::new(truths.to_vec(), Vec::new()));
    assert_eq!(world.ask(&truths, "[1]").await, ["false", "true", "KeyError: 'nope'"]);
    let broken = world.ask(&truths, "{").await.remove(1);
    assert!(broken.starts_with("400 Bad Request: "), "{broken}");

    let counted = |result| world.metrics.evaluations.with_label_values(&[WAY, result]).get();
    assert_eq!((counted("ok"), counted("failed"), counted("exceeded")), (6 + 2 + 1, 1 + 1 + 2, 1));
    let report = world.evaluators.report();
    assert_eq!((report.waiting, report.lost, report.limit), (0, 0, 2));
    assert_eq!(report.evaluators.iter().map(|it| it.answered).sum::<u64>(), 3);
    world.end().await;
}

#[tokio::test]
#[ignore = "needs MLflow; tests/run starts it"]
async fn answers_belong_to_their_requests_when_many_are_asked_at_once() {
    let world = World::running(&config::Conditions { timeout: Duration::from_secs(5), ..Default::default() }).await;
    let questions: Vec<_> = (0..20).map(|number| question(&[&format!("request.json['n'] + {number}")], &[])).collect();
    let asked = (0..3000).map(|number| {
        let (world, question) = (&world, &questions[number % questions.len()]);
        async move {
            let expected = (number + number % 20).to_string();
            assert_eq!(
                world.ask(question, &format!("{{\"n\": {number}, \"text\": \"{number:>1000}\"}}")).await,
                [expected]
            );
        }
    });
    join_all(asked).await;
    // One that is larger than a frame, and a null one.
    let large = format!("{{\"n\": 1, \"text\": \"{}\"}}", "x".repeat(3 << 20));
    assert_eq!(world.ask(&questions[0], &large).await, ["1"]);
    let null = Arc::new(Request { payload: None, key: None, ..(*request("")).clone() });
    let asked = question(&["request.get_data(as_text=True)", "request.key"], &[]);
    assert_eq!(said(&world.evaluators.ask(&asked, &null).await), ["\"\"", "null"]);
    world.end().await;
}

#[tokio::test]
async fn ask_fails_soon_when_there_is_no_interpreter() {
    let world = World::of("/nowhere/python", &config::Conditions::default());
    let asked = timeout(Duration::from_secs(20), world.ask(&question(&["1", "2"], &[]), "{}")).await.unwrap();
    assert_eq!(asked, ["no Python process can be started that evaluates it"; 2]);
    let waits_for = world.readiness.report()["evaluators"].clone().unwrap();
    assert!(waits_for.contains("/nowhere/python"), "{waits_for}");
    world.end().await;
}
