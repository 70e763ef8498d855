use std::time::Duration;

use super::*;

fn fault() -> Fault {
    Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "no")
}

fn missing<T: std::fmt::Debug>(found: Found<T>) -> (Loading<T>, Waiting<T>) {
    match found {
        Found::Missing(loading, waiting) => (loading, waiting),
        other => panic!("{other:?}"),
    }
}

fn failed<T: std::fmt::Debug>(found: Found<T>) -> Fault {
    match found {
        Found::Failed(fault) => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_loads_and_all_who_wait_get_it() {
    let slot = Slot::empty();
    let now = Instant::now();
    let (loading, first) = missing(slot.find(now));
    let mut waiting = vec![tokio::spawn(first.outcome())];
    for _ in 0..100 {
        let Found::Loading(another) = slot.find(now) else { panic!("a second load") };
        waiting.push(tokio::spawn(another.outcome()));
    }
    loading.finish(Arc::new(7));
    for waiter in waiting {
        assert_eq!(*waiter.await.unwrap().unwrap(), 7);
    }
    assert_eq!(slot.get().as_deref(), Some(&7));
    assert!(matches!(slot.find(now), Found::Ready(_)));
}

#[tokio::test]
async fn a_failure_is_remembered_for_longer_each_time_and_forgotten_after_success() {
    let slot = Slot::<u8>::empty();
    let mut now = Instant::now();
    for seconds in [2, 4, 8] {
        let (loading, waiting) = missing(slot.find(now));
        loading.fail(fault(), Step::Start, now);
        assert_eq!(waiting.outcome().await.unwrap_err().retry_after, Some(Duration::from_secs(seconds)));
        now += Duration::from_secs(seconds - 1);
        assert_eq!(failed(slot.find(now)).retry_after, Some(Duration::from_secs(1)));
        now += Duration::from_secs(1);
    }
    missing(slot.find(now)).0.finish(Arc::new(7));
    slot.remove(&slot.get().unwrap());
    missing(slot.find(now)).0.fail(fault(), Step::Start, now);
    assert_eq!(failed(slot.find(now)).retry_after, Some(Duration::from_secs(2)));
}

#[tokio::test]
async fn a_permanent_fault_has_no_time_to_come_back() {
    let slot = Slot::<u8>::empty();
    let now = Instant::now();
    let fault = Fault::permanent(Code::ResourceDoesNotExist, Stage::Load, "no");
    missing(slot.find(now)).0.fail(fault.clone(), Step::Resolve, now);
    assert_eq!(failed(slot.find(now)), fault);
}

#[tokio::test]
async fn a_load_that_vanishes_falls_to_the_next() {
    let slot = Slot::empty();
    let now = Instant::now();
    let (loading, waiting) = missing(slot.find(now));
    drop(loading);
    assert!(waiting.outcome().await.unwrap_err().retryable);
    missing(slot.find(now)).0.finish(Arc::new(7));
    assert_eq!(slot.get().as_deref(), Some(&7));
}

#[tokio::test]
async fn only_what_is_in_there_is_removed() {
    let slot = Slot::empty();
    let now = Instant::now();
    missing(slot.find(now)).0.finish(Arc::new(1));
    let old = slot.get().unwrap();
    slot.remove(&old);
    missing(slot.find(now)).0.finish(Arc::new(2));
    slot.remove(&old);
    assert_eq!(slot.get().as_deref(), Some(&2));
    slot.remove(&slot.get().unwrap());
    assert!(slot.get().is_none());
}
