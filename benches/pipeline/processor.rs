//! Reads the processor time of processes, and starts this program in another part.

use crate::support::{Process, fresh_directory};

/// Clock ticks a second in /proc, which Linux fixes for user space.
const TICKS: f64 = 100.0;

/// Sums up user and system time so far of a process and all that it has started, in seconds.
pub(crate) fn seconds_of_tree(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let children = children.collect::<String>();
    let [own, ended] = seconds(pid);
    children.split_whitespace().fold(own + ended, |sum, child| sum + seconds_of_tree(child.parse().unwrap()))
}

/// Sums up user and system time so far of a process alone, in seconds.
pub(crate) fn seconds_of(pid: u32) -> f64 {
    seconds(pid)[0]
}

/// Reads the clock ticks of a process, and of those it has started that have ended; none if it has ended itself.
fn seconds(pid: u32) -> [f64; 2] {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11..13, 13..15].map(|kind| {
        let ticks = fields.get(kind).into_iter().flatten();
        ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS
    })
}

/// Builds the command of this program in another part, as a process of its own.
pub(crate) fn ourselves(part: &str, arguments: &[&str]) -> Process {
    let own = std::env::current_exe().unwrap();
    let command = [own.to_str().unwrap(), part].into_iter().chain(arguments.iter().copied());
    Process::start(part, &fresh_directory(part), &[], command)
}
