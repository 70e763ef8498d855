//! What a model raises, in the log.

use std::sync::Arc;

use crate::message::Fault;
use crate::telemetry::LogGate;

/// Where the tracebacks of one model go. A model may raise on every request, so only one a minute is sure to be seen.
#[derive(Debug)]
pub(crate) struct ExceptionLog {
    /// The model URI, as configured.
    model: Arc<str>,
    gate: LogGate,
}

impl ExceptionLog {
    /// Nothing is logged yet.
    pub(crate) fn new(model: Arc<str>) -> Self {
        Self { model, gate: LogGate::default() }
    }

    /// The model raised, and this is what the caller is told.
    pub(crate) fn log(&self, fault: &Fault, traceback: &str) {
        if self.gate.admit(LogGate::now()).is_some() {
            tracing::warn!(model = &*self.model, %traceback, "{}", fault.message);
        } else {
            tracing::debug!(model = &*self.model, %traceback, "{}", fault.message);
        }
    }
}
