//! A host: the process that holds one version of a model, and answers calls of it, one at a time at each of its threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::child::{Child, Exit, Lost, serialized};
use super::frame::Frame;
use super::load::{HostSpec, LoadReport, Phases, load};
use super::protocol::{HostRequest, InvokeAnswer};
use super::template::{Task, Template, TemplateError};
use super::threads::{AskError, HostThreads, Late};
use crate::invocation::{
    Answers, Call, ExceptionLog, LARGEST_REPLY, Meaning, Several, in_words, meaning_of, too_large,
};
use crate::message::{Code, Fault, Reply, Stage};

/// A process that holds a loaded model. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct ModelHost {
    child: Child,
    shown: Arc<str>,
    exceptions: ExceptionLog,
    threads: HostThreads,
    /// A call in it ran out of time, and so it was killed.
    timed_out: AtomicBool,
    /// It is not to be called again.
    spent: AtomicBool,
}

/// Why a call got no prediction.
#[derive(Debug)]
pub(crate) struct InvokeFailure {
    /// What the caller is told.
    pub(crate) fault: Fault,
    /// Whether, and why, the host is gone.
    pub(crate) lost: Option<Lost>,
    /// What is left of the call, where it has run out of time beside others.
    pub(crate) late: Option<Late>,
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
        child.log_output_to(Arc::clone(&spec.output));
        let loaded = async {
            let report = load(&mut child, template, spec).await?;
            let threads = HostThreads::start(&mut child, spec.threads, spec.deadline).await;
            Ok((
                report,
                threads.map_err(|lost| spec.fault(&format!("its threads do not start: {}", lost.with_reason())))?,
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
    /// Of `several` requests, those that the model refuses are left out of the answer, where it was before_kill out which they are,
    /// and the first of them are told at once.
    pub(crate) async fn invoke(&self, call: &Call<'_>, several: Several<'_>) -> Result<Answers, InvokeFailure> {
        let patience = several.patience.as_secs_f64();
        let request = HostRequest::Invoke { content_type: call.content_type, rows: several.rows, patience };
        let request = serialized(&request).map_err(|lost| self.lost_failure(lost, call.timeout))?;
        if self.threads.are_idle() {
            self.child.clear_output();
        }
        let answer = match self.threads.ask(request, call.payload.clone(), call.timeout).await {
            Ok(answer) => answer,
            Err(AskError::Lost(lost)) => return Err(self.lost_failure(lost, call.timeout)),
            Err(AskError::Late(late)) if self.threads.are_several() => {
                let message = format!("{} did not answer within {}", self.shown, in_words(call.timeout));
                let fault = Fault::passing(Code::DeadlineExceeded, Stage::Invoke, message);
                return Err(InvokeFailure { fault, lost: None, late: Some(late) });
            }
            Err(AskError::Late(late)) => {
                self.give_up();
                drop(late);
                return Err(self.lost_failure(Lost::TimedOut, call.timeout));
            }
            Err(AskError::AllBusy) => {
                let message = format!("{} is at other calls", self.shown);
                return Err(Fault::passing(Code::TemporarilyUnavailable, Stage::Invoke, message).into());
            }
        };
        self.decode_answers(answer, several.rows.len())
    }

    /// Waits until the thread of a late call is free again, or the process has ended. It is killed when it gives no sign of
    /// life, for then no other call in it gets any further.
    pub(crate) async fn wait_out(&self, late: Late) {
        let before_kill = || {
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
            () = self.threads.wait_until_unresponsive(before_kill) => {}
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

    fn decode_answers(&self, answer: Frame, requests: usize) -> Result<Answers, InvokeFailure> {
        let garbled = |why: String| {
            self.child.kill();
            self.lost_failure(Lost::Garbled(why), Duration::ZERO)
        };
        let InvokeAnswer { status, content_type, too_large: is_too_large, exhausted, refused, individual_answers } =
            serde_json::from_slice(&answer.head).map_err(|error| garbled(error.to_string()))?;
        let are_some = refused.is_sorted_by(|one, next| one < next)
            && refused.last().is_none_or(|last| *last < requests && refused.len() < requests);
        if !are_some {
            return Err(garbled(format!("of {requests} requests it refuses {refused:?}")));
        }
        let mut body = answer.body;
        let length = individual_answers.iter().fold(0_usize, |sum, (_, _, length)| sum.saturating_add(*length));
        if individual_answers.len() > refused.len() || length > body.len() {
            return Err(garbled(format!(
                "it tells {} of {} refused, in {length} bytes",
                individual_answers.len(),
                refused.len()
            )));
        }
        let mut rest = body.split_off(body.len() - length);
        let told = individual_answers.into_iter().map(|(status, content_type, length)| {
            let body = rest.split_to(length);
            self.decode_reply(status, content_type, body)
        });
        let told = told.collect();
        if is_too_large {
            return Err(too_large(&self.shown, LARGEST_REPLY).into());
        }
        match self.decode_reply(status, content_type, body) {
            Ok(reply) => Ok(Answers { reply, refused, told }),
            Err(fault) => Err(if exhausted { self.replace_exhausted(fault) } else { fault }.into()),
        }
    }

    /// What the scoring server says. What a model raised goes to the log.
    fn decode_reply(&self, status: u16, content_type: String, body: Bytes) -> Result<Reply, Fault> {
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
    fn replace_exhausted(&self, fault: Fault) -> Fault {
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
    fn lost_failure(&self, lost: Lost, limit: Duration) -> InvokeFailure {
        tracing::warn!(model = &*self.shown, pid = self.pid(), why = lost.with_reason(), "a model's process is lost");
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
        InvokeFailure { fault, lost: Some(lost), late: None }
    }
}

impl From<Fault> for InvokeFailure {
    fn from(fault: Fault) -> Self {
        Self { fault, lost: None, late: None }
    }
}
