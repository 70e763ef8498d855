//! Shows in the log what the processes of one model print, at a limited rate.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Number of lines that are shown in each period; the others are counted.
const LINES_PER_PERIOD: u32 = 100;

/// Length of a period.
const PERIOD: Duration = Duration::from_secs(10);

/// Bytes of a line that are shown; the rest is cut.
const MAX_LINE_BYTES: usize = 1000;

/// A log of what one model prints, line by line, limited to what a log can take.
#[derive(Debug)]
pub(crate) struct OutputLog {
    /// The model's name to operators.
    model: Arc<str>,
    period: Mutex<PeriodCount>,
}

/// The number of lines in the current period.
#[derive(Debug, Clone, Copy)]
struct PeriodCount {
    until: Instant,
    lines: u32,
}

impl OutputLog {
    /// Makes a log without any line yet.
    pub(crate) fn new(model: Arc<str>) -> Arc<Self> {
        Arc::new(Self { model, period: Mutex::new(PeriodCount { until: Instant::now(), lines: 0 }) })
    }

    /// Shows a line that a process of the model has printed, unless the period has had too many.
    pub(super) fn log_line(self: &Arc<Self>, pid: i32, line: &str) {
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        let PeriodCount { until, lines } = self.count_line(Instant::now());
        if lines <= LINES_PER_PERIOD {
            // A field is written with every character escaped that could pass for another line.
            let line = &line[..line.floor_char_boundary(MAX_LINE_BYTES)];
            tracing::info!(model = &*self.model, pid, line, "a model has printed");
        } else if lines == LINES_PER_PERIOD + 1 {
            let log = Arc::clone(self);
            tokio::spawn(async move {
                sleep_until(until).await;
                log.end_period(until);
            });
        }
    }

    /// Counts a line. A period with too many lines is ended by the task that reports their number, and not here.
    fn count_line(&self, now: Instant) -> PeriodCount {
        let mut period = self.period.lock();
        if now >= period.until && period.lines <= LINES_PER_PERIOD {
            *period = PeriodCount { until: now + PERIOD, lines: 0 };
        }
        period.lines = period.lines.saturating_add(1);
        *period
    }

    fn end_period(&self, until: Instant) {
        let mut period = self.period.lock();
        let left_out = period.lines.saturating_sub(LINES_PER_PERIOD);
        *period = PeriodCount { until: until + PERIOD, lines: 0 };
        drop(period);
        tracing::info!(model = &*self.model, "{left_out} more lines left out that the model has printed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_counts_lines_when_a_model_floods_it_and_shows_later_ones() {
        let log = OutputLog::new("m/1".into());
        let shown = |lines: u32, now| (0..lines).filter(|_| log.count_line(now).lines <= LINES_PER_PERIOD).count();
        let begun = Instant::now();
        assert_eq!(shown(LINES_PER_PERIOD, begun), LINES_PER_PERIOD as usize);
        let until = log.period.lock().until;
        assert_eq!(shown(LINES_PER_PERIOD, begun), 0);
        // The task that waits for the end of the period has not reported yet how many lines were left out.
        assert_eq!((shown(1, until), log.period.lock().lines), (0, 2 * LINES_PER_PERIOD + 1));
        log.end_period(until);
        assert_eq!(shown(2 * LINES_PER_PERIOD, until), LINES_PER_PERIOD as usize);
    }

    #[test]
    fn log_shows_every_line_when_a_model_prints_now_and_then() {
        let (log, begun) = (OutputLog::new("m/1".into()), Instant::now());
        for period in 0..3 {
            let now = begun + (PERIOD + Duration::from_secs(1)) * period;
            assert!((0..LINES_PER_PERIOD).all(|_| log.count_line(now).lines <= LINES_PER_PERIOD), "{period}");
        }
    }
}
