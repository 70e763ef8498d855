//! The log of the exceptions that a model raises.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::message::Fault;
use crate::telemetry::printable;

/// Period in seconds in which a model that raises is warned of once.
const PERIOD: Duration = Duration::from_secs(60);

/// Tracebacks that are shown in each period; later ones are logged at level debug.
const SHOWN: u32 = 20;

/// Bytes of the longest traceback; a longer one loses its beginning, since its end is what matters.
const LONGEST: usize = 16 << 10;

/// Logs the tracebacks of one model. A model may raise on every request, so the first of a minute is a warning, a few
/// are shown, and the others are logged at level debug.
#[derive(Debug)]
pub(crate) struct ExceptionLog {
    /// The model URI, as configured.
    model: Arc<str>,
    /// Begin of the period, and number of exceptions in it.
    period: Mutex<Option<(Instant, u32)>>,
}

impl ExceptionLog {
    /// Begins with nothing logged.
    pub(crate) fn new(model: Arc<str>) -> Self {
        Self { model, period: Mutex::default() }
    }

    /// Logs an exception of the model, or of the writing of its answer, with the fault that the caller gets.
    pub(crate) fn log(&self, fault: &Fault, traceback: &str) {
        let (model, said) = (&*self.model, printable(&fault.message, LONGEST));
        // A field is written on one line.
        let traceback = &traceback[traceback.ceil_char_boundary(traceback.len().saturating_sub(LONGEST))..];
        match self.count(Instant::now()) {
            1 => tracing::warn!(model, traceback, "{said}"),
            2..=SHOWN => tracing::info!(model, traceback, "{said}"),
            _ => tracing::debug!(model, traceback, "{said}"),
        }
    }

    /// Counts an exception, and returns its number in the period.
    fn count(&self, now: Instant) -> u32 {
        let mut period = self.period.lock();
        let (since, before) = period.filter(|(since, _)| now < *since + PERIOD).unwrap_or((now, 0));
        *period = Some((since, before.saturating_add(1)));
        before.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_begins_anew_each_minute() {
        let (log, begun) = (ExceptionLog::new("m/1".into()), Instant::now());
        assert_eq!([0, 1, 59].map(|second| log.count(begun + Duration::from_secs(second))), [1, 2, 3]);
        assert_eq!([60, 61].map(|second| log.count(begun + Duration::from_secs(second))), [1, 2]);
    }
}
