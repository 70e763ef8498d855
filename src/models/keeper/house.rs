//! Who is in, who is on the way in or out, and what they hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::models::residency::{Claims, Resident};
use crate::models::version::{Loaded, Version};

/// How long a request that waited for a load has to take what was loaded, before that may go for others.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);

/// Memory is short when something had to go for another twice within so long.
const SHORTAGE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct House {
    pub(super) residents: BTreeMap<u64, Tenant>,
    /// Of processes that were told to go and are not yet gone, in bytes.
    pub(super) leaving: u64,
    /// Of loads that are under way.
    pub(super) loading: u64,
    /// Of loads that wait for what is leaving, by the order in which they asked.
    pub(super) promised: BTreeMap<u64, u64>,
    /// When something last went for another, and until when memory counts as short for it.
    pub(super) last_taken: Option<Duration>,
    pub(super) short_until: Duration,
}

#[derive(Debug, Clone)]
pub(super) struct Tenant {
    pub(super) version: Arc<Version>,
    pub(super) loaded: Arc<Loaded>,
    /// How many calls there had been when its memory was measured.
    pub(super) measured_at: u64,
}

impl House {
    pub(super) fn taken_for_another(&mut self, now: Duration) {
        if self.last_taken.replace(now).is_some_and(|last| now.saturating_sub(last) < SHORTAGE) {
            self.short_until = now + SHORTAGE;
        }
    }

    pub(super) fn view(&self, now: Duration, calls: u64) -> Vec<Resident<u64>> {
        self.residents.values().map(|tenant| tenant.view(now, calls)).collect()
    }

    /// What counts for whoever asked at this place: of what is promised, only what was before.
    pub(super) fn claims_before(&self, place: u64) -> Claims {
        let promised = self.promised.range(..place).map(|(_, bytes)| bytes).sum();
        Claims { leaving: self.leaving, loading: self.loading, promised }
    }
}

impl Tenant {
    pub(super) fn memory(&self) -> u64 {
        self.loaded.memory.load(Ordering::Relaxed)
    }

    /// Whether the request that it was loaded for has yet to take it.
    fn is_awaited(&self, now: Duration) -> bool {
        let Loaded { preloaded, taken, loaded_at, .. } = &*self.loaded;
        !preloaded && !taken.load(Ordering::Relaxed) && now.saturating_sub(*loaded_at) < TAKEN_WITHIN
    }

    pub(super) fn view(&self, now: Duration, calls: u64) -> Resident<u64> {
        Resident {
            key: self.version.key,
            memory: self.memory(),
            memory_when_loaded: self.loaded.memory_when_loaded,
            loaded_at: self.loaded.loaded_at,
            load_cost: self.loaded.load_cost,
            habit: self.version.usage.habit(calls),
            preloaded: self.loaded.preloaded,
            in_use: self.loaded.leases.held() > 0 || self.is_awaited(now),
            pinned: self.version.pinned.load(Ordering::Relaxed),
        }
    }
}
