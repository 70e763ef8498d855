use super::*;
use crate::message::{Code, Stage};

fn fault() -> Fault {
    Fault::passing(Code::TemporarilyUnavailable, Stage::Load, "no")
}

fn missing<T: std::fmt::Debug>(found: Lookup<T>) -> (LoadToken<T>, LoadWaiter<T>) {
    match found {
        Lookup::Missing(token, waiter) => (token, waiter),
        other => panic!("{other:?}"),
    }
}

fn failed<T: std::fmt::Debug>(found: Lookup<T>) -> Fault {
    match found {
        Lookup::Failed(fault) => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_caller_loads_and_all_get_the_value() {
    let flight = SingleFlight::empty();
    let now = Instant::now();
    let (token, first) = missing(flight.lookup(now));
    let mut waiting = vec![tokio::spawn(first.outcome())];
    for _ in 0..100 {
        let Lookup::Loading(another) = flight.lookup(now) else { panic!("a second load") };
        waiting.push(tokio::spawn(another.outcome()));
    }
    token.finish(Arc::new(7));
    for waiter in waiting {
        assert_eq!(*waiter.await.unwrap().unwrap(), 7);
    }
    assert_eq!(flight.get().as_deref(), Some(&7));
    assert!(matches!(flight.lookup(now), Lookup::Ready(_)));
}

#[tokio::test]
async fn failure_is_remembered_longer_until_a_success() {
    let flight = SingleFlight::<u8>::empty();
    let mut now = Instant::now();
    for seconds in [2, 4, 8] {
        let (token, waiting) = missing(flight.lookup(now));
        token.fail(fault(), LoadStep::Start, now);
        assert_eq!(waiting.outcome().await.unwrap_err().retry_after, Some(Duration::from_secs(seconds)));
        now += Duration::from_secs(seconds - 1);
        assert_eq!(failed(flight.lookup(now)).retry_after, Some(Duration::from_secs(1)));
        now += Duration::from_secs(1);
    }
    missing(flight.lookup(now)).0.finish(Arc::new(7));
    flight.remove(&flight.get().unwrap());
    missing(flight.lookup(now)).0.fail(fault(), LoadStep::Start, now);
    assert_eq!(failed(flight.lookup(now)).retry_after, Some(Duration::from_secs(2)));
}

#[test]
fn failure_is_remembered_up_to_a_limit() {
    let seconds = |step| {
        let mut state = FlightState::<u8>::default();
        [(); 8].map(|()| state.record_failure(step).as_secs())
    };
    assert_eq!(seconds(LoadStep::Resolve), [2, 4, 5, 5, 5, 5, 5, 5]);
    assert_eq!(seconds(LoadStep::Start), [2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(seconds(LoadStep::Room), [2; 8]);
    let mut state = FlightState::<u8> { failures: u32::MAX, crashes: u32::MAX, ..Default::default() };
    assert_eq!(state.record_failure(LoadStep::Start).as_secs(), 60);
}

#[test]
fn crash_count_resets_on_answer_not_on_load() {
    let flight = SingleFlight::empty();
    let record = |step| flight.state.lock().record_failure(step).as_secs();
    assert_eq!([LoadStep::Crash, LoadStep::Start].map(record), [2, 2]);
    flight.replace(Arc::new(7));
    assert_eq!([LoadStep::Crash, LoadStep::Start].map(record), [4, 2]);
    flight.record_alive();
    assert_eq!(record(LoadStep::Crash), 2);
}

#[tokio::test]
async fn permanent_fault_has_no_retry_after() {
    let flight = SingleFlight::<u8>::empty();
    let now = Instant::now();
    let fault = Fault::permanent(Code::ResourceDoesNotExist, Stage::Load, "no");
    missing(flight.lookup(now)).0.fail(fault.clone(), LoadStep::Resolve, now);
    assert_eq!(failed(flight.lookup(now)), fault);
}

#[tokio::test]
async fn token_passes_on_when_dropped() {
    let flight = SingleFlight::empty();
    let now = Instant::now();
    let (token, waiting) = missing(flight.lookup(now));
    drop(token);
    assert!(waiting.outcome().await.unwrap_err().retryable);
    missing(flight.lookup(now)).0.finish(Arc::new(7));
    assert_eq!(flight.get().as_deref(), Some(&7));
}

#[tokio::test]
async fn remove_ignores_a_replaced_value() {
    let flight = SingleFlight::empty();
    let now = Instant::now();
    missing(flight.lookup(now)).0.finish(Arc::new(1));
    let old = flight.get().unwrap();
    flight.remove(&old);
    missing(flight.lookup(now)).0.finish(Arc::new(2));
    flight.remove(&old);
    assert_eq!(flight.get().as_deref(), Some(&2));
    flight.remove(&flight.get().unwrap());
    assert!(flight.get().is_none());
}
