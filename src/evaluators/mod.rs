//! Evaluates what conditions leave to Python: in evaluators, processes of CPython with Flask's own request.
//!
//! ```text
//! ask ── queue ──┬─ seat ── evaluator: several requests a frame, answered one by one
//!                ├─ seat ── evaluator     (as many as are needed, `conditions.evaluators` at most)
//!                └─ reserve ── evaluator: ready to take the place of one that is lost
//! ```
//!
//! A seat keeps the clock, since nothing in Python can be trusted to: an evaluator that has not answered for
//! `conditions.timeout` is killed, and the request that it was at gets an error. The requests behind that one were not
//! begun, so they are asked again elsewhere. Evaluators are forked from the template of `models.python`, where an
//! endpoint has a question for them, and none otherwise.

mod clock;
mod evaluator;
mod frames;
mod job;
mod queue;
mod reserve;
mod seat;
mod status;
mod trial;
mod wsgi;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use self::status::{EvaluatorReport, EvaluatorsReport};
pub use self::trial::try_out;

use self::evaluator::Begin;
use self::job::Job;
use self::queue::Queue;
use self::reserve::Reserve;
use self::status::SeatStatus;
use crate::config;
use crate::message::Request;
use crate::models::{Models, Template};
use crate::routing::condition::{BUILTINS, MODULES};
use crate::routing::{Answers, ConditionError, Question};
use crate::telemetry::{LogGate, Metrics, Readiness};

/// The way of an evaluation, as metrics name it.
const WAY: &str = "python";

/// The pool of evaluators. Clones are cheap; dropping the last one ends all processes.
#[derive(Debug, Clone)]
pub struct Evaluators {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    closing: CancellationToken,
    _close_with_us: Arc<DropGuard>,
}

/// State that the handle, the seats and the reserve share.
#[derive(Debug)]
struct Shared {
    config: config::Conditions,
    /// First message to each evaluator.
    begin: Begin,
    template: Arc<Template>,
    metrics: Metrics,
    readiness: Readiness,
    has_begun: AtomicBool,
    queue: Queue,
    reserve: Reserve,
    /// Keeps the log of lost evaluators short.
    losses: LogGate,
    seats: Mutex<Vec<Arc<SeatStatus>>>,
}

impl Evaluators {
    /// Makes the pool of an interpreter, whose template is that of its models. No process starts before [`begin`].
    ///
    /// [`begin`]: Self::begin
    pub fn start(
        config: &config::Conditions,
        models: &Models,
        python: &str,
        metrics: &Metrics,
        readiness: &Readiness,
    ) -> Self {
        for result in ["ok", "failed", "exceeded", "unavailable"] {
            metrics.evaluations.with_label_values(&[WAY, result]);
        }
        for reason in ["crashed", "timed_out"] {
            metrics.evaluators_lost.with_label_values(&[reason]);
        }
        let closing = CancellationToken::new();
        let close_with_us = Arc::new(closing.clone().drop_guard());
        let shared = Arc::new(Shared {
            config: config.clone(),
            begin: Begin { names: NAMES, max_memory: config.max_memory.as_u64() },
            template: models.template(python),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            has_begun: AtomicBool::new(false),
            queue: Queue::default(),
            reserve: Reserve::default(),
            losses: LogGate::default(),
            seats: Mutex::default(),
        });
        Self { shared, tasks: TaskTracker::new(), closing, _close_with_us: close_with_us }
    }

    /// Starts the first evaluators, unless they have started. From now on the process is only ready while one runs.
    pub fn begin(&self) {
        if self.shared.has_begun.swap(true, Ordering::AcqRel) {
            return;
        }
        let part = self.shared.readiness.part("evaluators");
        self.spawn(reserve::fill(Arc::clone(&self.shared), part));
        if self.shared.queue.open_seat() {
            self.seat();
        }
    }

    /// Evaluates a question for a request: each expression gets its value or its error.
    pub async fn ask(&self, question: &Arc<Question>, request: &Arc<Request>) -> Answers {
        self.begin();
        let begun = Instant::now();
        let (sender, answers) = oneshot::channel();
        let job = Job::new(Arc::clone(question), Arc::clone(request), sender);
        if let Some(reason) = self.shared.reserve.failure() {
            job.fail(&reason);
        } else if self.shared.queue.push(job, self.shared.config.evaluators) {
            self.seat();
        }
        let stopping = || ConditionError::Unavailable("Signalbox is stopping".to_owned());
        let answers = answers.await.unwrap_or_else(|_| job::failed(question, &stopping()));
        self.shared.count(&answers, begun);
        answers
    }

    /// Reports the evaluators and what they are at.
    pub fn report(&self) -> EvaluatorsReport {
        self.shared.report()
    }

    /// Ends all evaluators, and waits until their tasks have ended. What is asked afterwards gets an error.
    pub async fn shutdown(&self) {
        self.closing.cancel();
        self.shared.queue.close();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Starts one more seat.
    fn seat(&self) {
        let status = Arc::new(SeatStatus::default());
        self.shared.seats.lock().push(Arc::clone(&status));
        self.spawn(seat::run(Arc::clone(&self.shared), status));
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.closing.clone().run_until_cancelled_owned(work));
    }
}

/// The names that expressions may use in Python.
#[derive(Debug, Clone, Copy, Serialize)]
struct Names {
    /// Functions and types of Python's own, with spaces between them.
    builtins: &'static str,
    /// Modules, each with its members, with spaces between them.
    modules: &'static [(&'static str, &'static str)],
}

/// The names that a condition is checked against when it is loaded.
const NAMES: Names = Names { builtins: BUILTINS, modules: &MODULES };

impl Shared {
    fn count(&self, answers: &Answers, begun: Instant) {
        self.metrics.evaluation_duration.with_label_values(&[WAY]).observe(begun.elapsed().as_secs_f64());
        for answer in answers {
            let result = match answer {
                Ok(_) => "ok",
                Err(ConditionError::Failed(_)) => "failed",
                Err(ConditionError::Exceeded(_)) => "exceeded",
                Err(ConditionError::Unavailable(_)) => "unavailable",
            };
            self.metrics.evaluations.with_label_values(&[WAY, result]).inc();
        }
    }
}

#[cfg(test)]
mod tests;
