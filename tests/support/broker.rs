//! Runs an Apache Kafka process: its directory, its settings, its life.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use super::{Process, installed};

const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";

/// Settings that all brokers of the tests share.
const COMMON: &str = "process.roles=broker,controller
controller.listener.names=CONTROLLER
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
num.network.threads=2
num.io.threads=4
log.cleaner.enable=false
";

/// Owns a broker that can be stopped, killed and started again on its records.
pub(crate) struct Broker {
    directory: PathBuf,
    /// The words of the command before `java`, such as a program that shows it another disk.
    prefix: Vec<String>,
    heap: &'static str,
    process: Option<Process>,
}

impl Broker {
    /// Writes the settings and formats the storage in `<directory>/data`; does not start.
    pub(crate) fn format(directory: PathBuf, prefix: Vec<String>, heap: &'static str, settings: &str) -> Self {
        let settings = format!("{COMMON}log.dirs={}\n{settings}\n", directory.join("data").display());
        std::fs::write(directory.join("server.properties"), settings).unwrap();
        let broker = Self { directory, prefix, heap, process: None };
        let format = ["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config", "server.properties"];
        let words = broker.java(&format);
        let formatted = Command::new(&words[0]).args(&words[1..]).current_dir(&broker.directory).output().unwrap();
        assert!(formatted.status.success(), "the broker's storage cannot be formatted: {formatted:?}");
        broker
    }

    /// Starts the process, and does not wait until it answers.
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "the broker runs already");
        let command = self.java(&["kafka.Kafka", "server.properties"]);
        self.process = Some(Process::start("kafka", &self.directory, &[], command));
    }

    /// Stops the broker as an operator would.
    pub(crate) fn stop(&mut self) {
        self.process.take().expect("the broker runs").terminate();
    }

    /// Stops the broker as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("the broker runs").kill();
    }

    /// Returns the exit status, if the broker has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Process::ended)
    }

    /// Tells whether the broker was started, and not stopped since.
    pub(crate) fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// Returns the broker's output.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("kafka.log")).unwrap_or_default()
    }

    /// Returns the directory of the broker's records and log.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("the broker runs").pid()
    }

    fn java(&self, command: &[&str]) -> Vec<String> {
        let libs = installed("SIGNALBOX_TEST_KAFKA_LIBS", "kafka/libs");
        let logging = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/log4j2.properties");
        let mut words = self.prefix.clone();
        words.extend(["java", self.heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(str::to_owned));
        words.push(format!("-Dlog4j2.configurationFile={logging}"));
        words.extend(["-cp".to_owned(), format!("{}/*", libs.display())]);
        words.extend(command.iter().map(|word| (*word).to_owned()));
        words
    }
}
