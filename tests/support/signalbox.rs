//! Runs Signalbox itself: the binary, as a user runs it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use super::{Mlflow, Process, fresh_directory};

const BINARY: &str = env!("CARGO_BIN_EXE_signalbox");
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Owns a running Signalbox.
pub(crate) struct Signalbox {
    directory: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, OsString)>,
    process: Process,
    url: String,
    broker: String,
}

impl Signalbox {
    /// Runs `signalbox start` with that config file and waits until it says that it is ready. `server.port` should be
    /// 0.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, Vec::new())
    }

    /// Starts Signalbox with more variables in its environment.
    pub(crate) fn start_with(config: &str, environment: Vec<(&'static str, OsString)>) -> Self {
        Self::spawn_with(config, environment).ready()
    }

    /// Starts Signalbox without waiting until it is ready; there is no address yet.
    pub(crate) fn spawn_with(config: &str, environment: Vec<(&'static str, OsString)>) -> Self {
        let directory = fresh_directory("signalbox");
        std::fs::write(directory.join("signalbox.yaml"), config).unwrap();
        Self::spawn(directory, &["start", "--config", "signalbox.yaml"], environment)
    }

    /// Runs one half of Signalbox, `router` or `shim`.
    pub(crate) fn start_role(role: &str, config: &str) -> Self {
        let directory = fresh_directory("signalbox");
        std::fs::write(directory.join("signalbox.yaml"), config).unwrap();
        Self::spawn(directory, &["start", "--config", "signalbox.yaml", "--role", role], Vec::new()).ready()
    }

    /// Puts another config file in the place of the one that Signalbox was started with.
    pub(crate) fn rewrite_config(&self, config: &str) {
        let (new, file) = (self.directory.join("signalbox.yaml.new"), self.directory.join("signalbox.yaml"));
        std::fs::write(&new, config).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// Runs `signalbox quickstart` on free ports, with the models in a directory of their own.
    pub(crate) fn quickstart() -> Self {
        Self::spawn_quickstart(fresh_directory("quickstart"), Vec::new()).ready()
    }

    /// Runs `signalbox quickstart` in that directory without waiting until it is ready; there is no address yet.
    pub(crate) fn spawn_quickstart(directory: PathBuf, environment: Vec<(&'static str, OsString)>) -> Self {
        let python = Mlflow::python();
        let arguments = ["quickstart", "--port", "0", "--mlflow-port", "0", "--python", python.to_str().unwrap()];
        Self::spawn(directory, &arguments, environment)
    }

    fn spawn(directory: PathBuf, arguments: &[&str], environment: Vec<(&'static str, OsString)>) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let process = spawn(&directory, &arguments, &environment);
        Self { directory, arguments, environment, process, url: String::new(), broker: String::new() }
    }

    fn ready(mut self) -> Self {
        self.wait_until_ready();
        self
    }

    fn wait_until_ready(&mut self) {
        let ready = self.process.wait_for("word of Signalbox that it is ready", READY_WITHIN, addresses);
        (self.url, self.broker) = ready;
    }

    /// Starts Signalbox once more as it was started, after [`Self::kill`] or [`Self::terminate`]. The ports may differ.
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(&self.directory, &self.arguments, &self.environment);
        self.wait_until_ready();
    }

    /// Returns the path of the log.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.process.log_path().to_owned()
    }

    /// Returns the shim's address, `http://127.0.0.1:<port>`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Reads a series of the metrics, such as `signalbox_expired_total`; labels are in the order of the alphabet.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let url = format!("{}/metrics", self.url);
        // The request runs on a thread of its own, so that it can be called from inside and outside of a runtime.
        let text = std::thread::scope(|scope| {
            let reading = || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { reqwest::get(url).await.unwrap().text().await.unwrap() })
            };
            scope.spawn(reading).join().unwrap()
        });
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap())
    }

    /// Returns the broker's address, as Signalbox printed it.
    pub(crate) fn broker(&self) -> &str {
        &self.broker
    }

    /// Returns all output, standard and error, over all starts.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until its output since this start has that text.
    pub(crate) fn wait_for(&mut self, text: &str) {
        self.process.wait_for(text, READY_WITHIN, |log| log.contains(text).then_some(()));
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the exit status, if the process has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Ends Signalbox on the spot, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends Signalbox as `kill` does, and waits for the end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.process.terminate()
    }
}

fn spawn(directory: &Path, arguments: &[String], environment: &[(&'static str, OsString)]) -> Process {
    let command = std::iter::once(BINARY).chain(arguments.iter().map(String::as_str));
    Process::start("signalbox", directory, environment, command)
}

/// Finds the addresses in the line `signalbox is ready: http://127.0.0.1:5000 (broker 127.0.0.1:9092)`.
pub(super) fn addresses(log: &str) -> Option<(String, String)> {
    let (_, after) = log.split_once("signalbox is ready: ")?;
    let (url, rest) = after.split_once(" (broker ")?;
    let (broker, _) = rest.split_once(')')?;
    Some((url.to_owned(), broker.to_owned()))
}
