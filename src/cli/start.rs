//! `signalbox start`: routes requests until told to stop.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is the command line that speaks")]

use std::path::PathBuf;
use std::process::ExitCode;

use super::failure::Failure;
use crate::app::{self, Addresses, Role, stop_signal};
use crate::check::ConfigFile;

/// Examples of `signalbox start`.
pub(super) const EXAMPLES: &str = "\
Examples:
  signalbox start --config signalbox.yaml
  signalbox start --config signalbox.yaml --role router    requests from Kafka; HTTP for operators only
  signalbox start --config signalbox.yaml --role shim      POST /invocations only; models run elsewhere
  RUST_LOG=signalbox=debug signalbox start --config signalbox.yaml --log-format json";

/// Holds the arguments of `signalbox start`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct StartArgs {
    /// The config file; config/reference.yaml documents every key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Half that this process runs: both may be on different machines, with one Kafka.
    #[arg(long, value_enum, default_value_t)]
    role: Role,
}

pub(super) fn run(args: &StartArgs) -> Result<ExitCode, Failure> {
    let file = ConfigFile::open(&args.config);
    let loaded = file.load()?;
    if !loaded.warnings.problems.is_empty() {
        eprintln!("{}", loaded.warnings);
    }
    let nothing = std::future::ready(Ok(()));
    let ready = |addresses: &Addresses| println!("{}", ready_line(addresses));
    block_on(app::run::<Failure>(stop_signal(), loaded.config, Some(file), args.role, nothing, ready))
}

/// Runs a command that serves until it is told to stop.
pub(super) fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<ExitCode, Failure> {
    // The number of workers is tokio's own choice, one for each processor: with half or twice as many, throughput was
    // the same or less. The Kafka clients have threads of their own, and are mostly waiting.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("signalbox").build();
    let runtime =
        runtime.map_err(|error| Failure::software(format_args!("signalbox: the runtime cannot start: {error}")))?;
    let result = runtime.block_on(command);
    // Tasks that a second signal left running are not waited for.
    runtime.shutdown_background();
    result?;
    Ok(ExitCode::SUCCESS)
}

/// Formats the one line that names the addresses, for people and for scripts.
pub(super) fn ready_line(addresses: &Addresses) -> String {
    format!("signalbox is ready: http://{} (broker {})", addresses.http, addresses.broker)
}
