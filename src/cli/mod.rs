//! The command line, with one file for each command.

mod batch;
mod check;
mod completions;
mod config;
mod doctor;
mod failure;
mod man;
mod quickstart;
mod redrive;
mod route;
mod start;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use failure::Failure;

use crate::telemetry::{LogFormat, init_logging};

/// Name of the program, as it is typed.
const PROGRAM: &str = "signalbox";

/// Commands for the first minutes, below the list of all.
const FIRST_STEPS: &str = "\
New here? In this order:
  signalbox quickstart                       two real models, on this machine, with requests to try
  signalbox check --config signalbox.yaml    is my own config right?
  signalbox doctor --config signalbox.yaml   is everything there that it needs?
  signalbox start --config signalbox.yaml    run it

Each command has an example: signalbox help start
Every key of a config: config/reference.yaml";

/// Route inference requests from Kafka, or from HTTP, to MLflow models.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, after_help = FIRST_STEPS)]
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
    ///
    /// It makes a Python environment with MLflow, trains and registers two models, starts a broker inside its own
    /// process, and prints requests to try. The first run takes some minutes; what it makes is kept in --home, and the
    /// next run takes seconds. Ctrl-C ends it.
    #[command(after_help = quickstart::EXAMPLES)]
    Quickstart(quickstart::QuickstartArgs),
    /// Route requests until told to stop.
    ///
    /// It creates topics that are missing (unless the config says no), prints one line when requests are served, reads
    /// the config again when the file changes, and finishes what is under way when it gets Ctrl-C or SIGTERM.
    #[command(after_help = start::EXAMPLES)]
    Start(start::StartArgs),
    /// Check a config file and report every problem in it, each with its line.
    ///
    /// Nothing is started and nobody is asked: it looks at the file alone, and runs the file's `tests`. It exits with 0
    /// when the file can be used, and with 64 when it cannot.
    #[command(after_help = check::EXAMPLES)]
    Check(check::CheckArgs),
    /// Try everything that a config needs, and say of each thing what is wrong and what cures it.
    ///
    /// It tries the file, the port, the broker with its topics and rights, the registry with each model, the clocks, and
    /// the interpreters with what the models ask for. It exits with 1 when something has failed.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::DoctorArgs),
    /// Explain which route a request would take; nothing is called.
    ///
    /// It prints the decision as JSON: the route, and for each condition whether it held and what its parts were. It
    /// exits with 0 when there is a route, and with 1 when the request would get a fault.
    #[command(after_help = route::EXAMPLES)]
    Route(route::RouteArgs),
    /// Ask an endpoint about each row of a file, over Kafka, and write each answer beside its row.
    ///
    /// The router is one that runs (--brokers, or --config with --attach), or one that this command starts (--config
    /// alone). Files are JSONL, CSV or Parquet; `-` is standard input or output. A run that was killed is gone on with by
    /// the same command, and the output has one answer for each row, in their order. Rows without one are in
    /// OUT.errors.jsonl with the reason.
    ///
    /// It exits with 0 when every row is answered, with 1 when some have failed, and with 75 when it has stopped before
    /// the end and the same command goes on.
    #[command(after_help = batch::EXAMPLES)]
    Batch(Box<batch::BatchArgs>),
    /// Send dead letters back to the topic that they came from, each once.
    ///
    /// It remembers how far it has come, so that running it again sends nothing twice. It exits with 1 when there was
    /// nothing to send.
    #[command(after_help = redrive::EXAMPLES)]
    Redrive(redrive::RedriveArgs),
    /// Print a config as it takes effect, or the schema of all.
    #[command(subcommand, after_help = config::EXAMPLES)]
    Config(config::ConfigCommand),
    /// Print what lets a shell complete commands and options with the Tab key.
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::CompletionsArgs),
    /// Print the manual page, of all commands.
    #[command(after_help = man::EXAMPLES)]
    Man,
}

impl Cli {
    /// Parses the command line of this process. One that is wrong is explained, and the code returned says so.
    ///
    /// # Errors
    /// Returns the exit code when there is no command to run: the line is wrong, or asks for help or the version.
    pub fn from_arguments() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| {
            // A failed write is no error: a reader that has gone away has read enough.
            let _ = error.print();
            if error.use_stderr() { failure::USAGE.into() } else { ExitCode::SUCCESS }
        })
    }

    /// Runs the command that was given.
    pub fn run(self) -> ExitCode {
        // Only the quickstart has spinners on the screen while lines are logged.
        let logging = match &self.command {
            CliCommand::Quickstart(_) => init_logging(self.log_format, || quickstart::AboveSpinners),
            _ => init_logging(self.log_format, std::io::stderr),
        };
        let result = logging.map_err(|error| Failure::software(error).of(PROGRAM)).and_then(|()| self.command.run());
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
            Self::Doctor(args) => doctor::run(args),
            Self::Route(args) => route::run(args),
            Self::Batch(args) => batch::run(args),
            Self::Redrive(args) => redrive::run(args),
            Self::Config(command) => config::run(command),
            Self::Completions(args) => Ok(completions::run(args, Cli::command())),
            Self::Man => Ok(man::run(Cli::command())),
        }
    }
}

/// Prints what a command answers.
fn print(text: impl AsRef<[u8]>) -> ExitCode {
    // A failed write is no error: a reader that has gone away has read enough.
    let _ = std::io::stdout().write_all(text.as_ref());
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_that_is_parsed() {
        let mut command = Cli::command();
        command.build();
        let mut commands = vec![&command];
        let mut examples = 0;
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().filter(|command| command.get_name() != "help"));
            let name = command.get_bin_name().unwrap_or(PROGRAM);
            let help = command.get_after_help().unwrap_or_else(|| panic!("{name} has no example")).to_string();
            for line in help.lines().filter_map(|line| line.strip_prefix("  signalbox ")) {
                // What follows two blanks is a word about the example, and what follows these signs is the shell's.
                let words = line.split("  ").next().unwrap().split([';', '|', '>', '#']).next().unwrap();
                let words = words.split_whitespace().map(|word| word.trim_matches('\''));
                let parsed = Cli::try_parse_from(std::iter::once(PROGRAM).chain(words));
                assert!(parsed.is_ok(), "{name}: {line}: {}", parsed.unwrap_err());
                examples += 1;
            }
            let is_shown = help.lines().any(|line| line.trim_start().starts_with(name));
            assert!(is_shown, "{name} is in none of its own examples: {help}");
        }
        assert!(examples > 10, "{examples}");
    }
}
