//! The setup of `tracing`, for people or for machines.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// The format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For a person at a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Sends log lines to standard error, which `writer` writes to; standard output is for what a command answers.
///
/// `RUST_LOG` chooses what is logged, in `tracing`'s filter syntax; the default is `info`.
///
/// # Errors
/// Fails when a subscriber is installed already.
pub fn init_logging<W: io::Write + 'static>(format: LogFormat, writer: fn() -> W) -> Result<(), TryInitError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Human => {
            let colours = io::stderr().is_terminal();
            registry.with(fmt::layer().with_ansi(colours).with_writer(writer)).try_init()
        }
        LogFormat::Json => registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)).try_init(),
    }
}
