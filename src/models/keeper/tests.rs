use crate::config::{EnvManager, Runtime};
use crate::invocation::{Concern, HttpBackend};
use crate::message::{Code, Stage};
use crate::models::host::{LoadReport, Phases, Proof};
use crate::models::leases::Leases;
use crate::models::slot::Found;
use crate::models::version::{Hosting, Origin, Seats, ServerSeats};

use super::*;

const MIB: u64 = 1 << 20;

fn keeper(limit: u64) -> Arc<Keeper> {
    let rules = Rules { memory_limit: Some(limit), idle_timeout: None, minimum_stay: Duration::ZERO };
    let keeper = Keeper::new(rules, TaskTracker::new(), Metrics::new().unwrap());
    Arc::new(Keeper { patience: Duration::from_millis(200), ..keeper })
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
    Arc::new(Version::new(key, name, "1".into(), Origin::Directory("/model".into()), hosting))
}

/// Held by no process, so nothing has to end when it goes.
fn loaded(keeper: &Keeper, bytes: u64) -> Arc<Loaded> {
    let url = "http://127.0.0.1:9/invocations".parse().unwrap();
    let backend = HttpBackend::new(url, "model".into(), Concern::Ours, 1).unwrap();
    Arc::new(Loaded {
        leases: Leases::default(),
        seats: Seats::Server(Arc::new(ServerSeats::new(backend, 1, None))),
        loaded_at: keeper.now(),
        load_cost: Duration::ZERO,
        preloaded: false,
        taken: true.into(),
        memory: bytes.into(),
        memory_when_loaded: bytes,
        report: LoadReport { phases: Phases::default(), proof: Proof::default(), signature: None },
        _cached: None,
    })
}

async fn load(keeper: &Arc<Keeper>, version: &Arc<Version>, bytes: u64) -> Result<Arc<Loaded>, Fault> {
    let urgency = Urgency::default();
    urgency.raise();
    let room = keeper.room(&version.name, bytes, &urgency).await?;
    let loaded = loaded(keeper, bytes);
    let Found::Missing(loading, _) = version.slot.find(Instant::now()) else { panic!("it is loaded already") };
    room.settle(version, Arc::clone(&loaded), loading);
    version.usage.used(keeper.now(), keeper.count_call());
    Ok(loaded)
}

#[tokio::test]
async fn makes_room_and_counts_it_only_when_it_is_free() {
    let keeper = keeper(100 * MIB);
    let (first, second) = (version(1), version(2));
    load(&keeper, &first, 60 * MIB).await.unwrap();
    assert_eq!(keeper.memory(), (Some(100 * MIB), 60 * MIB));
    load(&keeper, &second, 60 * MIB).await.unwrap();
    assert_eq!(keeper.memory().1, 60 * MIB);
    assert!(first.slot.get().is_none() && second.slot.get().is_some());
    assert_eq!(first.history.evictions.load(Ordering::Relaxed), 1);
    assert!(*first.history.left() == Some(Leaving::Memory));
}

#[tokio::test]
async fn no_more_go_than_must() {
    let keeper = keeper(100 * MIB);
    let versions: Vec<_> = (1..=6).map(version).collect();
    for version in &versions {
        load(&keeper, version, 20 * MIB).await.unwrap();
    }
    let evicted: u64 = versions.iter().map(|version| version.history.evictions.load(Ordering::Relaxed)).sum();
    assert_eq!((evicted, keeper.memory().1), (1, 100 * MIB));
}

/// Has a process leave that takes its time.
fn leave(keeper: &Keeper, bytes: u64) {
    keeper.house().leaving += bytes;
}

fn gone(keeper: &Keeper, bytes: u64) {
    keeper.house().leaving -= bytes;
    keeper.changed.notify_waiters();
}

fn promised(keeper: &Keeper) -> Vec<u64> {
    keeper.house().promised.values().copied().collect()
}

fn spawn_room(keeper: &Arc<Keeper>, bytes: u64) -> tokio::task::JoinHandle<Result<Reservation, Fault>> {
    let keeper = Arc::clone(keeper);
    tokio::spawn(async move { keeper.room("model/9", bytes, &Urgency::default()).await })
}

/// Lets every task go on as far as it can.
async fn all_have_looked() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_coming_is_promised_and_given_in_turn() {
    let keeper = keeper(100 * MIB);
    leave(&keeper, 100 * MIB);
    let [first, second, third] = [60, 30, 10].map(|bytes| spawn_room(&keeper, bytes * MIB));
    all_have_looked().await;
    assert_eq!(promised(&keeper), [60 * MIB, 30 * MIB, 10 * MIB]);
    // Enough for the others, but the first has waited longest.
    gone(&keeper, 40 * MIB);
    all_have_looked().await;
    assert!(!first.is_finished() && !second.is_finished() && !third.is_finished());
    gone(&keeper, 20 * MIB);
    let first = first.await.unwrap().unwrap();
    assert_eq!((keeper.memory().1, promised(&keeper)), (100 * MIB, vec![30 * MIB, 10 * MIB]));
    // Who no longer waits needs nothing.
    second.abort();
    assert!(second.await.is_err());
    gone(&keeper, 10 * MIB);
    let third = third.await.unwrap().unwrap();
    assert_eq!((keeper.memory().1, promised(&keeper)), (100 * MIB, vec![]));
    drop((first, third));
    assert_eq!(keeper.memory().1, 30 * MIB);
}

#[tokio::test]
async fn a_load_chooses_who_goes_while_another_waits_for_a_process() {
    let keeper = keeper(100 * MIB);
    let (first, second) = (version(1), version(2));
    load(&keeper, &first, 30 * MIB).await.unwrap();
    leave(&keeper, 60 * MIB);
    let rooms = [60 * MIB, 40 * MIB].map(|bytes| spawn_room(&keeper, bytes));
    all_have_looked().await;
    assert!(first.slot.get().is_none() && rooms.iter().all(|room| !room.is_finished()));
    assert_eq!(promised(&keeper), [60 * MIB, 40 * MIB]);
    gone(&keeper, 60 * MIB);
    for room in rooms {
        room.await.unwrap().unwrap();
    }
    load(&keeper, &second, 100 * MIB).await.unwrap();
}

#[tokio::test]
async fn what_grew_after_a_promise_is_made_good() {
    let keeper = keeper(100 * MIB);
    let version = version(1);
    let grows = load(&keeper, &version, 40 * MIB).await.unwrap();
    leave(&keeper, 60 * MIB);
    let room = spawn_room(&keeper, 60 * MIB);
    all_have_looked().await;
    grows.memory.store(50 * MIB, Ordering::Relaxed);
    assert!(version.slot.get().is_some() && promised(&keeper) == [60 * MIB]);
    let now = keeper.now();
    keeper.enforce(&mut keeper.house(), now);
    assert!(version.slot.get().is_none());
    gone(&keeper, 60 * MIB);
    room.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_process_that_does_not_go_is_not_waited_for_for_ever() {
    let keeper = keeper(100 * MIB);
    leave(&keeper, 60 * MIB);
    let fault = keeper.room("model/1", 60 * MIB, &Urgency::default()).await.unwrap_err();
    assert_eq!((fault.code, fault.stage, fault.retryable), (Code::TemporarilyUnavailable, Stage::Load, true));
    assert!(promised(&keeper).is_empty());
}

#[tokio::test]
async fn where_memory_stays_short_the_next_load_finds_room() {
    let keeper = keeper(100 * MIB);
    let versions: Vec<_> = (1..=12).map(version).collect();
    for version in &versions {
        load(&keeper, version, 10 * MIB).await.unwrap();
    }
    assert_eq!(keeper.memory().1, 100 * MIB);
    // The request that the last one was loaded for has its answer.
    keeper.unused();
    all_have_looked().await;
    assert_eq!(keeper.memory().1, 90 * MIB);
    // For one load, not for more than one.
    let room = keeper.room("model/13", 10 * MIB, &Urgency::default()).await.unwrap();
    assert_eq!((keeper.memory().1, keeper.house().residents.len()), (100 * MIB, 9));
    drop(room);
}

#[tokio::test]
async fn what_is_leased_stays_and_a_load_waits_for_its_end() {
    let keeper = Arc::new(Keeper { patience: PATIENCE, ..Arc::into_inner(keeper(100 * MIB)).unwrap() });
    let (first, second) = (version(1), version(2));
    let held = load(&keeper, &first, 60 * MIB).await.unwrap();
    assert!(held.leases.take());
    let waiting = {
        let (keeper, second) = (Arc::clone(&keeper), Arc::clone(&second));
        tokio::spawn(async move { load(&keeper, &second, 60 * MIB).await })
    };
    while keeper.waiting.load(Ordering::Relaxed) == 0 {
        assert!(!waiting.is_finished());
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished() && first.slot.get().is_some() && held.is_open());
    assert!(held.leases.give_back());
    keeper.unused();
    waiting.await.unwrap().unwrap();
    assert!(first.slot.get().is_none() && !held.leases.take());
}

#[tokio::test]
async fn a_load_that_gets_no_room_is_told_to_come_back() {
    let keeper = keeper(100 * MIB);
    let held = load(&keeper, &version(1), 60 * MIB).await.unwrap();
    assert!(held.leases.take());
    for (bytes, says) in [(60 * MIB, "come back later"), (200 * MIB, "raise models.memory_limit")] {
        let fault = load(&keeper, &version(2), bytes).await.unwrap_err();
        assert_eq!((fault.code, fault.stage, fault.retryable), (Code::TemporarilyUnavailable, Stage::Load, true));
        assert!(fault.retry_after.is_some() && fault.message.contains(says), "{fault}");
    }
    // Nothing stays set aside for them.
    assert_eq!(keeper.memory().1, 60 * MIB);
}

#[tokio::test]
async fn what_is_told_to_go_goes_after_its_last_call() {
    let keeper = keeper(100 * MIB);
    let version = version(1);
    let held = load(&keeper, &version, 60 * MIB).await.unwrap();
    assert!(held.leases.take());
    assert!(keeper.unload(&version, Leaving::Operator) && !keeper.unload(&version, Leaving::Operator));
    assert!(!held.leases.take() && version.slot.get().is_none());
    assert_eq!(keeper.memory().1, 60 * MIB);
    held.leases.give_back();
    keeper.tasks.close();
    keeper.tasks.wait().await;
    assert_eq!(keeper.memory().1, 0);
}

#[tokio::test]
async fn a_reservation_that_is_given_up_is_free_again() {
    let keeper = keeper(100 * MIB);
    drop(keeper.room("model/1", 90 * MIB, &Urgency::default()).await.unwrap());
    assert_eq!(keeper.memory().1, 0);
    load(&keeper, &version(2), 90 * MIB).await.unwrap();
}

#[tokio::test]
async fn what_is_broken_is_remembered_with_its_reason() {
    let keeper = keeper(100 * MIB);
    let version = version(1);
    let held = load(&keeper, &version, 60 * MIB).await.unwrap();
    let Seats::Server(seats) = &held.seats else { unreachable!() };
    let fault = Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "its process ended");
    seats.broken.set(fault).unwrap();
    keeper.abandon(&version, &held);
    assert!(version.slot.failure().unwrap().message.contains("its process ended"));
    keeper.tasks.close();
    keeper.tasks.wait().await;
    assert_eq!(keeper.memory().1, 0);
}
