//! What the processes of one model print, in the log.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How many lines are shown in each period; the others are counted.
const SHOWN: u32 = 100;

/// How long a period is.
const PERIOD: Duration = Duration::from_secs(10);

/// A longer line is cut, in bytes.
const LONGEST: usize = 1000;

/// Shows what a model prints, line by line, and no more of it than a log can take.
#[derive(Debug)]
pub(crate) struct OutputLog {
    /// What operators know the model by.
    model: Arc<str>,
    allowance: Mutex<Allowance>,
}

/// How many lines there have been in this period.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    until: Instant,
    lines: u32,
}

impl OutputLog {
    /// Nothing is printed yet.
    pub(crate) fn new(model: Arc<str>) -> Arc<Self> {
        Arc::new(Self { model, allowance: Mutex::new(Allowance { until: Instant::now(), lines: 0 }) })
    }

    /// Shows a line that a process of the model has printed, unless there were too many.
    pub(super) fn show(self: &Arc<Self>, pid: i32, line: &str) {
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        let Allowance { until, lines } = self.count(Instant::now());
        if lines <= SHOWN {
            // As a field it is written with all that could pass for another line escaped.
            let line = &line[..line.floor_char_boundary(LONGEST)];
            tracing::info!(model = &*self.model, pid, line, "a model has printed");
        } else if lines == SHOWN + 1 {
            let log = Arc::clone(self);
            tokio::spawn(async move {
                sleep_until(until).await;
                log.end(until);
            });
        }
    }

    /// Counts a line. A period in which too many were printed is ended by who waits for that.
    fn count(&self, now: Instant) -> Allowance {
        let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= allowance.until && allowance.lines <= SHOWN {
            *allowance = Allowance { until: now + PERIOD, lines: 0 };
        }
        allowance.lines = allowance.lines.saturating_add(1);
        *allowance
    }

    fn end(&self, until: Instant) {
        let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = allowance.lines.saturating_sub(SHOWN);
        *allowance = Allowance { until: until + PERIOD, lines: 0 };
        drop(allowance);
        tracing::info!(model = &*self.model, "{left_out} more lines left out that the model has printed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_floods_the_log_is_counted_and_heard_again() {
        let log = OutputLog::new("m/1".into());
        let shown = |lines: u32, now| (0..lines).filter(|_| log.count(now).lines <= SHOWN).count();
        let begun = Instant::now();
        assert_eq!(shown(SHOWN, begun), SHOWN as usize);
        let until = log.allowance.lock().unwrap().until;
        assert_eq!(shown(SHOWN, begun), 0);
        // Who waits for the end of the period has not said yet how many were left out.
        assert_eq!((shown(1, until), log.allowance.lock().unwrap().lines), (0, 2 * SHOWN + 1));
        log.end(until);
        assert_eq!(shown(2 * SHOWN, until), SHOWN as usize);
    }

    #[test]
    fn a_model_that_prints_now_and_then_is_always_heard() {
        let (log, begun) = (OutputLog::new("m/1".into()), Instant::now());
        for period in 0..3 {
            let now = begun + (PERIOD + Duration::from_secs(1)) * period;
            assert!((0..SHOWN).all(|_| log.count(now).lines <= SHOWN), "{period}");
        }
    }
}
