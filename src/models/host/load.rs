//! Loads a model into a host: the order, the report, and the faults that a load can end in.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::child::{Child, Lost};
use super::output_log::OutputLog;
use super::protocol::{HostRequest, LoadAnswer};
use super::template::Template;
use crate::invocation::body::Signature;
use crate::invocation::row_independence::Finding;
use crate::invocation::{LARGEST_REPLY, in_words, meaning_of};
use crate::message::Fault;
use crate::models::faults::cannot_load;

/// Number of differences that one message names; the others are counted.
const MAX_SHOWN_DIFFERENCES: usize = 8;

/// Bytes of an exception's text that a message repeats; the rest is cut.
const MAX_EXCEPTION_BYTES: usize = 1000;

/// An order to load one version of a model into a host.
#[derive(Debug, Clone)]
pub(crate) struct HostSpec {
    /// The model's name in messages, such as `sentiment/3`.
    pub(crate) shown: Arc<str>,
    /// The number of calls at once, each in a thread of its own.
    pub(crate) threads: usize,
    /// The log of what the model prints.
    pub(crate) output: Arc<OutputLog>,
    /// The directory of the model's files.
    pub(crate) directory: PathBuf,
    /// The moment at which the host must be ready.
    pub(crate) deadline: Instant,
    /// The time to load in all; for messages.
    pub(crate) load_timeout: Duration,
    /// The results of an earlier warm-up (example call, requirements), which a load that a request waits for takes as
    /// read.
    pub(crate) warm_up: Option<WarmUpResult>,
}

/// The outcome of a successful load.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LoadReport {
    /// The time that each phase took.
    pub(crate) phases: Phases,
    /// The results of the warm-up.
    pub(crate) warm_up: WarmUpResult,
    /// The columns of the model's signature, if it has one.
    pub(crate) signature: Option<Arc<Signature>>,
}

/// The results of a warm-up: what a full load finds out about a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct WarmUpResult {
    /// The outcome of the call with the model's own example, if it has one.
    pub(crate) example: Option<ExampleResult>,
    /// The requirements that the interpreter does not meet, such as `scikit-learn==1.2.0 is required, 1.9.1 is
    /// installed`.
    pub(crate) unmet: Vec<String>,
    /// The finding whether the model answers each row by itself, drawn from what the model is made of.
    pub(crate) finding: Finding,
}

/// The time that each phase of a load took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Phases {
    /// Forking the process.
    pub(crate) fork: Duration,
    /// Loading the model.
    pub(crate) load: Duration,
    /// Calling the model with its own example; zero where an earlier warm-up was taken as read.
    pub(crate) warm: Duration,
}

/// The outcome of a call with the model's own example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExampleResult {
    /// The model gave a prediction.
    Answered,
    /// The model failed with this message.
    Failed(String),
}

/// Has the child load the model and answer the model's own example.
pub(super) async fn load(child: &mut Child, template: &Template, spec: &HostSpec) -> Result<LoadReport, Fault> {
    let Some(directory) = spec.directory.to_str() else {
        return Err(spec.fault(format!("{} is no UTF-8", spec.directory.display())));
    };
    let skip_warm_up = spec.warm_up.is_some();
    let request = HostRequest::Load { directory, max_answer_bytes: LARGEST_REPLY, skip_warm_up, threads: spec.threads };
    let answer = match timeout_at(spec.deadline, child.ask(&request, b"")).await.unwrap_or(Err(Lost::TimedOut)) {
        Ok(answer) => answer,
        Err(Lost::TimedOut) => {
            let output = child.output();
            let last = output.last().map_or_else(String::new, |line| format!("; the last it printed: {line}"));
            return Err(spec.fault(not_ready(spec.load_timeout, &last)));
        }
        Err(lost) => return Err(spec.fault(lost.with_reason())),
    };
    match serde_json::from_slice(&answer.head) {
        Ok(LoadAnswer::Loaded { load, warm, example, unmet, doubt, declared, imported, signature }) => {
            template.preload(&imported).await;
            let phases = Phases { load: seconds(load), warm: seconds(warm), ..Phases::default() };
            let finding = match doubt {
                None => Finding::Independent,
                Some(_) if declared => Finding::Declared,
                Some(why) => Finding::Doubtful(why.into()),
            };
            let shown = || WarmUpResult { example: example.map(ExampleResult::of), unmet, finding };
            let signature = signature.map(|(floats, all)| Arc::new(Signature::new(floats, all)));
            Ok(LoadReport { phases, warm_up: spec.warm_up.clone().unwrap_or_else(shown), signature })
        }
        Ok(LoadAnswer::Failed { exception, traceback, unmet }) => {
            tracing::debug!(model = &*spec.shown, traceback, "a model raised while it was loaded");
            Err(spec.fault(format!("{}{}", truncated(&exception), differences(template.python(), &unmet))))
        }
        Err(error) => Err(spec.fault(Lost::Garbled(error.to_string()))),
    }
}

impl ExampleResult {
    fn of((status, body): (u16, String)) -> Self {
        if (200..300).contains(&status) {
            return Self::Answered;
        }
        Self::Failed(meaning_of(status, None, body.as_bytes()).fault.message)
    }
}

impl HostSpec {
    pub(super) fn fault(&self, why: impl Display) -> Fault {
        cannot_load(&self.shown, why)
    }
}

/// Says that a process was not ready in time, and its `last` words, which are empty or begin with a semicolon.
pub(super) fn not_ready(limit: Duration, last: &str) -> String {
    format!("it was not ready within models.load_timeout ({}){last}", in_words(limit))
}

/// Describes the unmet requirements that may explain a failed load, with a remedy.
fn differences(python: &str, unmet: &[String]) -> String {
    if unmet.is_empty() {
        return String::new();
    }
    let more = match unmet.len().saturating_sub(MAX_SHOWN_DIFFERENCES) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let shown = unmet[..unmet.len().min(MAX_SHOWN_DIFFERENCES)].join("; ");
    format!(
        ". {python} is not what the model requires: {shown}{more}. Install that, or give the route an interpreter that has \
         it (`python:`), or have MLflow make one (`runtime: mlflow_serve`)"
    )
}

/// Cuts an exception's text, which may repeat anything that the model holds.
fn truncated(exception: &str) -> String {
    match exception.floor_char_boundary(MAX_EXCEPTION_BYTES) {
        end if end < exception.len() => format!("{}…", &exception[..end]),
        _ => exception.to_owned(),
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
