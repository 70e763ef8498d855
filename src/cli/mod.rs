//! The command line, with one file for each command.

mod check;
mod failure;
mod quickstart;
mod redrive;
mod route;
mod start;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;

use crate::telemetry::{LogFormat, init_logging};

/// A message-queue driven inference router for MLflow models.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// How log lines look; RUST_LOG chooses which there are.
    #[arg(long, global = true, value_enum, default_value_t, env = "SIGNALBOX_LOG_FORMAT")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Try it: two real models behind one name, from nothing, on this machine.
    Quickstart(quickstart::QuickstartArgs),
    /// Route requests until told to stop.
    Start(start::StartArgs),
    /// Check a config file and report every problem in it.
    Check(check::CheckArgs),
    /// Explain which route a request would take; nothing is called.
    Route(route::RouteArgs),
    /// Send dead letters back to the topic that they came from, each once.
    Redrive(redrive::RedriveArgs),
}

impl Cli {
    /// Runs the command that was given.
    pub fn run(self) -> ExitCode {
        let result = init_logging(self.log_format)
            .map_err(|error| Failure::software(error).of("signalbox"))
            .and_then(|()| self.command.run());
        result.unwrap_or_else(|failure| {
            // A failed write is no error: a reader that has gone away has read enough.
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.code.into()
        })
    }
}

impl CliCommand {
    fn run(&self) -> Result<ExitCode, Failure> {
        match self {
            Self::Quickstart(args) => quickstart::run(args),
            Self::Start(args) => start::run(args),
            Self::Check(args) => check::run(args),
            Self::Route(args) => route::run(args),
            Self::Redrive(args) => redrive::run(args),
        }
    }
}
