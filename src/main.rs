//! The command line's door; `signalbox::cli` has one file a command.

use std::process::ExitCode;

use clap::Parser;
use signalbox::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
