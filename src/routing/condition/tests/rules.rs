//! Conditions as CPython has them on Flask's own request: the rules that people write, and random expressions on random
//! requests. The reference is `reference.py`, which needs Flask and PyYAML.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use tokio::runtime::Runtime;

use super::*;
use crate::config;
use crate::evaluators::Evaluators;
use crate::models::Models;
use crate::telemetry::{Metrics, Readiness};

/// Errors that are allowed here and not in Python, as the module's documentation says.
const NARROWER: [&str; 10] = [
    "beyond 64 bits",
    "are not compared here",
    "are not ordered here",
    "'dict view'",
    "is not supported in conditions",
    "knows only the digits 0 to 9",
    "fewer than 0 digits",
    "a complex number",
    "half of a character",
    "nested deeper than 500 levels",
];

/// Longest time of one evaluation, compiled without optimisation and on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(2);

/// Longest time of one evaluation by Python, of which the evaluators keep the clock.
const PYTHON_LIMIT: Duration = Duration::from_secs(20);

/// A line of `rules.py`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Request { request: Record },
    Rule { rule: String, expression: String, outcomes: Vec<Outcome> },
}

/// A line of `oracle.py`.
#[derive(Deserialize)]
struct Case {
    expression: String,
    wants: Wanted,
    request: Record,
    outcome: Outcome,
    /// True for a body that Python cannot read, and which has a beginning that can be read here.
    is_broken: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    Truth,
    Value,
}

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    name: String,
    #[serde(default)]
    is_broken: bool,
    headers: Vec<(String, String)>,
    /// Body in hexadecimal.
    body: Option<String>,
    key: Option<String>,
    topic: String,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
}

/// Outcome in Python.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Outcome {
    Truth {
        truth: bool,
    },
    /// A value, as Python writes it in JSON.
    Value {
        value: String,
    },
    /// The type of a value that JSON cannot hold.
    Other {
        #[serde(rename = "other")]
        _other: String,
    },
    /// The kind of an error: Python's name of its type, or the status of HTTP.
    Error {
        error: String,
        #[serde(rename = "message")]
        _message: String,
    },
}

/// Comparison of the two ways.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Same,
    /// Failure here alone, as documented.
    Narrower,
    /// The broken part of the body lies after the value that was read.
    Beside,
    /// Both fail, each with another kind of error.
    OtherKind,
    Different,
}

/// Evaluators of what is not compiled.
struct Python {
    runtime: Runtime,
    models: Models,
    evaluators: Evaluators,
}

impl Python {
    fn start() -> Self {
        let python = crate::config::environment("SIGNALBOX_TEST_PYTHON").expect("SIGNALBOX_TEST_PYTHON is not set");
        // A lost evaluator is replaced while no answer is waited for, too.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let template = config::Template { libraries: Vec::new(), exclude: Vec::new() };
        let models = config::Models { python: python.clone(), template, ..Default::default() };
        let metrics = Metrics::new().unwrap();
        let entered = runtime.enter();
        let models = Models::start(&models, &config::Registry::default(), &metrics).unwrap();
        let conditions = config::Conditions { timeout: PYTHON_LIMIT, ..Default::default() };
        let evaluators = Evaluators::start(&conditions, &models, &python, &metrics, &Readiness::default());
        drop(entered);
        let python = Self { runtime, models, evaluators };
        // The first start takes longer than an evaluation may.
        let first = python.answers("re.escape('a') == 'a'", Wanted::Truth, &[super::request("{}")]);
        assert!(matches!(first.as_deref(), Ok([Ok(Value::Bool(true))])), "{first:?}");
        python
    }

    /// Evaluates an expression on each of the requests, or gives the reason for which it is refused.
    fn answers(
        &self,
        source: &str,
        wanted: Wanted,
        requests: &[Arc<Request>],
    ) -> Result<Vec<Result<Value, ConditionError>>, ConditionProblem> {
        let mut builder = ConditionsBuilder::new();
        let index = match wanted {
            Wanted::Truth => builder.add(source)?.0,
            Wanted::Value => builder.add_expression(source)?.0,
        };
        let conditions = builder.build();
        let evaluate = |request: &Arc<Request>| {
            let asked = conditions.question().map(|question| self.evaluators.ask(question, request));
            let answers = asked.map(|asked| Arc::new(self.runtime.block_on(asked)));
            let evaluation = conditions.evaluation(request, answers);
            match wanted {
                Wanted::Truth => evaluation.holds(ConditionId(index)).map(Value::Bool),
                Wanted::Value => evaluation.value(ExpressionId(index)),
            }
        };
        Ok(requests.iter().map(evaluate).collect())
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        self.runtime.block_on(self.evaluators.shutdown());
        self.runtime.block_on(self.models.shutdown());
    }
}

#[test]
#[ignore = "needs SIGNALBOX_TEST_PYTHON"]
fn rules_agree_with_flask() {
    let (mut names, mut requests, mut rules) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines("rules.py", &[]) {
        match serde_json::from_str(&line).unwrap() {
            Line::Request { request } => {
                requests.push(request.made());
                names.push((request.name, request.is_broken));
            }
            Line::Rule { rule, expression, outcomes } => rules.push((rule, expression, outcomes)),
        }
    }
    assert!(rules.len() >= 150, "only {} rules", rules.len());
    let (python, mut report) = (Python::start(), Report::default());
    for (rule, expression, outcomes) in &rules {
        assert_eq!(outcomes.len(), requests.len(), "{rule}");
        match python.answers(expression, Wanted::Truth, &requests) {
            Err(problem) => report.refused(expression, &problem),
            Ok(ours) => {
                for (((name, is_broken), ours), outcome) in names.iter().zip(&ours).zip(outcomes) {
                    report.add(&format!("{rule}: {expression}\n    on {name}"), ours, outcome, *is_broken);
                }
            }
        }
    }
    report.finish(&format!("{} rules on {} requests", rules.len(), requests.len()));
}

/// `SIGNALBOX_ORACLE_SEED` and `SIGNALBOX_ORACLE_CASES` choose others; with `SIGNALBOX_TEST_LONG` there are ten times as
/// many.
#[test]
#[ignore = "needs SIGNALBOX_TEST_PYTHON"]
fn conditions_agree_with_flask() {
    let cases = if crate::config::environment("SIGNALBOX_TEST_LONG").is_some() { "30000" } else { "3000" };
    let setting = |name: &str, default: &str| crate::config::environment(name).unwrap_or_else(|| default.to_owned());
    let (seed, cases) = (setting("SIGNALBOX_ORACLE_SEED", "1"), setting("SIGNALBOX_ORACLE_CASES", cases));
    let (python, mut report) = (Python::start(), Report::default());
    for line in lines("oracle.py", &[&seed, &cases]) {
        let Case { expression, wants, request, outcome, is_broken } = serde_json::from_str(&line).unwrap();
        let is_compiled =
            ConditionsBuilder::new().check(&expression, ResultKind::Value).is_ok_and(|it| it.way == Way::Compiled);
        let begun = Instant::now();
        match python.answers(&expression, wants, &[request.made()]) {
            Err(problem) => report.refused(&expression, &problem),
            Ok(ours) => {
                let shown = String::from_utf8_lossy(&request.payload().unwrap_or_default()).into_owned();
                let limit = if is_compiled { LIMIT } else { PYTHON_LIMIT };
                assert!(begun.elapsed() < limit, "{:?}: {expression} on {shown}", begun.elapsed());
                report.add(
                    &format!("{expression}\n    on {:?} {shown}", request.headers),
                    &ours[0],
                    &outcome,
                    is_broken,
                );
            }
        }
    }
    report.finish(&format!("with SIGNALBOX_ORACLE_SEED={seed} SIGNALBOX_ORACLE_CASES={cases}"));
}

/// Runs a script of this folder, and gives its lines.
fn lines(script: &str, arguments: &[&str]) -> Vec<String> {
    let python = crate::config::environment("SIGNALBOX_TEST_PYTHON").expect("SIGNALBOX_TEST_PYTHON is not set");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/routing/condition/tests");
    let output = Command::new(python)
        .args(["-B", script])
        .args(arguments)
        .current_dir(folder)
        // A set has the same order each time.
        .env("PYTHONHASHSEED", "0")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{script} failed");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

impl Record {
    fn payload(&self) -> Option<Vec<u8>> {
        let digits = self.body.as_ref()?.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        Some(digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect())
    }

    fn made(&self) -> Arc<Request> {
        Arc::new(Request {
            source: Source { topic: self.topic.as_str().into(), partition: self.partition, offset: self.offset },
            timestamp: self.timestamp,
            key: self.key.clone().map(Bytes::from),
            payload: self.payload().map(Bytes::from),
            headers: Headers::from_pairs(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))),
            parked: None,
        })
    }
}

/// Counts the verdicts, and keeps the cases that need a look.
#[derive(Default)]
struct Report {
    verdicts: BTreeMap<Verdict, usize>,
    /// Cases in which both give a value, and no error.
    answered: usize,
    differences: Vec<String>,
    refused: Vec<String>,
}

impl Report {
    fn refused(&mut self, expression: &str, problem: &ConditionProblem) {
        assert!(!problem.message.contains("defect"), "{problem}: {expression}");
        self.refused.push(format!("{problem}\n    {expression}"));
    }

    fn add(&mut self, case: &str, ours: &Result<Value, ConditionError>, outcome: &Outcome, is_broken: bool) {
        let verdict = verdict(ours, outcome, is_broken);
        if matches!(verdict, Verdict::OtherKind | Verdict::Different) {
            self.differences.push(format!("{verdict:?}: {case}\n    here {ours:?}, in Python {outcome:?}"));
        }
        if verdict == Verdict::Narrower {
            println!("narrower: {case}\n    {ours:?}, in Python {outcome:?}");
        }
        self.answered += usize::from(verdict == Verdict::Same && ours.is_ok());
        *self.verdicts.entry(verdict).or_default() += 1;
    }

    /// Fails where the ways differ. The shortest differences show best what is wrong.
    fn finish(mut self, what: &str) {
        println!("{what}: {:?}, {} answered, {} refused", self.verdicts, self.answered, self.refused.len());
        for refused in self.refused.iter().take(15) {
            println!("refused: {refused}");
        }
        self.differences.sort_by_key(String::len);
        let shown = self.differences.len().min(25);
        assert!(
            self.differences.is_empty(),
            "{what}, {} differ, the shortest first:\n{}",
            self.differences.len(),
            self.differences[..shown].join("\n")
        );
        assert!(self.refused.is_empty(), "{} are refused", self.refused.len());
        let count = |verdict| self.verdicts.get(&verdict).copied().unwrap_or_default();
        let all: usize = self.verdicts.values().sum();
        assert!(count(Verdict::Narrower) * 50 < all, "too many fail here and not in Python");
        assert!(self.answered * 4 > all, "too few give an answer at all");
    }
}

fn verdict(ours: &Result<Value, ConditionError>, outcome: &Outcome, is_broken: bool) -> Verdict {
    match (ours, outcome) {
        (Ok(Value::Bool(ours)), Outcome::Truth { truth }) if ours == truth => Verdict::Same,
        (Ok(ours), Outcome::Value { value }) if is_same(ours, &path::read_whole(value.as_bytes()).unwrap()) => {
            Verdict::Same
        }
        // Collections that JSON does not have may be written as lists here.
        (Ok(Value::Set(_) | Value::View(..) | Value::Dict(_) | Value::List(_)), Outcome::Other { .. }) => Verdict::Same,
        (Err(ConditionError::Failed(said)), Outcome::Other { .. }) if said.contains("TypeError") => Verdict::Same,
        (Err(ConditionError::Failed(said)), Outcome::Error { error, .. }) if said.contains(error.as_str()) => {
            Verdict::Same
        }
        (_, Outcome::Error { .. }) if is_broken => Verdict::Beside,
        (Err(error), _) if NARROWER.iter().any(|known| error.to_string().contains(known)) => Verdict::Narrower,
        (Err(ConditionError::Failed(_)), Outcome::Error { .. }) => Verdict::OtherKind,
        _ => Verdict::Different,
    }
}

/// Tells whether two values are one in JSON, to the last bit.
fn is_same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::None, Value::None) | (Value::Beyond, Value::Beyond) => true,
        (Value::Bool(ours), Value::Bool(theirs)) => ours == theirs,
        (Value::Int(ours), Value::Int(theirs)) => ours == theirs,
        (Value::Float(ours), Value::Float(theirs)) => {
            ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan()
        }
        (Value::Str(ours), Value::Str(theirs)) => ours == theirs,
        (Value::List(ours) | Value::Tuple(ours), Value::List(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs.iter()).all(|(ours, theirs)| is_same(ours, theirs))
        }
        (Value::Dict(ours), Value::Dict(theirs)) => {
            let (ours, theirs) = (ours.entries(), theirs.entries());
            ours.len() == theirs.len()
                && ours
                    .iter()
                    .zip(theirs)
                    .all(|(ours, theirs)| is_same(&ours.0, &theirs.0) && is_same(&ours.1, &theirs.1))
        }
        _ => false,
    }
}
