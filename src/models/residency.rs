//! Which loaded versions stay, and which must go: by memory, by time, and never while one is in use.
//!
//! A pure policy: it has no clock and does nothing itself. Times count from some start. What it is told must be one
//! consistent picture, and what it decides is carried out before it is asked again.

use std::time::Duration;

use super::usage::Habit;

/// The longest that a version may stay for having been dear to load.
const LONGEST_STAY: Duration = Duration::from_secs(120);

/// The rules of the house, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// How many bytes all hosts may hold for themselves.
    pub(super) memory_limit: Option<u64>,
    /// How long a version stays that nobody uses.
    pub(super) idle_timeout: Option<Duration>,
    /// How long a version stays at least, once it is loaded.
    pub(super) minimum_stay: Duration,
}

/// A version that is loaded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Resident<K> {
    pub(super) key: K,
    /// Its hosts' private bytes, as measured last.
    pub(super) memory: u64,
    /// The same when it had been loaded and warmed.
    pub(super) memory_when_loaded: u64,
    pub(super) loaded_at: Duration,
    /// How long its load took: what it costs to have it back.
    pub(super) load_cost: Duration,
    pub(super) habit: Habit,
    /// Whether it was loaded with no request waiting for it.
    pub(super) preloaded: bool,
    /// Whether anyone holds a lease on it.
    pub(super) in_use: bool,
    /// Whether it was asked to stay whatever happens.
    pub(super) pinned: bool,
}

/// Memory that is taken and belongs to no resident.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Claims {
    /// Of processes that were told to go and are not yet gone.
    pub(super) leaving: u64,
    /// Of loads that are under way.
    pub(super) loading: u64,
}

/// A load that wants room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// How many bytes it will hold, as far as is known.
    pub(super) memory: u64,
    /// How long whoever wants it can wait for room.
    pub(super) patience: Duration,
}

/// Whether there is room for one more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Room<K> {
    /// There is.
    Free,
    /// There will be when all of these have gone. None of them is superfluous.
    Evict(Vec<K>),
    /// There may be soon: something is leaving, loading, in use or too new to go. Ask again at this time, and whenever
    /// a process has gone, a load has ended, or something is no longer in use.
    Wait {
        until: Option<Duration>,
    },
    Refuse(Refusal),
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// More than there is in all.
    #[error("it needs {needed} bytes, and models.memory_limit is {limit}")]
    TooLarge { needed: u64, limit: u64 },
    /// More than pinned models leave.
    #[error("it needs {needed} bytes, and pinned models leave {left} of models.memory_limit")]
    Pinned { needed: u64, left: u64 },
    /// Others were loaded so recently that making them go at once would be all loading and no answering.
    #[error("the memory is taken by models that were loaded a moment ago")]
    Thrash {
        /// How long until enough of them may go.
        retry_after: Duration,
    },
}

/// What to do about memory that has grown beyond the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excess<K> {
    /// These must go.
    pub(super) evict: Vec<K>,
    /// This one has grown the most since it was loaded: let its calls end, and replace its hosts.
    pub(super) recycle: Option<K>,
}

impl Rules {
    /// Whether a load may begin. Loads ask one after the other: the next only when this one may begin, or has given up.
    pub(super) fn room<K: Copy + Ord>(
        &self,
        residents: &[Resident<K>],
        claims: Claims,
        wanted: Wanted,
        now: Duration,
    ) -> Room<K> {
        let _ = (residents, claims, wanted, now, LONGEST_STAY);
        Room::Free
    }

    /// Who has been unused for so long that they must go.
    pub(super) fn idle<K: Copy>(&self, residents: &[Resident<K>], now: Duration) -> Vec<K> {
        let _ = (residents, now);
        Vec::new()
    }

    /// When the first of them will have been.
    pub(super) fn next_idle<K>(&self, residents: &[Resident<K>]) -> Option<Duration> {
        let _ = residents;
        None
    }

    /// What to do when measured memory is more than allowed; nothing, when it is not.
    pub(super) fn excess<K: Copy + Ord>(&self, residents: &[Resident<K>], claims: Claims, now: Duration) -> Excess<K> {
        let _ = (residents, claims, now);
        Excess { evict: Vec::new(), recycle: None }
    }
}
