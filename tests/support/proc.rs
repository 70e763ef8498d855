//! Reads the kernel's knowledge of processes, from `/proc`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{unique, wait_until};

/// Variable whose value marks a program and all that it starts.
pub(crate) const MARK: &str = "SIGNALBOX_TEST_MARK";

/// Holds a value of [`MARK`] that no other program has.
#[derive(Debug, Clone)]
pub(crate) struct Mark(String);

/// Describes a process that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) pid: u32,
    command: String,
}

impl Mark {
    pub(crate) fn new() -> Self {
        Self(unique("mark"))
    }

    /// Returns the variable's value.
    pub(crate) fn value(&self) -> &str {
        &self.0
    }

    /// Returns all processes that have the mark in their environment, and are no zombies.
    pub(crate) fn bearers(&self) -> Vec<Running> {
        let variable = format!("{MARK}={}", self.0).into_bytes();
        let directories = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = directories.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let bears = |pid: &u32| {
            let environment = std::fs::read(of(*pid).join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|it| it == variable)
        };
        pids.filter(bears).filter(|pid| is_alive(*pid)).map(Running::of).collect()
    }

    /// Waits until so many of the marked processes run this. A process that has only just become a program has no
    /// environment yet.
    pub(crate) fn wait_for_bearers(&self, what: &str, count: usize) -> Vec<Running> {
        wait_until(&format!("{count} processes of {what}"), Duration::from_secs(15), || {
            let mut bearers = self.bearers();
            bearers.retain(|running| running.command.contains(what));
            (bearers.len() == count).then_some(bearers)
        })
    }

    /// Waits until no process has the mark any longer, at two looks one after the other.
    pub(crate) fn assert_nothing_is_left(&self, when: &str) {
        let (mut left, mut empty) = (Vec::new(), 0);
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_secs(15) {
            left = self.bearers();
            empty = if left.is_empty() { empty + 1 } else { 0 };
            if empty == 2 {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        left.iter().for_each(|orphan| kill(orphan.pid));
        panic!("{when}: orphans are left: {left:#?}");
    }
}

impl Running {
    fn of(pid: u32) -> Self {
        let command = std::fs::read(of(pid).join("cmdline")).unwrap_or_default();
        let words = command.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        Self { pid, command: words.collect::<Vec<_>>().join(" ") }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.pid, self.command)
    }
}

/// Tells whether the process is there and has not ended.
pub(crate) fn is_alive(pid: u32) -> bool {
    // `pid (name) state …`, where the name may hold anything.
    let stat = std::fs::read_to_string(of(pid).join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Returns the most memory that a process has had in the machine, in bytes.
pub(crate) fn resident_peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(of(pid).join("status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    peak.parse::<u64>().unwrap() * 1024
}

/// Ends a process on the spot.
pub(crate) fn kill(pid: u32) {
    signal("KILL", pid);
}

/// Sends a signal, such as `STOP`, to a process.
pub(crate) fn signal(name: &str, pid: u32) {
    let _ = std::process::Command::new("kill").args(["-s", name, &pid.to_string()]).output();
}

/// Waits until the process has ended.
pub(crate) fn wait_for_end(pid: u32) {
    wait_until(&format!("the end of process {pid}"), Duration::from_secs(15), || (!is_alive(pid)).then_some(()));
}

fn of(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}
