//! The command line: one file a command.

mod check;
mod exit;
mod quickstart;
mod redrive;
mod route;
mod start;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry::{LogFormat, init_logging};

/// A message-queue driven inference router for MLflow models.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// How log lines look; RUST_LOG chooses which there are.
    #[arg(long, global = true, value_enum, default_value_t, env = "SIGNALBOX_LOG_FORMAT")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: two real models behind one name, from nothing, on this machine.
    Quickstart(quickstart::Args),
    /// Route requests until told to stop.
    Start(start::Args),
    /// Check a config file and report every problem in it.
    Check(check::Args),
    /// Explain which route a request would take; nothing is called.
    Route(route::Args),
    /// Send dead letters back to the topic that they came from, each once.
    Redrive(redrive::Args),
}

impl Cli {
    /// Runs the command that was given.
    pub fn run(self) -> ExitCode {
        if init_logging(self.log_format).is_err() {
            return exit::SOFTWARE.into();
        }
        match &self.command {
            Command::Quickstart(args) => quickstart::run(args),
            Command::Start(args) => start::run(args),
            Command::Check(args) => check::run(args),
            Command::Route(args) => route::run(args),
            Command::Redrive(args) => redrive::run(args),
        }
    }
}
