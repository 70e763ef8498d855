//! Residency policy: which loaded versions stay, and which are unloaded; by memory, by time, and never while one is in
//! use.
//!
//! The policy is pure: it has no clock and does nothing itself. Times count from some start. The view that it is given
//! must be consistent, and its decision must be carried out before it is asked again.

use std::time::Duration;

use crate::models::usage::Habit;

/// Longest time that a version may stay for having been expensive to load: 120 s, so that no single load blocks the
/// memory for longer.
const LONGEST_STAY: Duration = Duration::from_secs(120);

/// Wait, in calls, below which all waits count as equal.
const SOON: f32 = 1.0;

/// Load time up to which a load earns no minimum stay.
const CHEAP: Duration = Duration::from_millis(500);

/// Load time up to which loads count as alike. They differ more by accident than by model, and the first load of a
/// version takes several times as long as those after it, so their times say less about which version should stay than
/// the calls do.
///
/// A version that was that quick to load may be unloaded ahead of need: if it is missed after all, once in several
/// times, that costs no more than waiting for the end of a process each time.
const QUICK: Duration = Duration::from_millis(100);

/// Divisor of the memory limit for the largest headroom: at most an eighth of the memory is kept free.
const LARGEST_HEADROOM: u64 = 8;

/// Rules of residency, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::models) struct Rules {
    /// The bytes that all hosts may hold for themselves; unlimited without it.
    pub(in crate::models) memory_limit: Option<u64>,
    /// The time after which an unused version is unloaded.
    pub(in crate::models) idle_timeout: Option<Duration>,
    /// The time that a version stays at least, once it is loaded.
    pub(in crate::models) minimum_stay: Duration,
}

/// LoadedVersion version, as the policy sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Resident<K> {
    pub(super) key: K,
    /// Private bytes of its hosts, as measured last. Those of a version that is being unloaded count as a claim
    /// instead.
    pub(super) memory: u64,
    /// Private bytes of its hosts when it had been loaded and warmed.
    pub(super) memory_when_loaded: u64,
    pub(super) loaded_at: Duration,
    /// The duration of its load: the cost of having it back.
    pub(super) load_cost: Duration,
    pub(super) habit: Habit,
    /// True if the version was loaded with no request waiting for it.
    pub(super) preloaded: bool,
    /// True if any lease on it is held.
    pub(super) in_use: bool,
    /// True if an operator pinned the version.
    pub(super) pinned: bool,
}

/// Memory that is taken, or spoken for, and belongs to no resident.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MemoryClaims {
    /// Bytes of processes that were told to end and have not ended yet.
    pub(super) unloading: u64,
    /// Bytes of loads that are under way.
    pub(super) loading: u64,
    /// Bytes of loads that asked before, and begin when enough of the ending processes have gone.
    pub(super) promised: u64,
}

/// Demand of a load for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RoomDemand {
    /// The bytes that it will hold, as far as is known.
    pub(super) memory: u64,
    /// The time that the load can wait for room.
    pub(super) patience: Duration,
}

/// Decision on whether there is room for one more load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RoomDecision<K> {
    /// There is room.
    Free,
    /// There will be room when the ending processes have gone: it may be promised.
    Coming,
    /// Room will be coming when all of these versions have been told to end. None of them is superfluous.
    Evict(Vec<K>),
    /// There may be room soon: a version is loading, in use or too new to go. The load asks again at this time, and
    /// whenever a load has ended, or a version is no longer in use.
    Wait {
        until: Option<Duration>,
    },
    Refuse(RoomRefusal),
}

/// Reason for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RoomRefusal {
    /// The load needs more than the whole limit.
    #[error("it needs {needed} bytes, and models.memory_limit is {limit}")]
    TooLarge { needed: u64, limit: u64 },
    /// The load needs more than pinned models leave.
    #[error("it needs {needed} bytes, and pinned models leave {left} of models.memory_limit")]
    Pinned { needed: u64, left: u64 },
    /// The others were loaded so recently that evicting them at once would be all loading and no answering (thrashing).
    #[error("the memory is taken by models that were loaded a moment ago")]
    Thrash {
        /// The time until enough of them may go.
        retry_after: Duration,
    },
}

/// Plan for memory that has grown beyond the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExcessPlan<K> {
    /// The versions that must go.
    pub(super) evict: Vec<K>,
    /// The version that has grown the most since it was loaded: its calls may end, and its hosts are replaced.
    pub(super) recycle: Option<K>,
}

impl Rules {
    /// Decides whether a load may begin. Loads ask one after the other: the next only when this one may begin, has a
    /// promise, or has given up; else two would wait for the same room.
    ///
    /// A load with a promise asks again whenever a process has gone, and counts the promises made before its own:
    /// promises made later take nothing from it, so however many come, it may begin when the processes have gone that
    /// were ending.
    pub(super) fn room<K: Copy + Ord>(
        &self,
        residents: &[Resident<K>],
        claims: MemoryClaims,
        wanted: RoomDemand,
        now: Duration,
    ) -> RoomDecision<K> {
        let Some(limit) = self.memory_limit else { return RoomDecision::Free };
        let needed = wanted.memory;
        let missing = taken(residents, claims).saturating_add(needed).saturating_sub(limit);
        if missing == 0 {
            return RoomDecision::Free;
        }
        // A load that cannot fit even with every guest gone is refused before any is evicted for it.
        let left = limit.saturating_sub(sum(residents.iter().filter(|resident| resident.pinned)));
        if needed > limit {
            return RoomDecision::Refuse(RoomRefusal::TooLarge { needed, limit });
        }
        if needed > left {
            return RoomDecision::Refuse(RoomRefusal::Pinned { needed, left });
        }
        // Processes that are ending anyway spare others the eviction.
        let missing = missing.saturating_sub(claims.unloading);
        if missing == 0 {
            return RoomDecision::Coming;
        }
        if let Some(evicted) = least_valuable(residents, |resident| self.may_go(resident, now), missing) {
            return RoomDecision::Evict(evicted);
        }
        // Nothing may be evicted now; waiting is worth it if enough idle versions end their minimum stay in time.
        let patience_ends = now.saturating_add(wanted.patience);
        if let Some(time) = self.soonest(residents, |resident| !resident.in_use, missing)
            && time <= patience_ends
        {
            return RoomDecision::Wait { until: Some(time) };
        }
        // Calls and loads may end at any moment; a minimum stay does not.
        match self.soonest(residents, |_| true, missing) {
            Some(time) if time > patience_ends => RoomDecision::Refuse(RoomRefusal::Thrash { retry_after: time - now }),
            Some(_) | None => RoomDecision::Wait { until: None },
        }
    }

    /// Chooses the versions to unload ahead of the next load, where memory is short, so that a load of so many bytes
    /// finds room and need not wait for the end of a process. Only versions that are quick to have back are chosen.
    pub(super) fn headroom<K: Copy + Ord>(
        &self,
        residents: &[Resident<K>],
        claims: MemoryClaims,
        bytes: u64,
        now: Duration,
    ) -> Vec<K> {
        let Some(limit) = self.memory_limit.filter(|limit| bytes <= limit / LARGEST_HEADROOM) else {
            return Vec::new();
        };
        let missing = taken(residents, claims).saturating_add(bytes).saturating_sub(limit);
        let missing = missing.saturating_sub(claims.unloading);
        let go = least_valuable(residents, |resident| self.may_go(resident, now), missing).unwrap_or_default();
        let is_dear = |resident: &Resident<K>| resident.load_cost > QUICK && go.contains(&resident.key);
        if residents.iter().any(is_dear) { Vec::new() } else { go }
    }

    /// Lists the versions that have been unused for so long that they must go.
    pub(super) fn idle<K: Copy>(&self, residents: &[Resident<K>], now: Duration) -> Vec<K> {
        let Some(timeout) = self.idle_timeout else { return Vec::new() };
        let due = |resident: &&Resident<K>| {
            let may_go = !resident.in_use && !resident.pinned;
            may_go && resident.quiet_since().saturating_add(timeout).max(self.stay_ends(resident)) <= now
        };
        residents.iter().filter(due).map(|resident| resident.key).collect()
    }

    /// Plans the unloads for memory that is measured beyond the limit; nothing, when it is within.
    ///
    /// The least valuable versions go, if that is enough. If it is not, the version that leaks most must give up the
    /// memory that it has taken, and the others only as much as is then still missing.
    pub(super) fn excess<K: Copy + Ord>(
        &self,
        residents: &[Resident<K>],
        claims: MemoryClaims,
        now: Duration,
    ) -> ExcessPlan<K> {
        let limit = self.memory_limit.unwrap_or(u64::MAX);
        let missing = taken(residents, claims).saturating_sub(limit).saturating_sub(claims.unloading);
        let may_go = |resident: &Resident<K>| self.may_go(resident, now);
        // Idle versions go first, for that costs no request its answer.
        if let Some(evict) = least_valuable(residents, may_go, missing) {
            return ExcessPlan { evict, recycle: None };
        }
        // They are not enough: only a version that cannot be evicted is recycled, and only for a leak of its own.
        let leaks = residents.iter().filter(|resident| resident.leaks() && self.stay_ends(resident) <= now);
        let leak = leaks.filter(|resident| !may_go(resident)).max_by_key(|resident| (resident.growth(), resident.key));
        let missing = missing.saturating_sub(leak.map_or(0, Resident::growth));
        let all = || residents.iter().filter(|resident| may_go(resident)).map(|resident| resident.key).collect();
        ExcessPlan {
            evict: least_valuable(residents, may_go, missing).unwrap_or_else(all),
            recycle: leak.map(|resident| resident.key),
        }
    }

    fn may_go<K>(&self, resident: &Resident<K>, now: Duration) -> bool {
        !resident.in_use && !resident.pinned && self.stay_ends(resident) <= now
    }

    /// Computes the end of a version's minimum stay: for an expensive load, twice the time that it took beyond a cheap
    /// one, so that however requests come, no memory spends much of its time with expensive loads. Cheap loads earn no
    /// stay: it would be worth less than the freedom to evict the least valuable. A version that was loaded ahead of
    /// any request makes way for one.
    fn stay_ends<K>(&self, resident: &Resident<K>) -> Duration {
        let unused = resident.habit.last_use.is_none_or(|time| time < resident.loaded_at);
        if resident.preloaded && unused {
            return resident.loaded_at;
        }
        let stay = self.minimum_stay.max((2 * resident.load_cost.saturating_sub(CHEAP)).min(LONGEST_STAY));
        resident.loaded_at.saturating_add(stay)
    }

    /// Computes the time at which so many bytes' worth of these versions will have ended their stay. `None` when all of
    /// them are not enough.
    fn soonest<K>(
        &self,
        residents: &[Resident<K>],
        counts: impl Fn(&Resident<K>) -> bool,
        bytes: u64,
    ) -> Option<Duration> {
        let guests = residents.iter().filter(|resident| !resident.pinned && counts(resident));
        let mut ends: Vec<_> = guests.map(|resident| (self.stay_ends(resident), resident.memory)).collect();
        ends.sort_unstable();
        let mut freed = 0;
        let enough = ends.into_iter().find(|(_, memory)| {
            freed += memory;
            freed >= bytes
        });
        enough.map(|(time, _)| time)
    }
}

impl<K> Resident<K> {
    fn quiet_since(&self) -> Duration {
        self.habit.last_use.unwrap_or_default().max(self.loaded_at)
    }

    fn growth(&self) -> u64 {
        self.memory.saturating_sub(self.memory_when_loaded)
    }

    /// Tells whether a version leaks: caches fill up in use, but growth by more than a quarter has another cause.
    fn leaks(&self) -> bool {
        self.growth() > self.memory_when_loaded / 4
    }

    /// Computes the value of a version: the seconds of loading that each byte saves with each call of any version, if
    /// it stays.
    fn value(&self, wait_of_strangers: f32) -> f64 {
        let Habit { silence, pace, .. } = self.habit;
        let wait = pace.map_or(silence.max(wait_of_strangers), |pace| pace.expected_wait(silence));
        self.load_cost.max(QUICK).as_secs_f64() / (self.memory.max(1) as f64 * f64::from(wait.max(SOON)))
    }
}

/// Chooses the versions that may go and are worth the least: as many as it takes to free so many bytes, and none that
/// it does not take. `None` when all of them are not enough.
fn least_valuable<K: Copy + Ord>(
    residents: &[Resident<K>],
    may_go: impl Fn(&Resident<K>) -> bool,
    bytes: u64,
) -> Option<Vec<K>> {
    // A version that was used only once has to prove itself: it counts as the one that is used most seldom.
    let intervals = residents.iter().filter_map(|resident| resident.habit.pace).map(|pace| pace.interval);
    let wait_of_strangers = intervals.fold(0.0, f32::max);
    let mut ranked: Vec<_> = residents
        .iter()
        .filter(|resident| may_go(resident))
        .map(|resident| (resident.value(wait_of_strangers), resident))
        .collect();
    ranked.sort_by(|(value, one), (other, two)| value.total_cmp(other).then(one.key.cmp(&two.key)));

    // Takes from the cheap end until enough is freed.
    let mut freed = 0;
    let mut chosen = Vec::new();
    for (_, resident) in ranked {
        if freed >= bytes {
            break;
        }
        freed += resident.memory;
        chosen.push(resident);
    }
    if freed < bytes {
        return None;
    }
    // A large version at the end may have made smaller ones superfluous; the most valuable of those are spared.
    for index in (0..chosen.len()).rev() {
        if freed - chosen[index].memory >= bytes {
            freed -= chosen.remove(index).memory;
        }
    }
    Some(chosen.into_iter().map(|resident| resident.key).collect())
}

fn taken<K>(residents: &[Resident<K>], claims: MemoryClaims) -> u64 {
    sum(residents.iter()) + claims.unloading + claims.loading + claims.promised
}

fn sum<'a, K: 'a>(residents: impl Iterator<Item = &'a Resident<K>>) -> u64 {
    residents.map(|resident| resident.memory).sum()
}

#[cfg(test)]
mod tests;
