//! Progress of a run, for whoever watches it.

use std::time::Duration;

use super::block::Position;
use super::input::Length;

/// Counts rows by their end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Rows that have come to their end, those of earlier runs included.
    pub(super) rows: u64,
    /// Those of them that have failed.
    pub(super) failed: u64,
    /// Position in the input up to which all rows have.
    pub(super) end: Position,
}

/// Progress of the exchange with the router.
#[derive(Debug, Clone)]
pub(super) struct BatchProgress {
    pub(super) counts: Counts,
    /// Time since the run began.
    pub(super) elapsed: Duration,
    pub(super) under_way: usize,
    pub(super) waits_for: Option<String>,
}

/// Tells how far a run has come.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Rows that have come to their end, those of earlier runs included.
    pub rows: u64,
    /// Those of them that have failed.
    pub failed: u64,
    /// Rows a second, in this run.
    pub rate: f64,
    /// Part of the input that is done, between 0 and 1; unknown for an input that can be read only once.
    pub part: Option<f64>,
    /// Time left, as far as it can be told.
    pub left: Option<Duration>,
    /// Requests under way.
    pub under_way: usize,
    /// Reason why the run does not go on.
    pub waits_for: Option<String>,
}

impl Counts {
    /// Counts the rows that have a prediction.
    pub(super) fn answered(&self) -> u64 {
        self.rows - self.failed
    }
}

impl Progress {
    /// Judges a run by where it began.
    #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
    pub(super) fn of(run: BatchProgress, began: Counts, length: Length) -> Self {
        let BatchProgress { counts, elapsed, under_way, waits_for } = run;
        let seconds = elapsed.as_secs_f64().max(1e-3);
        let (done, done_before, all) = match length {
            Length::Rows(all) => (counts.rows, began.rows, Some(all)),
            Length::Bytes(all) => (counts.end.bytes, began.end.bytes, Some(all)),
            Length::Unknown => (0, 0, None),
        };
        let part = all.filter(|all| *all > 0).map(|all| (done as f64 / all as f64).min(1.0));
        let speed = done.saturating_sub(done_before) as f64 / seconds;
        let left = all.map(|all| all.saturating_sub(done) as f64 / speed).filter(|left| left.is_finite());
        Self {
            rows: counts.rows,
            failed: counts.failed,
            rate: (counts.rows - began.rows) as f64 / seconds,
            part,
            left: left.and_then(|left| Duration::try_from_secs_f64(left).ok()),
            under_way,
            waits_for,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_follows_from_this_run_alone() {
        let counts = |rows, bytes| Counts { rows, failed: 0, end: Position { rows, bytes, hash: None } };
        let run = BatchProgress {
            counts: counts(300, 3_000),
            elapsed: Duration::from_secs(10),
            under_way: 1,
            waits_for: None,
        };
        let progress = Progress::of(run.clone(), counts(200, 2_000), Length::Bytes(10_000));
        assert_eq!((progress.rate, progress.part, progress.left), (10.0, Some(0.3), Some(Duration::from_secs(70))));
        let progress = Progress::of(run.clone(), counts(300, 3_000), Length::Rows(600));
        assert_eq!((progress.rate, progress.part, progress.left), (0.0, Some(0.5), None));
        let progress = Progress::of(run, Counts::default(), Length::Unknown);
        assert_eq!((progress.rate, progress.part, progress.left), (30.0, None, None));
    }
}
