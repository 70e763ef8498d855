//! What a model raises, in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::message::Fault;

/// Where the tracebacks of one model go. A model may raise on every request, so only one a minute is sure to be seen.
#[derive(Debug)]
pub(crate) struct ExceptionLog {
    /// The model URI, as configured.
    model: Arc<str>,
    since: Instant,
    /// Seconds from `since` until a traceback is logged again for everyone to see.
    quiet_until: AtomicU64,
}

impl ExceptionLog {
    /// Nothing is logged yet.
    pub(crate) fn new(model: Arc<str>) -> Self {
        Self { model, since: Instant::now(), quiet_until: AtomicU64::new(0) }
    }

    /// The model raised, and this is what the caller is told.
    pub(crate) fn log(&self, fault: &Fault, traceback: &str) {
        let now = self.since.elapsed().as_secs();
        let quiet_until = self.quiet_until.load(Ordering::Relaxed);
        if now >= quiet_until {
            self.quiet_until.store(now + 60, Ordering::Relaxed);
            tracing::warn!(model = &*self.model, %traceback, "{}", fault.message);
        } else {
            tracing::debug!(model = &*self.model, %traceback, "{}", fault.message);
        }
    }
}
