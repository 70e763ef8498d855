//! A host: the process that holds one version of a model, and answers calls of it, one at a time at each of its threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::child::{Child, Exit, Lost, serialized};
use super::frame::Answer;
use super::output_log::OutputLog;
use super::template::{Task, Template, TemplateError};
use super::threads::{Late, NoAnswer, Threads};
use crate::invocation::body::Signature;
use crate::invocation::trust::Finding;
use crate::invocation::{
    Answers, Call, ExceptionLog, LARGEST_REPLY, Meaning, Several, in_words, meaning_of, too_large,
};
use crate::message::{Code, Fault, Reply, Stage};

/// More differences than these are not shown in one message.
const SHOWN_DIFFERENCES: usize = 8;

/// Longer exceptions are cut.
const LONGEST_EXCEPTION: usize = 1000;

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

/// A process that holds a loaded model. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct ModelHost {
    child: Child,
    shown: Arc<str>,
    exceptions: ExceptionLog,
    threads: Threads,
    /// A call in it ran out of time, and so it was killed.
    timed_out: AtomicBool,
    /// It is not to be called again.
    spent: AtomicBool,
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
    /// Where the interpreter is not what the model requires, such as `scikit-learn==1.2.0 is required, 1.9.1 is
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

/// Why a call got no prediction.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the caller is told.
    pub(crate) fault: Fault,
    /// Whether, and why, the host is gone.
    pub(crate) lost: Option<Lost>,
    /// What is left of the call, where it has run out of time beside others.
    pub(crate) late: Option<Late>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Question<'a> {
    Load {
        directory: &'a str,
        largest_answer: usize,
        is_proven: bool,
        threads: usize,
    },
    Invoke {
        content_type: &'a str,
        /// The rows of each request, where there are several.
        rows: &'a [usize],
        /// Seconds for finding out who of them is refused.
        patience: f64,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Loaded {
    Loaded {
        load: f64,
        warm: f64,
        /// The status and the body of the answer to the model's own example.
        example: Option<(u16, String)>,
        unmet: Vec<String>,
        /// Why it may look at other rows; none when it cannot.
        #[serde(default)]
        doubt: Option<String>,
        /// Whether its metadata says that it does not.
        #[serde(default)]
        declared: bool,
        imported: Vec<String>,
        /// The columns that its signature makes floats of, and whether it makes them of all it is given.
        signature: Option<(Vec<String>, bool)>,
    },
    Failed {
        exception: String,
        traceback: String,
        unmet: Vec<String>,
    },
}

#[derive(Deserialize)]
struct Invoked {
    status: u16,
    content_type: String,
    #[serde(default)]
    too_large: bool,
    /// Memory was refused to the model, which may hold on to what it has.
    #[serde(default)]
    exhausted: bool,
    /// The requests that are left out of the answer.
    #[serde(default)]
    refused: Vec<usize>,
    /// The status, the content type and the length of what the first of those are told, after the answer.
    #[serde(default)]
    told: Vec<(u16, String, usize)>,
}

impl ModelHost {
    /// Forks a process, and has it load the model and answer the model's own example. When that fails, the process has
    /// gone before this returns, and with it the memory it took.
    pub(crate) async fn start(template: &Template, spec: &HostSpec) -> Result<(Self, LoadReport), Fault> {
        let begun = Instant::now();
        let forked = timeout_at(spec.deadline, async {
            template.warm().await?;
            let warm = Instant::now();
            Ok((template.fork(&Task::Model).await?, warm))
        });
        let (mut child, warm) = match forked.await {
            Ok(forked) => forked.map_err(|error: TemplateError| error.fault(&spec.shown))?,
            Err(_) => return Err(spec.not_forked(template.python())),
        };
        let (template_took, fork) = (warm - begun, warm.elapsed());
        child.prints_to(Arc::clone(&spec.output));
        let loaded = async {
            let report = load(&mut child, template, spec).await?;
            let threads = Threads::start(&mut child, spec.threads, spec.deadline).await;
            Ok((
                report,
                threads.map_err(|lost| spec.fault(&format!("its threads do not start: {}", with_reason(&lost))))?,
            ))
        };
        let (mut report, threads) = match loaded.await {
            Ok(loaded) => loaded,
            Err(fault) => {
                child.end().await;
                return Err(fault);
            }
        };
        report.phases = Phases { template: template_took, fork, ..report.phases };
        let host = Self {
            child,
            shown: Arc::clone(&spec.shown),
            exceptions: ExceptionLog::new(Arc::clone(&spec.shown)),
            threads,
            timed_out: AtomicBool::new(false),
            spent: AtomicBool::new(false),
        };
        Ok((host, report))
    }

    /// Calls the model in one of its threads that are free, and waits for the answer. Nothing stops a model that computes
    /// but the end of its process: that is what a call comes to whose future is dropped, and one that is not answered in
    /// time where there is one thread. Where there are several, it goes on.
    ///
    /// Of `several` requests, those that the model refuses are left out of the answer, where it was found out which they are,
    /// and the first of them are told at once.
    pub(crate) async fn invoke(&self, call: &Call<'_>, several: Several<'_>) -> Result<Answers, Failure> {
        let patience = several.patience.as_secs_f64();
        let question = Question::Invoke { content_type: call.content_type, rows: several.rows, patience };
        let question = serialized(&question).map_err(|lost| self.lost(lost, call.timeout))?;
        if self.threads.are_free() {
            self.child.forget_output();
        }
        let answer = match self.threads.ask(question, call.payload.clone(), call.timeout).await {
            Ok(answer) => answer,
            Err(NoAnswer::Lost(lost)) => return Err(self.lost(lost, call.timeout)),
            Err(NoAnswer::Late(late)) if self.threads.are_several() => {
                let message = format!("{} did not answer within {}", self.shown, in_words(call.timeout));
                let fault = Fault::passing(Code::DeadlineExceeded, Stage::Invoke, message);
                return Err(Failure { fault, lost: None, late: Some(late) });
            }
            Err(NoAnswer::Late(late)) => {
                self.give_up();
                drop(late);
                return Err(self.lost(Lost::TimedOut, call.timeout));
            }
            Err(NoAnswer::NoneFree) => {
                let message = format!("{} is at other calls", self.shown);
                return Err(Fault::passing(Code::TemporarilyUnavailable, Stage::Invoke, message).into());
            }
        };
        self.answers(answer, several.rows.len())
    }

    /// Waits until the thread of a late call is free again, or the process has ended. It is killed when it gives no sign of
    /// life, for then no other call in it gets any further.
    pub(crate) async fn wait_out(&self, late: Late) {
        let found = || {
            // Before it is killed, by which others find it gone.
            self.timed_out.store(true, Ordering::Release);
            let pid = self.pid();
            tracing::warn!(
                model = &*self.shown,
                pid,
                "a model's process is killed, since none of its threads gets any further"
            );
        };
        tokio::select! {
            () = self.threads.wait_out(late) => {}
            () = self.threads.lifeless(found) => {}
        }
    }

    /// Has it killed, since a call in it has run out of time and there is no other.
    pub(crate) fn give_up(&self) {
        self.timed_out.store(true, Ordering::Release);
        self.kill();
    }

    /// Whether it was killed since a call in it had run out of time.
    pub(crate) fn has_timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Acquire)
    }

    /// Whether it is not to be called again, though it still runs.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Acquire)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Has its process killed, without waiting for that.
    pub(crate) fn kill(&self) {
        self.child.kill();
    }

    /// Whether its process has ended, or is being killed.
    pub(crate) fn is_gone(&self) -> bool {
        self.child.is_gone()
    }

    /// Waits until its process has been reaped: only then is its memory free.
    pub(crate) fn gone(&self) -> impl Future<Output = Exit> + Send + use<> {
        self.child.gone()
    }

    #[cfg(test)]
    pub(super) fn child_output(&self) -> std::sync::MutexGuard<'_, super::output::Output> {
        self.child.output()
    }

    fn answers(&self, answer: Answer, requests: usize) -> Result<Answers, Failure> {
        let garbled = |why: String| {
            self.child.kill();
            self.lost(Lost::Garbled(why), Duration::ZERO)
        };
        let Invoked { status, content_type, too_large: is_too_large, exhausted, refused, told } =
            serde_json::from_slice(&answer.head).map_err(|error| garbled(error.to_string()))?;
        let are_some = refused.is_sorted_by(|one, next| one < next)
            && refused.last().is_none_or(|last| *last < requests && refused.len() < requests);
        if !are_some {
            return Err(garbled(format!("of {requests} requests it refuses {refused:?}")));
        }
        let mut body = answer.body;
        let length = told.iter().fold(0_usize, |sum, (_, _, length)| sum.saturating_add(*length));
        if told.len() > refused.len() || length > body.len() {
            return Err(garbled(format!("it tells {} of {} refused, in {length} bytes", told.len(), refused.len())));
        }
        let mut rest = body.split_off(body.len() - length);
        let told = told.into_iter().map(|(status, content_type, length)| {
            let body = rest.split_to(length);
            self.reply(status, content_type, body)
        });
        let told = told.collect();
        if is_too_large {
            return Err(too_large(&self.shown, LARGEST_REPLY).into());
        }
        match self.reply(status, content_type, body) {
            Ok(reply) => Ok(Answers { reply, refused, told }),
            Err(fault) => Err(if exhausted { self.exhausted(fault) } else { fault }.into()),
        }
    }

    /// What the scoring server says. What a model raised goes to the log.
    fn reply(&self, status: u16, content_type: String, body: Bytes) -> Result<Reply, Fault> {
        if (200..300).contains(&status) {
            return Ok(Reply { content_type, body });
        }
        let Meaning { fault, traceback } = meaning_of(status, None, &body);
        if let Some(traceback) = &traceback {
            self.exceptions.log(&fault, traceback);
        }
        Err(fault)
    }

    /// It answered that it has no memory left, and is not asked again; other calls in it may come to their ends. Another
    /// host may do better.
    fn exhausted(&self, fault: Fault) -> Fault {
        self.spent.store(true, Ordering::Release);
        if !self.threads.are_several() {
            self.child.kill();
        }
        let message =
            format!("{}: it may take no more memory (models.memory_limit), so its process is replaced", fault.message);
        tracing::warn!(model = &*self.shown, pid = self.pid(), why = message, "a model's process is lost");
        Fault { message, retryable: true, ..fault }
    }

    /// It is gone; an answer was waited for this long.
    fn lost(&self, lost: Lost, limit: Duration) -> Failure {
        tracing::warn!(model = &*self.shown, pid = self.pid(), why = with_reason(&lost), "a model's process is lost");
        let fault = match &lost {
            Lost::TimedOut => {
                let message = format!(
                    "{} did not answer within {}; its process was killed, since nothing else stops it",
                    self.shown,
                    in_words(limit)
                );
                Fault::passing(Code::DeadlineExceeded, Stage::Invoke, message)
            }
            Lost::Ended { .. } | Lost::Garbled(_) => {
                let message = format!("{} did not answer: {lost}", self.shown);
                Fault::passing(Code::ModelError, Stage::Invoke, message)
            }
        };
        Failure { fault, lost: Some(lost), late: None }
    }
}

/// Has it load the model, and answer the model's own example.
async fn load(child: &mut Child, template: &Template, spec: &HostSpec) -> Result<LoadReport, Fault> {
    let Some(directory) = spec.directory.to_str() else {
        return Err(spec.fault(&format!("{} is no UTF-8", spec.directory.display())));
    };
    let is_proven = spec.proof.is_some();
    let question = Question::Load { directory, largest_answer: LARGEST_REPLY, is_proven, threads: spec.threads };
    let answer = match child.ask_until(&question, b"", spec.deadline).await {
        Ok(answer) => answer,
        Err(Lost::TimedOut) => return Err(spec.too_slow(child)),
        Err(lost) => return Err(spec.fault(&with_reason(&lost))),
    };
    match serde_json::from_slice(&answer.head) {
        Ok(Loaded::Loaded { load, warm, example, unmet, doubt, declared, imported, signature }) => {
            template.learn(&imported).await;
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
        Ok(Loaded::Failed { exception, traceback, unmet }) => {
            tracing::debug!(model = &*spec.shown, traceback, "a model raised while it was loaded");
            Err(spec.fault(&format!("{}{}", shortened(&exception), differences(template.python(), &unmet))))
        }
        Err(error) => Err(spec.fault(&Lost::Garbled(error.to_string()).to_string())),
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { fault, lost: None, late: None }
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
    fn fault(&self, why: &str) -> Fault {
        let message = format!("{} cannot be loaded: {why}", self.shown);
        Fault::passing(Code::TemporarilyUnavailable, Stage::Load, message)
    }

    fn not_forked(&self, python: &str) -> Fault {
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
    let more = match unmet.len().saturating_sub(SHOWN_DIFFERENCES) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let shown = unmet[..unmet.len().min(SHOWN_DIFFERENCES)].join("; ");
    format!(
        ". {python} is not what the model requires: {shown}{more}. Install that, or give the route an interpreter that has \
         it (`python:`), or have MLflow make one (`runtime: mlflow_serve`)"
    )
}

/// Why it is lost, with what it printed about that.
fn with_reason(lost: &Lost) -> String {
    match lost {
        Lost::Ended { reason: Some(reason), .. } => format!("{lost}: {reason}"),
        _ => lost.to_string(),
    }
}

/// An exception may repeat whatever the model holds.
fn shortened(exception: &str) -> String {
    match exception.floor_char_boundary(LONGEST_EXCEPTION) {
        end if end < exception.len() => format!("{}…", &exception[..end]),
        _ => exception.to_owned(),
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
