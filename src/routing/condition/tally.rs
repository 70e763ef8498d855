//! The count of evaluations in this process: one addition a request for each way and result that occurred.

use std::cell::Cell;

use prometheus::IntCounter;

use super::Way;
use super::error::{ConditionError, Result};
use crate::telemetry::Metrics;

/// The ways that are counted here; what Python evaluates is counted where it is asked.
const WAYS: [(Way, &str); 2] = [(Way::Compiled, "compiled"), (Way::Rhai, "rhai")];

/// The results of an evaluation, as metrics name them.
const RESULTS: [&str; 3] = ["ok", "failed", "exceeded"];

/// The counters of each way and result.
#[derive(Debug)]
pub(super) struct EvaluationCounters([[IntCounter; RESULTS.len()]; WAYS.len()]);

/// The evaluations of one request, by way and result.
#[derive(Debug, Default)]
pub(super) struct Tally([[Cell<u64>; RESULTS.len()]; WAYS.len()]);

impl EvaluationCounters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self(WAYS.map(|(_, way)| RESULTS.map(|result| metrics.evaluations.with_label_values(&[way, result]))))
    }
}

impl Tally {
    /// Counts one evaluation.
    pub(super) fn count<T>(&self, way: Way, result: &Result<T>) {
        let result = match result {
            Ok(_) => 0,
            Err(ConditionError::Failed(_)) => 1,
            Err(ConditionError::Exceeded(_) | ConditionError::Unavailable(_)) => 2,
        };
        if let Some(way) = WAYS.iter().position(|(counted, _)| *counted == way) {
            let count = &self.0[way][result];
            count.set(count.get() + 1);
        }
    }

    /// Adds what was counted.
    pub(super) fn add_to(&self, counters: &EvaluationCounters) {
        for (count, counter) in self.0.iter().flatten().zip(counters.0.iter().flatten()) {
            if count.get() > 0 {
                counter.inc_by(count.get());
            }
        }
    }
}
