//! Memory that processes hold for themselves, and memory that the machine has.
//!
//! The figures come from `/proc` and `/sys/fs/cgroup`, so on other systems than Linux nothing is known.

use std::fs;
use std::path::{Path, PathBuf};

/// Measures the bytes that would be free if a process ended; memory that it shares with others, such as the template
/// that it was forked from, is not among them. `None` when there is no such process, or the system does not tell.
///
/// The kernel walks the whole page table for it: 3 ms for a process of 350 MB, growing with its size. So it is not for
/// a thread that answers requests, and not for every request either.
fn private_memory(pid: u32) -> Option<u64> {
    private_bytes(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

/// Measures for each of these process ids the private bytes of all processes whose process group or session it is: its
/// own, and those of every process that it has started.
///
/// Finding them costs 2 ms with a hundred processes on the machine, for however many ids this is asked.
fn group_private_memories(pids: &[u32]) -> Vec<Option<u64>> {
    let mut held = vec![None; pids.len()];
    let Ok(processes) = fs::read_dir("/proc") else { return held };
    // One pass over all processes of the machine: the kernel has no index by group or session.
    for member in processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let stat = fs::read_to_string(format!("/proc/{member}/stat")).unwrap_or_default();
        let ids = group_and_session(&stat).unwrap_or([member; 2]);
        let belongs = |pid: &u32| *pid == member || ids.contains(pid);
        if let Some(place) = pids.iter().position(belongs)
            && let Some(bytes) = private_memory(member)
        {
            held[place] = Some(held[place].unwrap_or(0_u64).saturating_add(bytes));
        }
    }
    held
}

/// Measures the private bytes of these processes, and of the processes that they have started, together; `None` where
/// that cannot be measured.
pub(super) async fn memory_of(pids: Vec<u32>) -> Option<u64> {
    memories_of(pids).await.into_iter().flatten().reduce(u64::saturating_add)
}

/// Measures the private bytes of each of these processes and of the processes that it has started; `None` for one that
/// has gone.
pub(super) async fn memories_of(pids: Vec<u32>) -> Vec<Option<u64>> {
    // Reading it walks the process's page tables in the kernel, so it is done on a thread that may block.
    tokio::task::spawn_blocking(move || group_private_memories(&pids)).await.unwrap_or_default()
}

/// Returns the bytes of memory that this process and its children may use: the machine's, or its control group's limit
/// when that is lower.
pub(super) fn machine_memory() -> Option<u64> {
    let machine = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups, Path::new("/sys/fs/cgroup")).into_iter().filter_map(|file| {
        // Without a limit the file says `max`, or in version 1 a number larger than any machine.
        fs::read_to_string(file).ok()?.trim().parse().ok()
    });
    Some(limits.fold(machine, u64::min))
}

/// Sums up the private bytes in `/proc/PID/smaps_rollup`. Swapped memory is held as well.
fn private_bytes(rollup: &str) -> Option<u64> {
    let clean = field(rollup, "Private_Clean")?;
    let dirty = field(rollup, "Private_Dirty")?;
    let others = ["Private_Hugetlb", "SwapPss"].into_iter().filter_map(|name| field(rollup, name));
    Some(others.fold(clean.saturating_add(dirty), u64::saturating_add))
}

/// Reads a field, in bytes, from lines like `MemTotal:  8049396 kB`.
fn field(lines: &str, name: &str) -> Option<u64> {
    let value = lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Reads the process group and session from `/proc/PID/stat`, where the second field is the program's name in
/// parentheses, which may hold anything.
fn group_and_session(stat: &str) -> Option<[u32; 2]> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(2).map(str::parse);
    Some([fields.next()?.ok()?, fields.next()?.ok()?])
}

/// Lists the files that may limit the memory of a process with this `/proc/self/cgroup`: a limit counts for all groups
/// below it. In a container the names may be those outside of it, so that only the topmost is there.
fn limit_files(groups: &str, root: &Path) -> Vec<PathBuf> {
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group = root.join(path.trim_start_matches('/'));
        let within = group.ancestors().take_while(|ancestor| ancestor.starts_with(&root));
        Some(within.map(|ancestor| ancestor.join(file)).collect::<Vec<_>>())
    };
    groups.lines().filter_map(of_line).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLLUP: &str = "\
55f0380ee000-7fffe13b7000 ---p 00000000 00:00 0                          [rollup]
Rss:              423628 kB
Shared_Clean:      59564 kB
Private_Clean:     19892 kB
Private_Dirty:    344172 kB
Private_Hugetlb:       4 kB
Swap:                 16 kB
SwapPss:               8 kB
";

    #[test]
    fn private_bytes_exclude_shared_pages() {
        assert_eq!(private_bytes(ROLLUP), Some((19892 + 344_172 + 4 + 8) * 1024));
        assert_eq!(private_bytes("Rss: 1 kB\n"), None);
        assert_eq!(private_bytes(""), None);
    }

    #[test]
    fn stat_parses_when_the_name_has_parentheses() {
        assert_eq!(group_and_session("7 (a) b) (c) S 1 42 41 0 -1 4194304"), Some([42, 41]));
        assert_eq!(group_and_session("7 (cut off) S 1"), None);
        assert_eq!(group_and_session(""), None);
    }

    #[test]
    fn limit_files_include_every_ancestor_group() {
        let files = |groups| {
            let files = limit_files(groups, Path::new("/cg")).into_iter();
            files.map(|file| file.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(files("0::/a/b\n"), ["/cg/a/b/memory.max", "/cg/a/memory.max", "/cg/memory.max"]);
        assert_eq!(files("0::/\n"), ["/cg/memory.max"]);
        let old = "5:devices:/x\n4:cpu,memory:/x\n";
        assert_eq!(files(old), ["/cg/memory/x/memory.limit_in_bytes", "/cg/memory/memory.limit_in_bytes"]);
        assert!(files("garbage\n").is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn private_memory_grows_with_an_allocation() {
        let machine = machine_memory().unwrap();
        let before = private_memory(std::process::id()).unwrap();
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = private_memory(std::process::id()).unwrap();
        // Other tests run beside this one and may give memory back.
        assert!(after > before + (32 << 20) && after < machine, "{before} {after} {machine}");
        assert!(group_private_memories(&[std::process::id()])[0].unwrap() > 32 << 20);
        drop(held);
        assert_eq!(private_memory(u32::MAX), None);
        assert_eq!(group_private_memories(&[u32::MAX]), [None]);
        let both = group_private_memories(&[u32::MAX, std::process::id()]);
        assert!(both.len() == 2 && both[0].is_none() && both[1].is_some(), "{both:?}");
    }
}
