//! A seat: asks one evaluator, keeps the clock, and has a lost evaluator replaced.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::clock::Clock;
use super::evaluator::Evaluator;
use super::frames;
use super::job::Job;
use super::status::SeatStatus;
use crate::invocation::in_words;
use crate::routing::ConditionError;
use crate::telemetry::LogGate;

/// Most evaluators that may be lost before they could begin with a request; then the request itself is to blame.
const MOST_LOSSES: usize = 3;

/// The way in which an evaluator was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// Evaluator that did not answer in time.
    TimedOut,
    /// Evaluator that ended, or whose answer makes no sense.
    Crashed,
    /// Evaluator that ended before it could begin with any of the requests it was sent.
    Unbegun,
}

/// Serves requests, for as long as it is polled.
pub(super) async fn run(shared: Arc<Shared>, status: Arc<SeatStatus>) {
    loop {
        let mut evaluator = shared.reserve.take().await;
        status.pid.store(evaluator.pid(), Ordering::Relaxed);
        shared.serve(&mut evaluator, &status).await;
        status.pid.store(0, Ordering::Relaxed);
        status.busy.store(0, Ordering::Relaxed);
    }
}

impl Shared {
    /// Asks an evaluator until it is lost.
    async fn serve(&self, evaluator: &mut Evaluator, status: &SeatStatus) {
        let gone = evaluator.gone();
        tokio::pin!(gone);
        let mut clock = Clock::new(self.config.timeout);
        loop {
            let mut jobs = tokio::select! {
                biased;
                () = &mut gone => return self.lose(Loss::Unbegun, evaluator, VecDeque::new()),
                jobs = self.queue.take() => jobs,
            };
            if let Err(loss) = self.evaluate(evaluator, &mut jobs, &mut clock, status).await {
                return self.lose(loss, evaluator, jobs);
            }
        }
    }

    /// Has an evaluator answer requests, which leave `jobs` as they are answered.
    async fn evaluate(
        &self,
        evaluator: &mut Evaluator,
        jobs: &mut VecDeque<Job>,
        clock: &mut Clock,
        status: &SeatStatus,
    ) -> Result<(), Loss> {
        for at in 0..jobs.len() {
            let question = jobs.get(at).map(|job| Arc::clone(&job.question));
            if let Some(question) = question
                && let Err(error) = evaluator.learn(&question).await
            {
                if had_not_read(&error) {
                    return Err(Loss::Unbegun);
                }
                // The request that brought the question comes first, to which the loss is put down.
                if let Some(job) = jobs.remove(at) {
                    jobs.push_front(job);
                }
                return Err(Loss::Crashed);
            }
        }
        let asked = clock.within(evaluator.ask(jobs)).await;
        asked.ok_or(Loss::TimedOut)?.map_err(|_| Loss::Unbegun)?;
        let sent = jobs.len();
        while let Some(job) = jobs.front() {
            status.busy.store(jobs.len(), Ordering::Relaxed);
            // What has come in the meantime counts, even if this task comes late to look.
            let frame = clock.within(evaluator.answer()).await;
            let frame = frame.ok_or(Loss::TimedOut)?.map_err(|error| {
                if had_not_read(&error) && jobs.len() == sent { Loss::Unbegun } else { Loss::Crashed }
            })?;
            let answers = frames::answers(&frame, &job.question).ok_or(Loss::Crashed)?;
            if let Some(job) = jobs.pop_front() {
                job.finish(answers);
            }
            status.answered.fetch_add(1, Ordering::Relaxed);
        }
        status.busy.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Puts the loss of an evaluator down to the request that it was at. The requests behind that one are asked again.
    fn lose(&self, loss: Loss, evaluator: &Evaluator, mut jobs: VecDeque<Job>) {
        if loss == Loss::Unbegun {
            jobs.iter_mut().for_each(|job| job.losses += 1);
        }
        let is_blamed = loss != Loss::Unbegun || jobs.front().is_some_and(|job| job.losses == MOST_LOSSES);
        let (reason, error) = match loss {
            Loss::TimedOut => {
                let limit = in_words(self.config.timeout);
                ("timed_out", format!("TimeoutError: the evaluation took longer than {limit}"))
            }
            Loss::Crashed | Loss::Unbegun => ("crashed", "the process that evaluated it has ended".to_owned()),
        };
        let blamed = if is_blamed { jobs.pop_front() } else { None };
        let request = blamed.as_ref().map(|job| job.request.source.to_string());
        self.metrics.evaluators_lost.with_label_values(&[reason]).inc();
        if let Some(unlogged) = self.losses.admit(LogGate::now()) {
            tracing::warn!(
                pid = evaluator.pid(),
                reason,
                request,
                said = evaluator.last_words(),
                unlogged,
                "an evaluator of conditions is replaced"
            );
        }
        if let Some(job) = blamed {
            job.fail(&ConditionError::exceeded(&error));
        }
        self.queue.put_back(jobs);
    }
}

/// Tells whether a process ended before it had read all that it was sent, which the socket knows. A process begins with
/// nothing before it has read everything.
fn had_not_read(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}
