//! The load of a model into a host: its order, its report, and the faults that it can end in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::child::{Child, Lost};
use super::output_log::OutputLog;
use super::protocol::{HostRequest, LoadAnswer};
use super::template::Template;
use crate::invocation::body::Signature;
use crate::invocation::trust::Finding;
use crate::invocation::{LARGEST_REPLY, in_words, meaning_of};
use crate::message::{Code, Fault, Stage};

/// More differences than these are not shown in one message.
const MAX_SHOWN_DIFFERENCES: usize = 8;

/// Longer exceptions are cut.
const MAX_EXCEPTION_BYTES: usize = 1000;

/// What to load.
#[derive(Debug, Clone)]
pub(crate) struct HostSpec {
    /// What messages call it, such as `sentiment/3`.
    pub(crate) shown: Arc<str>,
    /// How many calls it answers at once, each in a thread of its own.
    pub(crate) threads: usize,
    /// Where what it prints goes.
    pub(crate) output: Arc<OutputLog>,
    /// Where its files are.
    pub(crate) directory: PathBuf,
    /// When it must be ready.
    pub(crate) deadline: Instant,
    /// How long that is in all; for messages.
    pub(crate) load_timeout: Duration,
    /// What an earlier load found about the model's example and requirements, to be taken as read: a request waits.
    pub(crate) proof: Option<Proof>,
}

/// How a load went.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LoadReport {
    /// What took how long.
    pub(crate) phases: Phases,
    /// What the model showed of itself.
    pub(crate) proof: Proof,
    /// What it says of its input, if anything.
    pub(crate) signature: Option<Arc<Signature>>,
}

/// What a model showed of itself when it was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Proof {
    /// What came of the model's own example, if it has one.
    pub(crate) example: Option<Example>,
    /// Where the interpreter is not what the model requires, such as `scikit-preload==1.2.0 is required, 1.9.1 is
    /// installed`.
    pub(crate) unmet: Vec<String>,
    /// Whether it answers each row by itself, by what it is made of.
    pub(crate) finding: Finding,
}

/// What took how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Phases {
    /// Waiting for the template to have imported everything: nothing, unless it has just been started.
    pub(crate) template: Duration,
    /// Having a process.
    pub(crate) fork: Duration,
    /// Loading the model.
    pub(crate) load: Duration,
    /// Calling it with its own example; nothing where that was proven before.
    pub(crate) warm: Duration,
}

/// What came of a model's own example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Example {
    /// A prediction.
    Answered,
    /// An error.
    Failed(String),
}

/// Has it load the model, and answer the model's own example.
pub(super) async fn load(child: &mut Child, template: &Template, spec: &HostSpec) -> Result<LoadReport, Fault> {
    let Some(directory) = spec.directory.to_str() else {
        return Err(spec.fault(&format!("{} is no UTF-8", spec.directory.display())));
    };
    let skip_warm_up = spec.proof.is_some();
    let request = HostRequest::Load { directory, max_answer_bytes: LARGEST_REPLY, skip_warm_up, threads: spec.threads };
    let answer = match child.ask_until(&request, b"", spec.deadline).await {
        Ok(answer) => answer,
        Err(Lost::TimedOut) => return Err(spec.too_slow(child)),
        Err(lost) => return Err(spec.fault(&lost.with_reason())),
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
            let shown = || Proof { example: example.map(Example::of), unmet, finding };
            let signature = signature.map(|(floats, all)| Arc::new(Signature::new(floats, all)));
            Ok(LoadReport { phases, proof: spec.proof.clone().unwrap_or_else(shown), signature })
        }
        Ok(LoadAnswer::Failed { exception, traceback, unmet }) => {
            tracing::debug!(model = &*spec.shown, traceback, "a model raised while it was loaded");
            Err(spec.fault(&format!("{}{}", truncated(&exception), differences(template.python(), &unmet))))
        }
        Err(error) => Err(spec.fault(&Lost::Garbled(error.to_string()).to_string())),
    }
}

impl Example {
    fn of((status, body): (u16, String)) -> Self {
        if (200..300).contains(&status) {
            return Self::Answered;
        }
        Self::Failed(meaning_of(status, None, body.as_bytes()).fault.message)
    }
}

impl HostSpec {
    pub(super) fn fault(&self, why: &str) -> Fault {
        let message = format!("{} cannot be loaded: {why}", self.shown);
        Fault::passing(Code::TemporarilyUnavailable, Stage::Load, message)
    }

    pub(super) fn not_forked(&self, python: &str) -> Fault {
        self.fault(&format!(
            "{python} (models.python, or the route's `python`) was not ready to fork within models.load_timeout ({})",
            in_words(self.load_timeout)
        ))
    }

    fn too_slow(&self, child: &Child) -> Fault {
        let output = child.output();
        let last = output.last().map_or_else(String::new, |line| format!("; the last it printed: {line}"));
        self.fault(&format!("it was not ready within models.load_timeout ({}){last}", in_words(self.load_timeout)))
    }
}

/// What may be behind a failure to load, and what to do about it.
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

/// An exception may repeat whatever the model holds.
fn truncated(exception: &str) -> String {
    match exception.floor_char_boundary(MAX_EXCEPTION_BYTES) {
        end if end < exception.len() => format!("{}…", &exception[..end]),
        _ => exception.to_owned(),
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
