//! Signalbox itself: the binary, run as a user runs it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use super::{Process, fresh_directory};

const BINARY: &str = env!("CARGO_BIN_EXE_signalbox");
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A running `signalbox start`.
pub(crate) struct Signalbox {
    directory: PathBuf,
    process: Process,
    url: String,
    broker: String,
}

impl Signalbox {
    /// Starts it with that config file and waits until it says that it is ready. `server.port` should be 0.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// The same with variables of the environment.
    pub(crate) fn start_with(config: &str, environment: &[(&str, OsString)]) -> Self {
        let directory = fresh_directory("signalbox");
        std::fs::write(directory.join("signalbox.yaml"), config).unwrap();
        let (process, url, broker) = run(&directory, environment);
        Self { directory, process, url, broker }
    }

    /// Starts it once more with the same config file, after [`Self::kill`] or [`Self::terminate`]. The ports may differ.
    pub(crate) fn start_again(&mut self) {
        (self.process, self.url, self.broker) = run(&self.directory, &[]);
    }

    /// The shim's address, `http://127.0.0.1:<port>`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The broker's address, as Signalbox printed it.
    pub(crate) fn broker(&self) -> &str {
        &self.broker
    }

    /// All it has written, to standard output and standard error, over all its starts.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it on the spot, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it as `kill` does, and waits for the end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.process.terminate()
    }
}

fn run(directory: &Path, environment: &[(&str, OsString)]) -> (Process, String, String) {
    let command = [BINARY, "start", "--config", "signalbox.yaml"];
    let mut process = Process::start("signalbox", directory, environment, command);
    let (url, broker) = process.wait_for("word of Signalbox that it is ready", READY_WITHIN, addresses);
    (process, url, broker)
}

/// The addresses in the line `signalbox is ready: http://127.0.0.1:5000 (broker 127.0.0.1:9092)`.
fn addresses(log: &str) -> Option<(String, String)> {
    let (_, after) = log.split_once("signalbox is ready: ")?;
    let (url, rest) = after.split_once(" (broker ")?;
    let (broker, _) = rest.split_once(')')?;
    Some((url.to_owned(), broker.to_owned()))
}
