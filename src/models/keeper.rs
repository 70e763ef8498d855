//! Carries out what residency decides: makes room for what is loaded, and unloads what idles, outgrows its room, or is
//! told to go.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backoff::Step;
use super::memory;
use super::residency::{Room, Rules, Wanted};
use super::slot::Loading;
use super::turns::Urgency;
use super::version::{Loaded, Version};
use crate::message::Fault;
use crate::telemetry::Metrics;

mod house;
mod leaving;
mod no_room;

use house::{House, Tenant};
pub(super) use leaving::Leaving;
use no_room::{full, refused};

/// How often idle versions are looked for, and those that were called are measured.
const TICK: Duration = Duration::from_secs(1);

/// A version that was loaded for so long is not one that always crashes.
const SOUND: Duration = Duration::from_secs(300);

/// How long a load waits for room, before whoever waits for it is told to come back.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps what is loaded within its bounds.
#[derive(Debug)]
pub(super) struct Keeper {
    rules: Rules,
    patience: Duration,
    since: Instant,
    house: Mutex<House>,
    /// Loads ask for room one after the other, so that a large one is not starved by small ones. Whoever has a promise
    /// lets the next one ask.
    queue: tokio::sync::Mutex<()>,
    /// How many wait for room.
    waiting: AtomicUsize,
    /// How many have asked for room.
    asked: AtomicU64,
    /// How many calls have begun, of whatever version.
    calls: AtomicU64,
    /// For how many bytes headroom is to be made, as soon as somebody has his answer; 0 for none.
    headroom: AtomicU64,
    changed: Notify,
    tasks: TaskTracker,
    runtime: Handle,
    metrics: Metrics,
}

/// A load that waits for room. Dropped, what was promised to it is free again.
#[derive(Debug)]
struct Asking<'a> {
    keeper: &'a Keeper,
    /// How many had asked before it.
    place: u64,
    bytes: u64,
}

/// Memory set aside for a load that is under way.
#[derive(Debug)]
pub(super) struct Reservation {
    keeper: Arc<Keeper>,
    bytes: u64,
}

impl Keeper {
    pub(super) fn new(rules: Rules, tasks: TaskTracker, metrics: Metrics) -> Self {
        // From zero, so that the first one of each shows as an increase.
        for why in Leaving::ALL {
            metrics.model_evictions.with_label_values(&[why.name()]);
        }
        for reason in ["crashed", "timed_out"] {
            metrics.model_hosts_lost.with_label_values(&[reason]);
        }
        for result in ["ok", "error"] {
            metrics.model_switches.with_label_values(&[result]);
            metrics.registry_refreshes.with_label_values(&[result]);
        }
        metrics.models_memory_limit.set(rules.memory_limit.map_or(0, |limit| i64::try_from(limit).unwrap_or(i64::MAX)));
        Self {
            rules,
            patience: PATIENCE,
            since: Instant::now(),
            house: Mutex::default(),
            queue: tokio::sync::Mutex::default(),
            waiting: AtomicUsize::new(0),
            asked: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            headroom: AtomicU64::new(0),
            changed: Notify::new(),
            tasks,
            runtime: Handle::current(),
            metrics,
        }
    }

    /// The time since the start.
    pub(super) fn now(&self) -> Duration {
        self.since.elapsed()
    }

    /// A call of some version begins. Tells which of all calls it is.
    pub(super) fn count_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How many calls have begun, of whatever version.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The memory that hosts may hold, and what they do hold, those included that are on their way in or out.
    pub(super) fn memory(&self) -> (Option<u64>, u64) {
        let house = self.house();
        let claims = house.leaving + house.loading;
        (self.rules.memory_limit, claims + house.residents.values().map(Tenant::memory).sum::<u64>())
    }

    /// Waits for room for so many bytes; others may be unloaded for it. A load that is not urgent takes what can be had
    /// now, or as soon as the processes have gone that were told to, for others wait behind it.
    pub(super) async fn room(
        self: &Arc<Self>,
        name: &str,
        bytes: u64,
        urgency: &Urgency,
    ) -> Result<Reservation, Fault> {
        let mut turn = Some(self.queue.lock().await);
        let asking = Asking::new(self, bytes);
        let begun = self.now();
        let give_up = begun + self.patience;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let now = self.now();
            let left = give_up.saturating_sub(now);
            let patience = if urgency.is_raised() { left } else { Duration::ZERO };
            let until = match self.plan(&asking, patience, now) {
                Room::Free => return Ok(Reservation { keeper: Arc::clone(self), bytes }),
                // Some of them may have been taken in this very moment: look again.
                Room::Evict(_) => continue,
                Room::Refuse(refusal) => return Err(refused(name, &refusal)),
                Room::Coming if left.is_zero() => return Err(full(name, self.patience)),
                Room::Coming => {
                    // It has its promise, so the next one need not wait for processes to go.
                    drop(turn.take());
                    give_up
                }
                Room::Wait { .. } if patience.is_zero() => return Err(full(name, self.patience)),
                Room::Wait { until } => until.unwrap_or(give_up).min(give_up),
            };
            tokio::select! {
                () = changed => {}
                () = sleep_until(self.since + until.max(now + Duration::from_millis(1))) => {}
            }
        }
    }

    /// Decides, and carries it out in the same moment.
    fn plan(self: &Arc<Self>, asking: &Asking<'_>, patience: Duration, now: Duration) -> Room<u64> {
        let &Asking { place, bytes, .. } = asking;
        let mut house = self.house();
        let wanted = Wanted { memory: bytes, patience };
        let room = self.rules.room(&house.view(now, self.calls()), house.claims_before(place), wanted, now);
        match &room {
            Room::Free => {
                house.promised.remove(&place);
                house.loading += bytes;
            }
            Room::Coming => {
                house.promised.insert(place, bytes);
            }
            Room::Evict(keys) => {
                for key in keys {
                    self.evict(&mut house, *key, Leaving::Memory);
                }
            }
            Room::Wait { .. } | Room::Refuse(_) => {}
        }
        room
    }

    /// Has a version go, unless somebody has just taken it.
    fn evict(self: &Arc<Self>, house: &mut House, key: u64, why: Leaving) {
        let unused = house.residents.get(&key).is_some_and(|tenant| tenant.loaded.leases.close_if_unused());
        if unused {
            if why == Leaving::Memory {
                house.taken_for_another(self.now());
            }
            self.let_go(house, key, why);
        }
    }

    /// Has a version go that is this one still, once those who call it have their answers. False when it is not the one that is loaded.
    pub(super) fn unload(self: &Arc<Self>, version: &Version, why: Leaving) -> bool {
        let mut house = self.house();
        let Some(tenant) = house.residents.get(&version.key) else { return false };
        tenant.loaded.leases.close();
        self.let_go(&mut house, version.key, why);
        true
    }

    /// Takes out something that is closed or broken, so that it can be loaded again.
    pub(super) fn abandon(self: &Arc<Self>, version: &Version, loaded: &Arc<Loaded>) {
        if let Some(fault) = loaded.broken() {
            if self.now().saturating_sub(loaded.loaded_at) > SOUND {
                version.slot.works();
            }
            version.slot.spoil(loaded, fault.clone(), Step::Crash, Instant::now());
            let mut house = self.house();
            if house.residents.get(&version.key).is_some_and(|tenant| Arc::ptr_eq(&tenant.loaded, loaded)) {
                loaded.leases.close();
                self.let_go(&mut house, version.key, Leaving::Broken);
            }
        } else {
            version.slot.remove(loaded);
        }
    }

    /// The door is shut: takes it out, and has its processes ended when the last lease has been given back. Its memory
    /// counts until they have gone.
    fn let_go(self: &Arc<Self>, house: &mut House, key: u64, why: Leaving) {
        let Some(Tenant { version, loaded, .. }) = house.residents.remove(&key) else { return };
        version.slot.remove(&loaded);
        // Another of that number may be loaded: hosted in another way, or registered again.
        if !house.residents.values().any(|tenant| tenant.version.labels() == version.labels()) {
            // A label that was never set cannot be taken away, which is no matter.
            let _ = self.metrics.model_memory.remove_label_values(&version.labels());
        }
        *version.history.left() = Some(why);
        // What it had leaked, it will not need again.
        version.history.memory.store(loaded.memory_when_loaded, Ordering::Relaxed);
        let bytes = loaded.memory.load(Ordering::Relaxed);
        // While it still has callers, nobody can tell when its room will come.
        let is_called = loaded.leases.held() > 0;
        let claim = if is_called { &mut house.loading } else { &mut house.leaving };
        *claim += bytes;
        let age = self.now().saturating_sub(loaded.loaded_at);
        version.history.evictions.fetch_add(1, Ordering::Relaxed);
        self.metrics.model_evictions.with_label_values(&[why.name()]).inc();
        self.metrics.model_age_at_eviction.observe(age.as_secs_f64());
        self.show(house);
        tracing::info!(model = &*version.name, why = why.in_words(), age = age.as_secs(), "model is being unloaded");
        let keeper = Arc::clone(self);
        self.tasks.spawn_on(
            async move {
                if is_called {
                    loaded.leases.drained().await;
                    let mut house = keeper.house();
                    house.loading -= bytes;
                    house.leaving += bytes;
                    drop(house);
                    keeper.changed.notify_waiters();
                }
                loaded.stop().await;
                let mut house = keeper.house();
                house.leaving -= bytes;
                keeper.show(&house);
                drop(house);
                keeper.changed.notify_waiters();
            },
            &self.runtime,
        );
    }

    /// Somebody gave the last lease of a version back, or else there may be room where there was none.
    pub(super) fn unused(self: &Arc<Self>) {
        let bytes = self.headroom.swap(0, Ordering::Relaxed);
        if bytes > 0 {
            self.make_headroom(&mut self.house(), bytes, self.now());
        }
        self.look_again();
    }

    /// Has those look who wait for room.
    fn look_again(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }

    /// Looks after what is loaded until we stop.
    pub(super) async fn run(self: Arc<Self>, closing: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.measure().await;
            let now = self.now();
            let mut house = self.house();
            let broken = |tenant: &&Tenant| tenant.loaded.broken().is_some();
            let broken: Vec<_> = house.residents.values().filter(broken).map(Tenant::clone).collect();
            for key in self.rules.idle(&house.view(now, self.calls()), now) {
                self.evict(&mut house, key, Leaving::Idle);
            }
            self.enforce(&mut house, now);
            drop(house);
            for tenant in broken {
                self.abandon(&tenant.version, &tenant.loaded);
            }
            // What was measured may hold less than before, and a request may never have come for what it had loaded.
            self.unused();
        }
    }

    /// Brings memory back within its limit.
    fn enforce(self: &Arc<Self>, house: &mut House, now: Duration) {
        let excess = self.rules.excess(&house.view(now, self.calls()), house.claims_before(u64::MAX), now);
        for key in excess.evict {
            self.evict(house, key, Leaving::Memory);
        }
        if let Some(key) = excess.recycle
            && let Some(tenant) = house.residents.get(&key)
        {
            tracing::warn!(
                model = &*tenant.version.name,
                bytes = tenant.memory(),
                bytes_when_loaded = tenant.loaded.memory_when_loaded,
                "model has grown and memory is short: its host is replaced"
            );
            tenant.loaded.leases.close();
            self.let_go(house, key, Leaving::Recycled);
        }
    }

    /// Where memory is short, the next load is likely to be like the last, and to come before whoever goes for it is
    /// called: it finds room at once.
    fn make_headroom(self: &Arc<Self>, house: &mut House, bytes: u64, now: Duration) {
        if now < house.short_until {
            for key in self.rules.headroom(&house.view(now, self.calls()), house.claims_before(u64::MAX), bytes, now) {
                self.evict(house, key, Leaving::Memory);
            }
        }
    }

    /// Measures those that were called since they were measured.
    async fn measure(&self) {
        let due: Vec<(Tenant, Vec<u32>)> = {
            let mut house = self.house();
            let called = house.residents.values_mut().filter_map(|tenant| {
                let calls = tenant.version.usage.habit(0).uses;
                let due = calls != tenant.measured_at || tenant.loaded.leases.held() > 0;
                tenant.measured_at = calls;
                due.then(|| (tenant.clone(), tenant.loaded.seats.pids()))
            });
            called.collect()
        };
        let pids = due.iter().flat_map(|(_, pids)| pids).copied().collect();
        let mut measured = memories_of(pids).await.into_iter();
        let house = self.house();
        for (Tenant { version, loaded, .. }, pids) in due {
            let bytes = measured.by_ref().take(pids.len()).flatten().reduce(u64::saturating_add);
            // It may have gone in the meantime, and what was measured with it.
            let stays = house.residents.get(&version.key).is_some_and(|tenant| Arc::ptr_eq(&tenant.loaded, &loaded));
            if let (Some(bytes), true) = (bytes, stays) {
                loaded.memory.store(bytes, Ordering::Relaxed);
                self.show_memory(&version, bytes);
            }
        }
        self.show(&house);
    }

    fn show_memory(&self, version: &Version, bytes: u64) {
        self.metrics.model_memory.with_label_values(&version.labels()).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Puts it on the gauges.
    fn show(&self, house: &House) {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.models_loaded.set(i64::try_from(house.residents.len()).unwrap_or(i64::MAX));
        let held: u64 = house.residents.values().map(Tenant::memory).sum();
        self.metrics.models_memory.set(bytes(held + house.leaving));
    }

    fn house(&self) -> MutexGuard<'_, House> {
        // Nothing panics while it is held.
        self.house.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Asking<'a> {
    fn new(keeper: &'a Keeper, bytes: u64) -> Self {
        keeper.waiting.fetch_add(1, Ordering::SeqCst);
        let place = keeper.asked.fetch_add(1, Ordering::Relaxed);
        Self { keeper, place, bytes }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.keeper.waiting.fetch_sub(1, Ordering::Relaxed);
        if self.keeper.house().promised.remove(&self.place).is_some() {
            self.keeper.changed.notify_waiters();
        }
    }
}

impl Reservation {
    /// It is loaded: what was set aside becomes what it holds, and whoever waits for it gets it, in one step.
    pub(super) fn settle(mut self, version: &Arc<Version>, loaded: Arc<Loaded>, loading: Loading<Loaded>) {
        let keeper = Arc::clone(&self.keeper);
        let mut house = keeper.house();
        let tenant = Tenant { version: Arc::clone(version), loaded: Arc::clone(&loaded), measured_at: 0 };
        keeper.show_memory(version, loaded.memory.load(Ordering::Relaxed));
        house.residents.insert(version.key, tenant);
        let bytes = std::mem::take(&mut self.bytes);
        house.loading -= bytes;
        version.history.loads.fetch_add(1, Ordering::Relaxed);
        *version.history.left() = None;
        loading.finish(loaded);
        let now = keeper.now();
        keeper.enforce(&mut house, now);
        keeper.show(&house);
        drop(house);
        // Not yet: the end of a process would take from the processor what the first answer needs.
        keeper.headroom.store(bytes, Ordering::Relaxed);
        keeper.look_again();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.keeper.house().loading -= self.bytes;
        self.keeper.changed.notify_waiters();
    }
}

/// Private bytes of these processes together; None where that cannot be measured.
pub(super) async fn memory_of(pids: Vec<u32>) -> Option<u64> {
    memories_of(pids).await.into_iter().flatten().reduce(u64::saturating_add)
}

/// Private bytes of each of these processes and of what it has started; None for one that has gone.
async fn memories_of(pids: Vec<u32>) -> Vec<Option<u64>> {
    // Reading it walks the process's page tables in the kernel.
    tokio::task::spawn_blocking(move || memory::group_private_memories(&pids)).await.unwrap_or_default()
}

#[cfg(test)]
mod tests;
