//! What a model raises, in the log.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::message::Fault;
use crate::telemetry::printable;

/// How often a model that raises is warned of.
const PERIOD: Duration = Duration::from_secs(60);

/// How many tracebacks are shown in each period.
const SHOWN: u32 = 20;

/// A longer traceback is cut, in bytes: its end is what matters.
const LONGEST: usize = 16 << 10;

/// Where the tracebacks of one model go. A model may raise on every request, so of those of one minute the first is a warning,
/// a few are shown, and the others are for who debugs.
#[derive(Debug)]
pub(crate) struct ExceptionLog {
    /// The model URI, as configured.
    model: Arc<str>,
    /// When the period began, and how many there were in it.
    period: Mutex<Option<(Instant, u32)>>,
}

impl ExceptionLog {
    /// Nothing is logged yet.
    pub(crate) fn new(model: Arc<str>) -> Self {
        Self { model, period: Mutex::default() }
    }

    /// The model raised, or answered what cannot be written, and this is what the caller is told.
    pub(crate) fn log(&self, fault: &Fault, traceback: &str) {
        let (model, said) = (&*self.model, printable(&fault.message, LONGEST));
        // As a field it is written on one line.
        let traceback = &traceback[traceback.ceil_char_boundary(traceback.len().saturating_sub(LONGEST))..];
        match self.count(Instant::now()) {
            1 => tracing::warn!(model, traceback, "{said}"),
            2..=SHOWN => tracing::info!(model, traceback, "{said}"),
            _ => tracing::debug!(model, traceback, "{said}"),
        }
    }

    /// Which of its period this one is.
    fn count(&self, now: Instant) -> u32 {
        let mut period = self.period.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, before) = period.filter(|(since, _)| now < *since + PERIOD).unwrap_or((now, 0));
        *period = Some((since, before.saturating_add(1)));
        before.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_minute_is_counted_for_itself() {
        let (log, begun) = (ExceptionLog::new("m/1".into()), Instant::now());
        assert_eq!([0, 1, 59].map(|second| log.count(begun + Duration::from_secs(second))), [1, 2, 3]);
        assert_eq!([60, 61].map(|second| log.count(begun + Duration::from_secs(second))), [1, 2]);
    }
}
