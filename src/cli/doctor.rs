//! `signalbox doctor`: tries everything that a config needs, one line each.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::ProgressBar;

use super::failure::Failure;
use crate::doctor::{self, Outcome};

/// Examples of `signalbox doctor`.
pub(super) const EXAMPLES: &str = "\
Example:
  signalbox doctor --config signalbox.yaml

Each line begins with ok, warning or FAILED, and says what was found and what cures it. Nothing is changed: no topic is
created, no group is joined, no model is loaded.";

/// Pause between two frames of the spinner.
const FRAME: Duration = Duration::from_millis(100);

/// Holds the arguments of `signalbox doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// The config file whose needs are looked at.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Prints the findings. Exits with 1 when something has failed.
pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::software)?;
    let spinner = std::io::stderr().is_terminal().then(|| {
        let spinner = ProgressBar::new_spinner().with_message("asking the broker, the registry and the interpreters");
        spinner.enable_steady_tick(FRAME);
        spinner
    });
    let findings = runtime.block_on(doctor::examine(&args.config));
    // Clients that still try to connect are not waited for.
    runtime.shutdown_background();
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let mut text = String::new();
    for finding in &findings {
        let _ = writeln!(text, "{finding}");
    }
    super::print(text);
    let has_failed = findings.iter().any(|finding| finding.outcome == Outcome::Failed);
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
