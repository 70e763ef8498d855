//! How much memory processes hold for themselves, and how much the machine has.

/// The bytes that would be free if this process ended; what it shares with others is not among them.
///
/// `None` when there is no such process, or the system does not tell.
pub(super) fn private_memory(pid: u32) -> Option<u64> {
    let _ = pid;
    None
}

/// The same for this process and all that belong to its process group or session.
pub(super) fn group_private_memory(pid: u32) -> Option<u64> {
    let _ = pid;
    None
}

/// The bytes of memory that this process and its children may use: the machine's, or its control group's limit.
pub(super) fn machine_memory() -> Option<u64> {
    None
}
