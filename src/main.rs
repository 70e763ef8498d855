//! The command line's door; `signalbox::cli` has one file a command.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use signalbox::cli::Cli;

/// What a request allocates on one thread is freed on another, which costs the system's allocator locks and searches. This
/// one answers a sixth more requests a second and takes a quarter less processor time for each (`benches/run throughput`);
/// jemalloc does as well, but takes far longer to build.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
