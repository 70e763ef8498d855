//! Progress of long steps, for the person who waits: spinners in a terminal, plain lines elsewhere. Steps may run side by
//! side.

#![expect(clippy::print_stderr, reason = "it is the command line that speaks")]

use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The spinners of all steps that are under way, below everything else that is written.
static SPINNERS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

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
        let spinner = io::stderr().is_terminal().then(|| {
            // A template that cannot be parsed gives a bare spinner; nothing can be done about it here.
            let style = ProgressStyle::with_template("{spinner} {elapsed:>4.dim}  {wide_msg}");
            let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            let bar = SPINNERS.add(bar.with_message(what.clone()));
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
        SPINNERS.suspend(|| eprintln!("✓ {} ({seconds:.1} s)", outcome.as_ref()));
    }
}

impl Drop for ProgressStep {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

/// Writes to standard error, above the spinners.
#[derive(Debug)]
pub(in crate::cli) struct AboveSpinners;

impl Write for AboveSpinners {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        SPINNERS.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
