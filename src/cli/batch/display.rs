//! The progress of a batch and its end, for the person in front of it: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::batch::{BatchSummary, Plan, Progress, Trial};

/// Time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Steps of the bar.
const STEPS: u64 = 1_000;

/// Shows the progress.
pub(super) enum Display {
    Bar(ProgressBar),
    /// The last line was written then.
    Lines(Instant),
}

impl Display {
    pub(super) fn new() -> Self {
        match std::io::stderr().is_terminal() {
            true => Self::Bar(ProgressBar::new(STEPS).with_style(style("{elapsed:>4.dim} {spinner} {msg}"))),
            false => Self::Lines(Instant::now()),
        }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        match self {
            Self::Bar(bar) => {
                bar.set_message(line(progress, false));
                match progress.part {
                    Some(part) => {
                        if bar.position() == 0 {
                            bar.set_style(style("{elapsed:>4.dim} {wide_bar} {percent}% {msg}"));
                        }
                        bar.set_position(permille(part));
                    }
                    None => bar.tick(),
                }
            }
            Self::Lines(written) => {
                if written.elapsed() >= LINE_INTERVAL {
                    *written = Instant::now();
                    eprintln!("signalbox batch: {}", line(progress, true));
                }
            }
        }
    }

    pub(super) fn finish(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template that cannot be parsed gives a bare bar; nothing can be done about it here.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part is between 0 and 1")]
fn permille(part: f64) -> u64 {
    (part * 1e3) as u64
}

fn line(progress: &Progress, has_part: bool) -> String {
    let mut parts = vec![format!("{} rows", HumanCount(progress.rows)), format!("{} rows/s", whole(progress.rate))];
    if progress.failed > 0 {
        parts.push(format!("{} failed", HumanCount(progress.failed)));
    }
    if let Some(part) = progress.part.filter(|_| has_part) {
        parts.push(format!("{:.0} %", part * 100.0));
    }
    if let Some(left) = progress.left {
        parts.push(format!("{} left", about(left)));
    }
    if let Some(waits_for) = &progress.waits_for {
        parts.push(format!("waits for {waits_for}"));
    }
    parts.join(", ")
}

/// Formats the last line of a batch.
pub(super) fn summary(summary: &BatchSummary, output: &Path) -> String {
    let rows = summary.rows - summary.rows_before;
    let seconds = summary.elapsed.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
    let rate = rows as f64 / seconds.max(1e-3);
    let failed = match (&summary.errors, summary.failed) {
        (_, 0) => "none failed".to_owned(),
        (Some(errors), failed) => format!("{} failed (see {})", HumanCount(failed), errors.display()),
        (None, failed) => format!("{} failed", HumanCount(failed)),
    };
    let before = match summary.rows_before {
        0 => String::new(),
        before => format!(" ({} of them before)", HumanCount(before)),
    };
    let place = if output == Path::new("-") { String::new() } else { format!(": {}", output.display()) };
    let rows = HumanCount(summary.rows);
    format!("{rows} rows{before}, {failed}, {seconds:.1} s, {} rows/s{place}", whole(rate))
}

/// Formats what would be sent.
pub(super) fn plan(plan: &Plan) -> String {
    let mut text = format!(
        "{} rows, {} requests, {}\n",
        HumanCount(plan.rows),
        HumanCount(plan.requests),
        ByteSize::b(plan.bytes).display().iec()
    );
    if let (count @ 1.., Some(reason)) = &plan.unsendable {
        text += &format!("{} rows cannot be sent; the first: {reason}\n", HumanCount(*count));
    }
    text
}

/// Formats about how long all rows take, by a trial with some.
pub(super) fn trial(trial: &Trial, rows: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let seconds = trial.first.as_secs_f64() + rows as f64 / trial.rate.max(1e-3);
    let about_all = Duration::try_from_secs_f64(seconds).map_or("for ever".to_owned(), about);
    let failed =
        if trial.failed > 0 { format!(", of which {} failed", HumanCount(trial.failed)) } else { String::new() };
    format!(
        "about {about_all}: the first {} rows were asked about on trial{failed}; {} rows/s after the first answer, which took \
         {:.1} s\n",
        HumanCount(trial.rows),
        whole(trial.rate),
        trial.first.as_secs_f64()
    )
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is no larger than 2^64")]
fn whole(rate: f64) -> HumanCount {
    HumanCount(rate.round() as u64)
}

fn about(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs_f64().ceil() as u64)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        Progress { rows: 12_345, failed: 0, rate: 1_234.4, part: None, left: None, under_way: 1, waits_for: None }
    }

    #[test]
    fn line_says_what_is_known() {
        assert_eq!(line(&progress(), true), "12,345 rows, 1,234 rows/s");
        let all = Progress {
            failed: 2,
            part: Some(0.123),
            left: Some(Duration::from_millis(61_500)),
            waits_for: Some("the broker".to_owned()),
            ..progress()
        };
        let expected = "12,345 rows, 1,234 rows/s, 2 failed, 12 %, 1m 2s left, waits for the broker";
        assert_eq!(line(&all, true), expected);
    }

    #[test]
    fn summary_names_the_error_file_and_the_rows_of_earlier_runs() {
        let all = BatchSummary {
            rows: 3_000,
            failed: 1,
            rows_before: 1_000,
            elapsed: Duration::from_secs(2),
            errors: Some("out.csv.errors.jsonl".into()),
        };
        let expected =
            "3,000 rows (1,000 of them before), 1 failed (see out.csv.errors.jsonl), 2.0 s, 1,000 rows/s: out.csv";
        assert_eq!(summary(&all, Path::new("out.csv")), expected);
        let none = BatchSummary { failed: 0, rows_before: 0, errors: None, ..all };
        assert_eq!(summary(&none, Path::new("-")), "3,000 rows, none failed, 2.0 s, 1,500 rows/s");
    }

    #[test]
    fn trial_tells_the_time_of_all_rows() {
        let some = Trial { rows: 400, failed: 0, first: Duration::from_secs(2), rate: 100.0 };
        assert_eq!(
            trial(&some, 6_000),
            "about 1m 2s: the first 400 rows were asked about on trial; 100 rows/s after the first answer, which took 2.0 \
             s\n"
        );
    }
}
