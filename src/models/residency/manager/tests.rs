use crate::config::{EnvManager, Runtime};
use crate::invocation::{HttpBackend, ServerOwner};
use crate::message::{Code, Stage};
use crate::models::backend::{Backend, ServerBackend};
use crate::models::host::{LoadReport, Phases, WarmUpResult};
use crate::models::resolved_model::ArtifactLocation;
use crate::models::single_flight::Lookup;
use crate::models::use_count::UseCount;
use crate::models::version::Hosting;

use super::*;

const MIB: u64 = 1 << 20;

fn manager(limit: u64) -> Arc<ResidencyManager> {
    let rules = Rules { memory_limit: Some(limit), idle_timeout: None, minimum_stay: Duration::ZERO };
    let manager = ResidencyManager::new(rules, TaskTracker::new(), Metrics::new().unwrap());
    Arc::new(ResidencyManager { patience: Duration::from_millis(200), ..manager })
}

fn version(key: u64) -> Arc<Version> {
    let hosting = Hosting {
        python: "python".to_owned(),
        runtime: Runtime::MlflowServe,
        env_manager: EnvManager::Local,
        workers: 1,
        threads: 1,
        concurrency: 1,
    };
    let name = format!("model/{key}").into();
    Arc::new(Version::new(key, name, "1".into(), ArtifactLocation::Directory("/model".into()), hosting))
}

/// Builds a loaded version without a process, so that nothing has to end when it is unloaded.
fn loaded(manager: &ResidencyManager, bytes: u64) -> Arc<LoadedVersion> {
    let url = "http://127.0.0.1:9/invocations".parse().unwrap();
    let backend = HttpBackend::new(url, "model".into(), ServerOwner::Signalbox, 1).unwrap();
    Arc::new(LoadedVersion {
        uses: UseCount::default(),
        backend: Backend::Server(Arc::new(ServerBackend::new(backend, 1, None))),
        loaded_at: manager.now(),
        load_cost: Duration::ZERO,
        preloaded: false,
        was_used: true.into(),
        memory: bytes.into(),
        memory_when_loaded: bytes,
        report: LoadReport { phases: Phases::default(), warm_up: WarmUpResult::default(), signature: None },
        _cached: None,
    })
}

async fn load(
    manager: &Arc<ResidencyManager>,
    version: &Arc<Version>,
    bytes: u64,
) -> Result<Arc<LoadedVersion>, Fault> {
    let priority = Priority::default();
    priority.raise();
    let room = manager.reserve(&version.name, bytes, &priority).await?;
    let loaded = loaded(manager, bytes);
    let Lookup::Missing(loading, _) = version.loaded.lookup(Instant::now()) else { panic!("it is loaded already") };
    room.settle(version, Arc::clone(&loaded), loading);
    version.usage.used(manager.now(), manager.count_call());
    Ok(loaded)
}

#[tokio::test]
async fn manager_evicts_and_counts_room_when_it_is_free() {
    let manager = manager(100 * MIB);
    let (first, second) = (version(1), version(2));
    load(&manager, &first, 60 * MIB).await.unwrap();
    assert_eq!(manager.memory(), (Some(100 * MIB), 60 * MIB));
    load(&manager, &second, 60 * MIB).await.unwrap();
    assert_eq!(manager.memory().1, 60 * MIB);
    assert!(first.loaded.get().is_none() && second.loaded.get().is_some());
    assert_eq!(first.history.evictions.load(Ordering::Relaxed), 1);
    assert!(*first.history.unload_reason.lock() == Some(UnloadReason::Memory));
}

#[tokio::test]
async fn manager_evicts_no_more_than_it_must() {
    let manager = manager(100 * MIB);
    let versions: Vec<_> = (1..=6).map(version).collect();
    for version in &versions {
        load(&manager, version, 20 * MIB).await.unwrap();
    }
    let evicted: u64 = versions.iter().map(|version| version.history.evictions.load(Ordering::Relaxed)).sum();
    assert_eq!((evicted, manager.memory().1), (1, 100 * MIB));
}

/// Simulates a process that takes its time to end.
fn begin_unload(manager: &ResidencyManager, bytes: u64) {
    manager.accounts.lock().unloading += bytes;
}

fn end_unload(manager: &ResidencyManager, bytes: u64) {
    manager.accounts.lock().unloading -= bytes;
    manager.changed.notify_waiters();
}

fn promised(manager: &ResidencyManager) -> Vec<u64> {
    manager.accounts.lock().promised.values().copied().collect()
}

fn spawn_reserve(manager: &Arc<ResidencyManager>, bytes: u64) -> tokio::task::JoinHandle<Result<Reservation, Fault>> {
    let manager = Arc::clone(manager);
    tokio::spawn(async move { manager.reserve("model/9", bytes, &Priority::default()).await })
}

/// Lets every task go on as far as it can.
async fn let_all_look() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn promises_are_given_in_order() {
    let manager = manager(100 * MIB);
    begin_unload(&manager, 100 * MIB);
    let [first, second, third] = [60, 30, 10].map(|bytes| spawn_reserve(&manager, bytes * MIB));
    let_all_look().await;
    assert_eq!(promised(&manager), [60 * MIB, 30 * MIB, 10 * MIB]);
    // The freed memory is enough for the others, but the first has waited longest.
    end_unload(&manager, 40 * MIB);
    let_all_look().await;
    assert!(!first.is_finished() && !second.is_finished() && !third.is_finished());
    end_unload(&manager, 20 * MIB);
    let first = first.await.unwrap().unwrap();
    assert_eq!((manager.memory().1, promised(&manager)), (100 * MIB, vec![30 * MIB, 10 * MIB]));
    // An aborted request needs nothing.
    second.abort();
    assert!(second.await.is_err());
    end_unload(&manager, 10 * MIB);
    let third = third.await.unwrap().unwrap();
    assert_eq!((manager.memory().1, promised(&manager)), (100 * MIB, vec![]));
    drop((first, third));
    assert_eq!(manager.memory().1, 30 * MIB);
}

#[tokio::test]
async fn load_evicts_while_another_waits_for_a_process() {
    let manager = manager(100 * MIB);
    let (first, second) = (version(1), version(2));
    load(&manager, &first, 30 * MIB).await.unwrap();
    begin_unload(&manager, 60 * MIB);
    let rooms = [60 * MIB, 40 * MIB].map(|bytes| spawn_reserve(&manager, bytes));
    let_all_look().await;
    assert!(first.loaded.get().is_none() && rooms.iter().all(|room| !room.is_finished()));
    assert_eq!(promised(&manager), [60 * MIB, 40 * MIB]);
    end_unload(&manager, 60 * MIB);
    for room in rooms {
        room.await.unwrap().unwrap();
    }
    load(&manager, &second, 100 * MIB).await.unwrap();
}

#[tokio::test]
async fn promise_holds_when_a_version_grows() {
    let manager = manager(100 * MIB);
    let version = version(1);
    let grows = load(&manager, &version, 40 * MIB).await.unwrap();
    begin_unload(&manager, 60 * MIB);
    let room = spawn_reserve(&manager, 60 * MIB);
    let_all_look().await;
    grows.memory.store(50 * MIB, Ordering::Relaxed);
    assert!(version.loaded.get().is_some() && promised(&manager) == [60 * MIB]);
    let now = manager.now();
    manager.enforce(&mut manager.accounts.lock(), now);
    assert!(version.loaded.get().is_none());
    end_unload(&manager, 60 * MIB);
    room.await.unwrap().unwrap();
}

#[tokio::test]
async fn load_gives_up_when_a_process_does_not_end() {
    let manager = manager(100 * MIB);
    begin_unload(&manager, 60 * MIB);
    let fault = manager.reserve("model/1", 60 * MIB, &Priority::default()).await.unwrap_err();
    assert_eq!((fault.code, fault.stage, fault.retryable), (Code::TemporarilyUnavailable, Stage::Load, true));
    assert!(promised(&manager).is_empty());
}

#[tokio::test]
async fn headroom_is_made_when_memory_stays_short() {
    let manager = manager(100 * MIB);
    let versions: Vec<_> = (1..=12).map(version).collect();
    for version in &versions {
        load(&manager, version, 10 * MIB).await.unwrap();
    }
    assert_eq!(manager.memory().1, 100 * MIB);
    // The request that the last version was loaded for has its answer.
    manager.on_idle();
    let_all_look().await;
    assert_eq!(manager.memory().1, 90 * MIB);
    // Headroom is made for one load, not for more than one.
    let room = manager.reserve("model/13", 10 * MIB, &Priority::default()).await.unwrap();
    assert_eq!((manager.memory().1, manager.accounts.lock().entries.len()), (100 * MIB, 9));
    drop(room);
}

#[tokio::test]
async fn load_waits_while_a_version_is_leased() {
    let manager = Arc::new(ResidencyManager { patience: PATIENCE, ..Arc::into_inner(manager(100 * MIB)).unwrap() });
    let (first, second) = (version(1), version(2));
    let held = load(&manager, &first, 60 * MIB).await.unwrap();
    assert!(held.uses.acquire());
    let asked = manager.requests.load(Ordering::Relaxed);
    let waiting = {
        let (manager, second) = (Arc::clone(&manager), Arc::clone(&second));
        tokio::spawn(async move { load(&manager, &second, 60 * MIB).await })
    };
    while manager.requests.load(Ordering::Relaxed) == asked {
        assert!(!waiting.is_finished());
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished() && first.loaded.get().is_some() && held.is_open());
    assert!(held.uses.release());
    manager.on_idle();
    waiting.await.unwrap().unwrap();
    assert!(first.loaded.get().is_none() && !held.uses.acquire());
}

#[tokio::test]
async fn load_without_room_gets_a_retry_after() {
    let manager = manager(100 * MIB);
    let held = load(&manager, &version(1), 60 * MIB).await.unwrap();
    assert!(held.uses.acquire());
    for (bytes, says) in [(60 * MIB, "come back later"), (200 * MIB, "raise models.memory_limit")] {
        let fault = load(&manager, &version(2), bytes).await.unwrap_err();
        assert_eq!((fault.code, fault.stage, fault.retryable), (Code::TemporarilyUnavailable, Stage::Load, true));
        assert!(fault.retry_after.is_some() && fault.message.contains(says), "{fault}");
    }
    // No memory stays reserved for the refused loads.
    assert_eq!(manager.memory().1, 60 * MIB);
}

#[tokio::test]
async fn unload_completes_after_the_last_call() {
    let manager = manager(100 * MIB);
    let version = version(1);
    let held = load(&manager, &version, 60 * MIB).await.unwrap();
    assert!(held.uses.acquire());
    assert!(manager.unload(&version, UnloadReason::Operator) && !manager.unload(&version, UnloadReason::Operator));
    assert!(!held.uses.acquire() && version.loaded.get().is_none());
    assert_eq!(manager.memory().1, 60 * MIB);
    held.uses.release();
    manager.tasks.close();
    manager.tasks.wait().await;
    assert_eq!(manager.memory().1, 0);
}

#[tokio::test]
async fn reservation_is_freed_when_dropped() {
    let manager = manager(100 * MIB);
    drop(manager.reserve("model/1", 90 * MIB, &Priority::default()).await.unwrap());
    assert_eq!(manager.memory().1, 0);
    load(&manager, &version(2), 90 * MIB).await.unwrap();
}

#[tokio::test]
async fn broken_version_keeps_its_fault() {
    let manager = manager(100 * MIB);
    let version = version(1);
    let held = load(&manager, &version, 60 * MIB).await.unwrap();
    let Backend::Server(backend) = &held.backend else { unreachable!() };
    let fault = Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "its process ended");
    backend.broken.set(fault).unwrap();
    manager.discard_broken(&version, &held);
    assert!(version.loaded.failure().unwrap().message.contains("its process ended"));
    manager.tasks.close();
    manager.tasks.wait().await;
    assert_eq!(manager.memory().1, 0);
}
