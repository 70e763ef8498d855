//! The entry of the program; `signalbox::cli` has one file for each command.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use signalbox::cli::Cli;

/// The allocator of the process. Memory that a request allocates on one thread is freed on another, which costs the
/// system's allocator locks and searches. Mimalloc answers a sixth more requests a second and takes a quarter less
/// processor time for each (`benches/run throughput`); jemalloc does as well, but takes far longer to build.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match Cli::from_arguments() {
        Ok(cli) => cli.run(),
        Err(code) => code,
    }
}
