//! The state of the pool, for operators.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use serde::Serialize;

use super::Shared;

/// The pool of evaluators, as `GET /evaluators` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EvaluatorsReport {
    /// Evaluators at work, or waiting for it.
    pub evaluators: Vec<EvaluatorReport>,
    /// Most of them.
    pub limit: usize,
    /// Processes, the one in reserve included.
    pub processes: i64,
    /// Requests that wait for an evaluator.
    pub waiting: usize,
    /// Evaluators that were lost since the start.
    pub lost: u64,
}

/// One evaluator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EvaluatorReport {
    /// Process id; 0 while a lost process is being replaced.
    pub pid: u32,
    /// Requests that this evaluator and those before it have answered.
    pub answered: u64,
    /// Requests that it is at.
    pub busy: usize,
}

/// The state of a seat, as the seat notes it.
#[derive(Debug, Default)]
pub(super) struct SeatStatus {
    pub(super) pid: AtomicU32,
    pub(super) answered: AtomicU64,
    pub(super) busy: AtomicUsize,
}

impl Shared {
    pub(super) fn report(&self) -> EvaluatorsReport {
        let seats = self.seats.lock();
        let evaluators = seats.iter().map(|seat| EvaluatorReport {
            pid: seat.pid.load(Ordering::Relaxed),
            answered: seat.answered.load(Ordering::Relaxed),
            busy: seat.busy.load(Ordering::Relaxed),
        });
        let lost = |reason| self.metrics.evaluators_lost.with_label_values(&[reason]).get();
        EvaluatorsReport {
            evaluators: evaluators.collect(),
            limit: self.config.evaluators,
            processes: self.metrics.evaluators.get(),
            waiting: self.queue.len(),
            lost: lost("crashed") + lost("timed_out"),
        }
    }
}
