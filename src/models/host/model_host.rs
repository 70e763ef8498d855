//! Calls a model in its host: the process that holds one version of a model, and answers one call at a time on each of
//! its threads.

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

/// A process that holds a loaded model. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct ModelHost {
    child: Child,
    shown: Arc<str>,
    exceptions: ExceptionLog,
    threads: HostThreads,
    /// Tells whether the process was killed because a call ran out of time.
    timed_out: AtomicBool,
    /// Tells whether the process must not be called again.
    spent: AtomicBool,
}

/// The reason why a call got no prediction.
#[derive(Debug)]
pub(crate) struct InvokeFailure {
    /// The fault that the caller is told.
    pub(crate) fault: Fault,
    /// The reason why the host is gone, if it is.
    pub(crate) lost: Option<Lost>,
    /// The rest of a call that ran out of time while its host goes on.
    pub(crate) late: Option<Late>,
}

impl ModelHost {
    /// Forks a process, and has it load the model and answer the model's own example. A failed process has ended before
    /// this returns, so that its memory is free.
    pub(crate) async fn start(template: &Template, spec: &HostSpec) -> Result<(Self, LoadReport), Fault> {
        let forked = timeout_at(spec.deadline, async {
            template.warm().await?;
            let warm = Instant::now();
            Ok::<_, TemplateError>((template.fork(&Task::Model).await?, warm))
        });
        let (mut child, warm) = match forked.await {
            Ok(forked) => forked.map_err(|error| spec.fault(error))?,
            Err(_) => {
                return Err(spec.fault(format!(
                    "{} (models.python, or the route's `python`) was not ready to fork within models.load_timeout ({})",
                    template.python(),
                    in_words(spec.load_timeout)
                )));
            }
        };
        let fork = warm.elapsed();
        child.log_output_to(Arc::clone(&spec.output));
        let loaded = async {
            let report = load(&mut child, template, spec).await?;
            let threads = HostThreads::start(&mut child, spec.threads, spec.deadline).await;
            Ok((
                report,
                threads.map_err(|lost| spec.fault(format!("its threads do not start: {}", lost.with_reason())))?,
            ))
        };
        let (mut report, threads) = match loaded.await {
            Ok(loaded) => loaded,
            Err(fault) => {
                // The process has ended before its failure is reported, so that its memory is free by then.
                child.end().await;
                return Err(fault);
            }
        };
        report.phases = Phases { fork, ..report.phases };
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

    /// Calls the model on an idle thread, and waits for the answer. A model that computes can be stopped only by the
    /// end of its process. So dropping the future kills the host, and so does a timeout on a host with one thread; on a
    /// host with several threads a call that timed out goes on.
    ///
    /// Requests of a batch (`several`) that the model refuses are left out of the answer, if the host can find out
    /// which they are.
    pub(crate) async fn invoke(&self, call: &Call<'_>, several: Several<'_>) -> Result<Answers, InvokeFailure> {
        let patience = several.patience.as_secs_f64();
        let request = HostRequest::Invoke { content_type: call.content_type, rows: several.rows, patience };
        let request = serialized(&request).map_err(|lost| self.lost_failure(lost, call.timeout))?;
        // Output can be matched to a call only if no other call is under way.
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

    /// Waits until the thread of a late call is idle again, or the process has ended. Kills a host that fails its
    /// liveness probe, since then no other call in it gets any further.
    pub(crate) async fn wait_out(&self, late: Late) {
        let before_kill = || {
            // The flag is set before the kill, so that every caller who finds the host gone also finds why.
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

    /// Kills the process because its only call has run out of time.
    pub(crate) fn give_up(&self) {
        self.timed_out.store(true, Ordering::Release);
        self.kill();
    }

    /// Tells whether the process was killed because a call ran out of time.
    pub(crate) fn has_timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Acquire)
    }

    /// Tells whether the process must not be called again, though it still runs.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Acquire)
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Kills the process without waiting.
    pub(crate) fn kill(&self) {
        self.child.kill();
    }

    /// Tells whether the process has ended, or is being killed.
    pub(crate) fn is_gone(&self) -> bool {
        self.child.is_gone()
    }

    /// Waits until its process has been reaped: only then is its memory free.
    pub(crate) fn gone(&self) -> impl Future<Output = Exit> + Send + use<> {
        self.child.gone()
    }

    #[cfg(test)]
    pub(super) fn child_output(&self) -> parking_lot::MutexGuard<'_, super::output::Output> {
        self.child.output()
    }

    /// Decodes the answer to a call of `requests` requests.
    fn decode_answers(&self, answer: Frame, requests: usize) -> Result<Answers, InvokeFailure> {
        let garbled = |why: String| {
            self.child.kill();
            self.lost_failure(Lost::Garbled(why), Duration::ZERO)
        };
        let InvokeAnswer { status, content_type, too_large: is_too_large, exhausted, refused } =
            serde_json::from_slice(&answer.head).map_err(|error| garbled(error.to_string()))?;
        // The refused requests must be some of those that were asked, each once, and never all of them.
        let are_some = refused.is_sorted_by(|one, next| one < next)
            && refused.last().is_none_or(|last| *last < requests && refused.len() < requests);
        if !are_some {
            return Err(garbled(format!("of {requests} requests it refuses {refused:?}")));
        }
        if is_too_large {
            return Err(too_large(&self.shown, LARGEST_REPLY).into());
        }
        match self.decode_reply(status, content_type, answer.body) {
            Ok(reply) => Ok(Answers { reply, refused }),
            Err(fault) => Err(if exhausted { self.retire_exhausted(fault) } else { fault }.into()),
        }
    }

    /// Decodes what the scoring server answers, and logs the traceback of an exception that the model raised.
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

    /// Takes the host out of use after it answered that it has no memory left. Calls on its other threads may come to
    /// their ends, and the fault is retryable, since another host may do better.
    fn retire_exhausted(&self, fault: Fault) -> Fault {
        self.spent.store(true, Ordering::Release);
        if !self.threads.are_several() {
            self.child.kill();
        }
        let message =
            format!("{}: it may take no more memory (models.memory_limit), so its process is replaced", fault.message);
        tracing::warn!(model = &*self.shown, pid = self.pid(), why = message, "a model's process is lost");
        Fault { message, retryable: true, ..fault }
    }

    /// Makes the failure of a call whose host is gone, `limit` being the time that the call was given.
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
