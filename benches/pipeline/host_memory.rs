//! Measures the memory of processes.

/// Holds the memory of processes, in MiB.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    pub(super) private: f64,
    pub(super) pss: f64,
}

impl Memory {
    /// Computes the median of each column.
    pub(super) fn median(all: &mut [Self]) -> Self {
        let mut middle = |value: fn(&Self) -> f64| {
            all.sort_by(|one, other| value(one).total_cmp(&value(other)));
            value(&all[all.len() / 2])
        };
        Self { private: middle(|memory| memory.private), pss: middle(|memory| memory.pss) }
    }
}

pub(super) fn memory_of(pid: u32) -> Memory {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let mebibytes = |prefix: &str| {
        let lines = rollup.lines().filter(|line| line.starts_with(prefix));
        lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()).sum::<f64>() / 1024.0
    };
    Memory { private: mebibytes("Private_"), pss: mebibytes("Pss:") }
}

/// Measures a process and all that it has started.
pub(super) fn memory_of_tree(pid: u32) -> Memory {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let children = children.collect::<String>();
    children.split_whitespace().fold(memory_of(pid), |sum, child| {
        let child = memory_of_tree(child.parse().unwrap());
        Memory { private: sum.private + child.private, pss: sum.pss + child.pss }
    })
}
