//! `signalbox redrive`: sends dead letters back to the topic that they came from.

#![expect(clippy::print_stdout, reason = "it is the command line that speaks")]

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::builder::PossibleValuesParser;
use indicatif::{ProgressBar, ProgressStyle};

use super::failure::Failure;
use crate::check;
use crate::message::{Code, wall_clock};
use crate::redrive::{Filter, Redrive, RedriveProgress, RedriveSummary};

/// Examples of `signalbox redrive`.
pub(super) const EXAMPLES: &str = "\
Examples:
  signalbox redrive --config signalbox.yaml --dry-run
  signalbox redrive --config signalbox.yaml --code MODEL_ERROR --since 2h
  signalbox redrive --config signalbox.yaml --endpoint sentiment-router --limit 1000";

/// Holds the arguments of `signalbox redrive`.
#[derive(Debug, clap::Args)]
pub(super) struct RedriveArgs {
    /// The config file, with which the requests were read.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only letters with this error code, such as MODEL_ERROR; may be given several times.
    #[arg(long = "code", value_name = "CODE", value_parser = PossibleValuesParser::new(Code::ALL.map(Code::name)))]
    codes: Vec<String>,
    /// Only letters for this endpoint; may be given several times.
    #[arg(long = "endpoint", value_name = "NAME")]
    endpoints: Vec<String>,
    /// Only letters that are not older: a time such as 2026-11-23T08:00:00Z, or how long ago, such as 2h.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<i64>,
    /// Only letters that are older; as --since.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<i64>,
    /// No more than so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only say what would be sent back.
    #[arg(long)]
    dry_run: bool,
}

/// Sends letters back, and prints what became of all. Exits with 1 when there was none to be sent.
pub(super) fn run(args: &RedriveArgs) -> Result<ExitCode, Failure> {
    let loaded = check::load(&args.config)?;
    let redrive = Redrive {
        filter: Filter {
            codes: args.codes.clone(),
            endpoints: args.endpoints.clone(),
            since: args.since,
            until: args.until,
        },
        limit: args.limit,
        dry_run: args.dry_run,
    };
    let bar = bar();
    let result = redrive.run(&loaded.config, |progress| show(bar.as_ref(), progress));
    // The bar is cleared before the result is printed, so that no rest of it stays on the screen.
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let (summary, kafka) = (result?, &loaded.config.kafka);
    print!("{}", describe(&summary, &kafka.dead_letter_topic, &kafka.requests_topic, args.dry_run));
    Ok(if summary.total() > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bar() -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let template = "{elapsed:>4.dim} {wide_bar} {human_pos}/{human_len} looked at, {msg}, {eta} left";
        // A template that cannot be parsed gives a bare bar; nothing can be done about it here.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(0).with_style(style)
    })
}

fn show(bar: Option<&ProgressBar>, progress: RedriveProgress) {
    if let Some(bar) = bar {
        bar.set_length(progress.of);
        bar.set_position(progress.done);
        bar.set_message(format!("{} chosen", progress.sent));
    }
}

fn describe(summary: &RedriveSummary, dead_letters: &str, requests: &str, dry_run: bool) -> String {
    if summary.is_empty() {
        return format!("there are no dead letters in '{dead_letters}' that were not sent back already\n");
    }
    let letters = |count: u64| format!("{count} dead letter{}", if count == 1 { "" } else { "s" });
    let done = if dry_run { "would be sent back" } else { "sent back" };
    let mut text = format!("{} {done} to '{requests}'\n", letters(summary.total()));
    for ((code, endpoint), count) in &summary.sent {
        let endpoint = if endpoint.is_empty() { "(no endpoint)" } else { endpoint };
        text += &format!("  {count:>8}  {code}  {endpoint}\n");
    }
    for (count, why) in [
        (summary.filtered, "which the filters leave out"),
        (summary.foreign, "which did not come from that topic"),
        (summary.hollow, "which have lost their value, since they were too large with it"),
    ] {
        if count > 0 {
            text += &format!("{} left, {why}\n", letters(count));
        }
    }
    text
}

/// Parses a point in time, or a duration before now, to Unix time in milliseconds.
fn parse_time(text: &str) -> Result<i64, String> {
    let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let ago = |duration: Duration| wall_clock().checked_sub(duration).map(since_1970).unwrap_or_default();
    let time =
        humantime::parse_rfc3339_weak(text).map(since_1970).or_else(|_| humantime::parse_duration(text).map(ago));
    let time = time.map_err(|_| "neither a time such as 2026-11-23T08:00:00Z nor a duration such as 2h".to_owned())?;
    Ok(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_time_takes_points_and_durations() {
        assert_eq!(parse_time("1970-01-01T00:01:00Z"), Ok(60_000));
        let now = parse_time("0s").unwrap();
        let then = parse_time("2h").unwrap();
        assert!((7_199_000..7_201_000).contains(&(now - then)), "{now} {then}");
        assert!(parse_time("yesterday").is_err());
    }

    #[test]
    fn summary_accounts_for_every_letter() {
        let empty = describe(&RedriveSummary::default(), "dead", "requests", false);
        assert_eq!(empty, "there are no dead letters in 'dead' that were not sent back already\n");
        let summary = RedriveSummary {
            sent: [(("MODEL_ERROR".to_owned(), "a".to_owned()), 2)].into(),
            filtered: 1,
            ..RedriveSummary::default()
        };
        assert_eq!(
            describe(&summary, "dead", "requests", true),
            "2 dead letters would be sent back to 'requests'\n         2  MODEL_ERROR  a\n\
             1 dead letter left, which the filters leave out\n"
        );
    }
}
