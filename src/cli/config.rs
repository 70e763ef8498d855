//! `signalbox config`: prints the schema of config files, and the effective configuration of one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::failure::Failure;
use crate::check;
use crate::config::{self, environment};

/// Examples of `signalbox config`.
pub(super) const EXAMPLES: &str = "\
Examples:
  signalbox config show --config signalbox.yaml
  signalbox config schema > schema.json";

/// Examples of `signalbox config schema`.
const SCHEMA_EXAMPLES: &str = "\
Write it beside your config, and name it in the first line, so that your editor completes and explains every key:
  signalbox config schema > schema.json
  echo '# yaml-language-server: $schema=schema.json' | cat - signalbox.yaml

In Visual Studio Code that takes the extension `redhat.vscode-yaml`; other editors take yaml-language-server.";

/// Examples of `signalbox config show`.
const SHOW_EXAMPLES: &str = "\
Examples:
  signalbox config show --config signalbox.yaml
  signalbox config show --config signalbox.yaml | grep 'environment variable'

What is printed is a config itself: with the secrets put back, it can be started.";

#[derive(Debug, clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// Print every key of a config with its value, and where that came from; secrets are masked.
    ///
    /// Behind each value stands the line of the file, the variable of the environment, or that it is the default.
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// The config file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print the JSON Schema of config files, by which editors complete and explain keys.
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema,
}

pub(super) fn run(command: &ConfigCommand) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Show { config } => show(config),
        ConfigCommand::Schema => schema(),
    }
}

fn show(path: &Path) -> Result<ExitCode, Failure> {
    let loaded = check::load(path)?;
    check::effective(&loaded, &environment).map(super::print).map_err(Failure::software)
}

fn schema() -> Result<ExitCode, Failure> {
    let text = serde_json::to_string_pretty(&config::schema()).map_err(Failure::software)?;
    Ok(super::print(format!("{text}\n")))
}
