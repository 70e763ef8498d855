//! Progress of a long step, for the person who waits: a spinner in a terminal, plain lines elsewhere.

#![expect(clippy::print_stderr, reason = "it is the command line that speaks")]

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows the progress of one step. Dropped unfinished, it leaves no spinner behind.
pub(super) struct ProgressStep {
    what: String,
    began: Instant,
    spinner: Option<ProgressBar>,
}

impl ProgressStep {
    /// Shows that `what` is under way, such as `starting MLflow`.
    pub(super) fn begin(what: impl Into<String>) -> Self {
        let what = what.into();
        let spinner = std::io::stderr().is_terminal().then(|| {
            // A template that cannot be parsed gives a bare spinner; nothing can be done about it here.
            let style = ProgressStyle::with_template("{spinner} {elapsed:>4.dim}  {wide_msg}");
            let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_message(what.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if spinner.is_none() {
            eprintln!("{what} ...");
        }
        Self { what, began: Instant::now(), spinner }
    }

    /// Shows how far the step has come. Passing remarks are for the spinner only.
    pub(super) fn remark(&self, remark: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(format!("{}: {remark}", self.what));
        }
    }

    /// Ends the step, and shows its outcome.
    pub(super) fn done(mut self, outcome: impl AsRef<str>) {
        let seconds = self.began.elapsed().as_secs_f32();
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
        eprintln!("✓ {} ({seconds:.1} s)", outcome.as_ref());
    }
}

impl Drop for ProgressStep {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
