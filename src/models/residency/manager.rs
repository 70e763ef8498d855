//! Carries out what the residency policy decides: makes room for loads, and unloads versions that idle, outgrow their
//! room, or are unloaded by an operator.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

use super::accounts::{LoadedEntry, MemoryAccounts};
use super::no_room::{full, refused};
use super::policy::{RoomDecision, RoomDemand, Rules};
use crate::message::Fault;
use crate::models::load_queue::Priority;
use crate::models::loaded_version::LoadedVersion;
use crate::models::memory::memories_of;
use crate::models::single_flight::{LoadStep, LoadToken};
use crate::models::unload::UnloadReason;
use crate::models::version::Version;
use crate::telemetry::Metrics;

/// Interval at which idle versions are looked for and called versions are measured; memory may exceed its limit unseen
/// for that long.
const TICK: Duration = Duration::from_secs(1);

/// Uptime after which the crash of a version counts as its first again: a version that always crashes does not live as
/// long.
const SOUND: Duration = Duration::from_secs(300);

/// Longest wait of a load for room; then the requests that wait for the load get a fault that says when to come back.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps the loaded versions within the memory limit.
#[derive(Debug)]
pub(in crate::models) struct ResidencyManager {
    rules: Rules,
    patience: Duration,
    started: Instant,
    accounts: Mutex<MemoryAccounts>,
    /// Lets loads ask for room one after the other, so that a large one is not starved by small ones. A load that has
    /// its promise lets the next one ask.
    queue: tokio::sync::Mutex<()>,
    /// The number of loads that have asked for room.
    requests: AtomicU64,
    /// The number of calls that have begun, of all versions.
    calls: AtomicU64,
    /// Bytes of headroom to make for the next load, as soon as some request has its answer; 0 for none.
    headroom: AtomicU64,
    changed: Notify,
    tasks: TaskTracker,
    runtime: Handle,
    metrics: Metrics,
}

/// Load that waits for room. Dropped, the memory that was promised to it is free again.
#[derive(Debug)]
struct RoomRequest<'a> {
    manager: &'a ResidencyManager,
    /// The number of requests before this one.
    position: u64,
    bytes: u64,
}

/// Memory set aside for a load that is under way. Dropped, it is free again.
#[derive(Debug)]
pub(in crate::models) struct Reservation {
    manager: Arc<ResidencyManager>,
    bytes: u64,
}

impl ResidencyManager {
    pub(in crate::models) fn new(rules: Rules, tasks: TaskTracker, metrics: Metrics) -> Self {
        // From zero, so that the first unload for each reason shows as an increase.
        for reason in UnloadReason::ALL {
            metrics.model_evictions.with_label_values(&[reason.name()]);
        }
        metrics.models_memory_limit.set(rules.memory_limit.map_or(0, gauge));
        Self {
            rules,
            patience: PATIENCE,
            started: Instant::now(),
            accounts: Mutex::default(),
            queue: tokio::sync::Mutex::default(),
            requests: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            headroom: AtomicU64::new(0),
            changed: Notify::new(),
            tasks,
            runtime: Handle::current(),
            metrics,
        }
    }

    /// Returns the time since the start.
    pub(in crate::models) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Counts a call of any version, and returns its number among all calls.
    pub(in crate::models) fn count_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns the number of calls that have begun, of all versions.
    pub(in crate::models) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Returns the bytes that hosts may hold, and the bytes that they do hold, including those of loads and unloads
    /// under way.
    pub(in crate::models) fn memory(&self) -> (Option<u64>, u64) {
        let accounts = self.accounts.lock();
        let claims = accounts.unloading + accounts.loading;
        (self.rules.memory_limit, claims + accounts.entries.values().map(LoadedEntry::memory).sum::<u64>())
    }

    /// Waits for room for so many bytes; others may be unloaded for it. A load that is not urgent takes the room that
    /// can be had now, or as soon as the processes have gone that are ending, for other loads wait behind it.
    ///
    /// # Errors
    ///
    /// The fault that tells when to come back, or what to configure, when there is no room.
    pub(in crate::models) async fn reserve(
        self: &Arc<Self>,
        name: &str,
        bytes: u64,
        priority: &Priority,
    ) -> Result<Reservation, Fault> {
        let mut queue_lock = Some(self.queue.lock().await);
        let position = self.requests.fetch_add(1, Ordering::Relaxed);
        let request = RoomRequest { manager: self, position, bytes };
        let begun = self.now();
        let give_up = begun + self.patience;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registers for changes before looking, so that none is missed in between.
            changed.as_mut().enable();
            let now = self.now();
            let left = give_up.saturating_sub(now);
            // The priority may rise while the load waits, so each look reads it anew.
            let patience = if priority.is_urgent() { left } else { Duration::ZERO };
            let until = match self.decide(&request, patience, now) {
                RoomDecision::Free => return Ok(Reservation { manager: Arc::clone(self), bytes }),
                // A call may have taken one of the versions to evict in this very moment: look again.
                RoomDecision::Evict(_) => continue,
                RoomDecision::Refuse(refusal) => return Err(refused(name, &refusal)),
                RoomDecision::Coming if left.is_zero() => return Err(full(name, self.patience)),
                RoomDecision::Coming => {
                    // The load has its promise, so the next one need not wait for processes to end.
                    drop(queue_lock.take());
                    give_up
                }
                RoomDecision::Wait { .. } if patience.is_zero() => return Err(full(name, self.patience)),
                RoomDecision::Wait { until } => until.unwrap_or(give_up).min(give_up),
            };
            tokio::select! {
                () = changed => {}
                () = sleep_until(self.started + until.max(now + Duration::from_millis(1))) => {}
            }
        }
    }

    /// Asks the policy, and carries its decision out under the same lock.
    fn decide(self: &Arc<Self>, request: &RoomRequest<'_>, patience: Duration, now: Duration) -> RoomDecision<u64> {
        let &RoomRequest { position, bytes, .. } = request;
        let mut accounts = self.accounts.lock();
        let demand = RoomDemand { memory: bytes, patience };
        let residents = accounts.view(now, self.calls());
        let decision = self.rules.room(&residents, accounts.claims_before(position), demand, now);
        match &decision {
            RoomDecision::Free => {
                accounts.promised.remove(&position);
                accounts.loading += bytes;
            }
            RoomDecision::Coming => {
                accounts.promised.insert(position, bytes);
            }
            RoomDecision::Evict(keys) => {
                for key in keys {
                    self.unload_if_idle(&mut accounts, *key, UnloadReason::Memory);
                }
            }
            RoomDecision::Wait { .. } | RoomDecision::Refuse(_) => {}
        }
        decision
    }

    /// Unloads a version, unless a call has just taken it.
    fn unload_if_idle(self: &Arc<Self>, accounts: &mut MemoryAccounts, key: u64, reason: UnloadReason) {
        let closed = accounts.entries.get(&key).is_some_and(|entry| entry.loaded.uses.close_if_idle());
        if closed {
            if reason == UnloadReason::Memory {
                accounts.record_displacement(self.now());
            }
            self.unload_entry(accounts, key, reason);
        }
    }

    /// Unloads a version once the calls under way have their answers. False when it is not loaded.
    pub(in crate::models) fn unload(self: &Arc<Self>, version: &Version, reason: UnloadReason) -> bool {
        let mut accounts = self.accounts.lock();
        let Some(entry) = accounts.entries.get(&version.key) else { return false };
        entry.loaded.uses.close();
        self.unload_entry(&mut accounts, version.key, reason);
        true
    }

    /// Takes out a loaded version that is closed or broken, so that it can be loaded again.
    pub(in crate::models) fn discard_broken(self: &Arc<Self>, version: &Version, loaded: &Arc<LoadedVersion>) {
        if let Some(fault) = loaded.broken() {
            if self.now().saturating_sub(loaded.loaded_at) > SOUND {
                version.loaded.record_alive();
            }
            version.loaded.fail_ready(loaded, fault.clone(), LoadStep::Crash, Instant::now());
            let mut accounts = self.accounts.lock();
            if accounts.entries.get(&version.key).is_some_and(|entry| Arc::ptr_eq(&entry.loaded, loaded)) {
                loaded.uses.close();
                self.unload_entry(&mut accounts, version.key, UnloadReason::Broken);
            }
        } else {
            version.loaded.remove(loaded);
        }
    }

    /// Takes out an entry whose use count is closed, and ends its processes when the last lease has been given back.
    /// Its memory counts until they have gone.
    fn unload_entry(self: &Arc<Self>, accounts: &mut MemoryAccounts, key: u64, reason: UnloadReason) {
        let Some(LoadedEntry { version, loaded, .. }) = accounts.entries.remove(&key) else { return };
        version.loaded.remove(&loaded);
        // Another version with these labels may be loaded: hosted in another way, or registered again.
        if !accounts.entries.values().any(|entry| entry.version.labels() == version.labels()) {
            // Removing a label that was never set fails, which does no harm.
            let _ = self.metrics.model_memory.remove_label_values(&version.labels());
        }
        *version.history.unload_reason.lock() = Some(reason);
        // The next load will not need the memory that this one had leaked.
        version.history.memory.store(loaded.memory_when_loaded, Ordering::Relaxed);
        let bytes = loaded.memory.load(Ordering::Relaxed);
        // Nobody can tell when calls under way will end, so until then their memory counts as that of a load does.
        let is_called = loaded.uses.held() > 0;
        let claim = if is_called { &mut accounts.loading } else { &mut accounts.unloading };
        *claim += bytes;
        let age = self.now().saturating_sub(loaded.loaded_at);
        version.history.evictions.fetch_add(1, Ordering::Relaxed);
        self.metrics.model_evictions.with_label_values(&[reason.name()]).inc();
        self.metrics.model_age_at_eviction.observe(age.as_secs_f64());
        self.publish(accounts);
        tracing::info!(model = &*version.name, why = reason.in_words(), age = age.as_secs(), "model is being unloaded");
        let manager = Arc::clone(self);
        self.tasks.spawn_on(
            async move {
                if is_called {
                    loaded.uses.drained().await;
                    let mut accounts = manager.accounts.lock();
                    accounts.loading -= bytes;
                    accounts.unloading += bytes;
                    drop(accounts);
                    manager.changed.notify_waiters();
                }
                loaded.backend.stop().await;
                let mut accounts = manager.accounts.lock();
                accounts.unloading -= bytes;
                manager.publish(&accounts);
                drop(accounts);
                manager.changed.notify_waiters();
            },
            &self.runtime,
        );
    }

    /// Reacts to the end of the last use of a version, and to whatever else may bring room where there was none.
    pub(in crate::models) fn on_idle(self: &Arc<Self>) {
        let bytes = self.headroom.swap(0, Ordering::Relaxed);
        if bytes > 0 {
            self.make_headroom(&mut self.accounts.lock(), bytes, self.now());
        }
        self.changed.notify_waiters();
    }

    /// Looks after the loaded versions.
    pub(in crate::models) async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Decisions need fresh numbers, so measuring comes first.
            self.measure().await;
            let now = self.now();
            let mut accounts = self.accounts.lock();
            // Broken versions are only collected here: discarding one takes the lock again.
            let broken = |entry: &&LoadedEntry| entry.loaded.broken().is_some();
            let broken: Vec<_> = accounts.entries.values().filter(broken).map(LoadedEntry::clone).collect();
            for key in self.rules.idle(&accounts.view(now, self.calls()), now) {
                self.unload_if_idle(&mut accounts, key, UnloadReason::Idle);
            }
            self.enforce(&mut accounts, now);
            drop(accounts);
            for entry in broken {
                self.discard_broken(&entry.version, &entry.loaded);
            }
            // Measured versions may hold less than before, and the request that a load was for may never have come.
            self.on_idle();
        }
    }

    /// Brings memory back within its limit.
    fn enforce(self: &Arc<Self>, accounts: &mut MemoryAccounts, now: Duration) {
        let excess = self.rules.excess(&accounts.view(now, self.calls()), accounts.claims_before(u64::MAX), now);
        for key in excess.evict {
            self.unload_if_idle(accounts, key, UnloadReason::Memory);
        }
        if let Some(key) = excess.recycle
            && let Some(entry) = accounts.entries.get(&key)
        {
            tracing::warn!(
                model = &*entry.version.name,
                bytes = entry.memory(),
                bytes_when_loaded = entry.loaded.memory_when_loaded,
                "model has grown and memory is short: its host is replaced"
            );
            entry.loaded.uses.close();
            self.unload_entry(accounts, key, UnloadReason::Recycled);
        }
    }

    /// Unloads ahead of need while memory is short: the next load is likely to be as large as the last, and to come
    /// before the version that goes for it is called again, so it finds room at once.
    fn make_headroom(self: &Arc<Self>, accounts: &mut MemoryAccounts, bytes: u64, now: Duration) {
        if now < accounts.short_until {
            let residents = accounts.view(now, self.calls());
            for key in self.rules.headroom(&residents, accounts.claims_before(u64::MAX), bytes, now) {
                self.unload_if_idle(accounts, key, UnloadReason::Memory);
            }
        }
    }

    /// Measures the versions that were called since they were measured.
    async fn measure(&self) {
        // Reads which are due under the lock; the measuring itself takes milliseconds and is done without it.
        let due: Vec<(LoadedEntry, Vec<u32>)> = {
            let mut accounts = self.accounts.lock();
            let called = accounts.entries.values_mut().filter_map(|entry| {
                let calls = entry.version.usage.habit(0).uses;
                let due = calls != entry.measured_at || entry.loaded.uses.held() > 0;
                entry.measured_at = calls;
                due.then(|| (entry.clone(), entry.loaded.backend.pids()))
            });
            called.collect()
        };
        // All processes are measured in one go, for finding them costs the same however many are asked about.
        let pids = due.iter().flat_map(|(_, pids)| pids).copied().collect();
        let mut measured = memories_of(pids).await.into_iter();
        let accounts = self.accounts.lock();
        for (LoadedEntry { version, loaded, .. }, pids) in due {
            let bytes = measured.by_ref().take(pids.len()).flatten().reduce(u64::saturating_add);
            // The version may have been unloaded in the meantime, and its metric removed with it.
            let stays = accounts.entries.get(&version.key).is_some_and(|entry| Arc::ptr_eq(&entry.loaded, &loaded));
            if let (Some(bytes), true) = (bytes, stays) {
                loaded.memory.store(bytes, Ordering::Relaxed);
                self.publish_memory(&version, bytes);
            }
        }
        self.publish(&accounts);
    }

    fn publish_memory(&self, version: &Version, bytes: u64) {
        self.metrics.model_memory.with_label_values(&version.labels()).set(gauge(bytes));
    }

    /// Publishes the totals as gauges.
    fn publish(&self, accounts: &MemoryAccounts) {
        self.metrics.models_loaded.set(i64::try_from(accounts.entries.len()).unwrap_or(i64::MAX));
        let held: u64 = accounts.entries.values().map(LoadedEntry::memory).sum();
        self.metrics.models_memory.set(gauge(held + accounts.unloading));
    }
}

impl Drop for RoomRequest<'_> {
    fn drop(&mut self) {
        if self.manager.accounts.lock().promised.remove(&self.position).is_some() {
            self.manager.changed.notify_waiters();
        }
    }
}

impl Reservation {
    /// Turns the reserved memory into that of a loaded version, and hands the version to the requests that wait for it,
    /// in one step.
    pub(in crate::models) fn settle(
        mut self,
        version: &Arc<Version>,
        loaded: Arc<LoadedVersion>,
        token: LoadToken<LoadedVersion>,
    ) {
        let manager = Arc::clone(&self.manager);
        let mut accounts = manager.accounts.lock();
        let entry = LoadedEntry { version: Arc::clone(version), loaded: Arc::clone(&loaded), measured_at: 0 };
        manager.publish_memory(version, loaded.memory.load(Ordering::Relaxed));
        accounts.entries.insert(version.key, entry);
        let bytes = std::mem::take(&mut self.bytes);
        accounts.loading -= bytes;
        version.history.loads.fetch_add(1, Ordering::Relaxed);
        *version.history.unload_reason.lock() = None;
        token.finish(loaded);
        let now = manager.now();
        manager.enforce(&mut accounts, now);
        manager.publish(&accounts);
        drop(accounts);
        // Headroom is not made yet: the end of a process would take from the processor what the first answer needs.
        manager.headroom.store(bytes, Ordering::Relaxed);
        manager.changed.notify_waiters();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.manager.accounts.lock().loading -= self.bytes;
        self.manager.changed.notify_waiters();
    }
}

/// Converts bytes to the value of a gauge.
fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
