//! The breaker by examples, and against a plain model of itself.

use proptest::prelude::*;

use super::*;

const GOOD: Option<CallOutcome> = Some(CallOutcome { failed: false, took: Duration::ZERO });
const BAD: Option<CallOutcome> = Some(CallOutcome { failed: true, took: Duration::ZERO });
const SLOW: Option<CallOutcome> = Some(CallOutcome { failed: false, took: Duration::from_secs(2) });

fn policy() -> config::Breaker {
    config::Breaker {
        error_share: 0.5,
        slow_call: Some(Duration::from_secs(2)),
        slow_share: 0.8,
        window: Duration::from_secs(10),
        minimum_calls: 4,
        open_for: Duration::from_secs(5),
        probes: 2,
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Makes calls one after the other, at one time.
fn call(breaker: &mut Breaker, now: f64, ends: &[Option<CallOutcome>]) {
    for ended in ends {
        let pass = breaker.admit(seconds(now)).unwrap();
        breaker.end(pass, seconds(now), *ended);
    }
}

fn open_at(now: f64) -> Breaker {
    let mut breaker = Breaker::new(policy());
    call(&mut breaker, now, &[BAD; 4]);
    assert_eq!(breaker.phase(), BreakerPhase::Open);
    breaker
}

#[test]
fn breaker_opens_at_share_of_errors_but_not_before_minimum() {
    let mut breaker = Breaker::new(policy());
    call(&mut breaker, 1.0, &[BAD, BAD, BAD]);
    assert_eq!(breaker.phase(), BreakerPhase::Closed);
    call(&mut breaker, 1.0, &[GOOD]);
    assert_eq!(breaker.phase(), BreakerPhase::Open);
    let refusal = breaker.admit(seconds(2.5)).unwrap_err();
    assert_eq!((refusal.open_for, refusal.left), (seconds(1.5), seconds(3.5)));
    assert_eq!(refusal.trip.to_string(), "3 of 4 calls failed");
}

#[test]
fn breaker_opens_at_share_of_slow_calls() {
    let mut breaker = Breaker::new(policy());
    call(&mut breaker, 1.0, &[GOOD, SLOW, SLOW, SLOW]);
    assert_eq!(breaker.phase(), BreakerPhase::Closed);
    call(&mut breaker, 1.0, &[SLOW]);
    assert_eq!(breaker.admit(seconds(1.0)).unwrap_err().trip.to_string(), "4 of 5 calls were slow");
    let mut breaker = Breaker::new(config::Breaker { slow_call: None, ..policy() });
    call(&mut breaker, 1.0, &[SLOW; 50]);
    assert_eq!(breaker.phase(), BreakerPhase::Closed);
}

#[test]
fn breaker_forgets_calls_older_than_window() {
    let mut breaker = Breaker::new(policy());
    call(&mut breaker, 0.5, &[BAD, BAD, BAD]);
    call(&mut breaker, 10.1, &[BAD]);
    assert_eq!(breaker.phase(), BreakerPhase::Closed);
    call(&mut breaker, 19.9, &[BAD, BAD, GOOD]);
    assert_eq!(breaker.phase(), BreakerPhase::Open, "three of four within the window");
}

#[test]
fn call_is_not_counted_when_inconclusive() {
    let mut breaker = Breaker::new(policy());
    call(&mut breaker, 1.0, &[None; 50]);
    call(&mut breaker, 1.0, &[BAD, BAD, BAD]);
    assert_eq!(breaker.phase(), BreakerPhase::Closed);
}

#[test]
fn breaker_closes_after_probes_one_by_one() {
    let mut breaker = open_at(1.0);
    assert!(breaker.admit(seconds(5.9)).is_err());
    let probe = breaker.admit(seconds(6.0)).unwrap();
    assert_eq!((breaker.phase(), breaker.admit(seconds(6.0)).is_err()), (BreakerPhase::HalfOpen, true));
    breaker.end(probe, seconds(6.5), GOOD);
    assert_eq!(breaker.phase(), BreakerPhase::HalfOpen);
    call(&mut breaker, 7.0, &[GOOD]);
    assert_eq!(breaker.phase(), BreakerPhase::Closed);
    call(&mut breaker, 7.0, &[BAD, BAD, BAD]);
    assert_eq!(breaker.phase(), BreakerPhase::Closed, "what was counted before is forgotten");
}

#[test]
fn breaker_reopens_when_probe_fails_or_is_slow() {
    for bad in [BAD, SLOW] {
        let mut breaker = open_at(1.0);
        call(&mut breaker, 6.0, &[GOOD]);
        call(&mut breaker, 6.5, &[bad]);
        assert_eq!(breaker.admit(seconds(11.4)).unwrap_err().trip, Trip::Probe);
        assert!(breaker.admit(seconds(11.5)).is_ok());
    }
}

#[test]
fn breaker_admits_next_probe_when_one_is_lost() {
    let mut breaker = open_at(1.0);
    call(&mut breaker, 6.0, &[None, None, GOOD, None, GOOD]);
    assert_eq!(breaker.phase(), BreakerPhase::Closed);
}

#[test]
fn call_is_ignored_when_state_changed_since() {
    let mut breaker = Breaker::new(policy());
    let early: Vec<CallPass> = (0..3).map(|_| breaker.admit(seconds(1.0)).unwrap()).collect();
    call(&mut breaker, 1.0, &[BAD; 4]);
    let probe = breaker.admit(seconds(6.0)).unwrap();
    for (pass, ended) in early.into_iter().zip([GOOD, BAD, None]) {
        breaker.end(pass, seconds(6.0), ended);
    }
    assert_eq!((breaker.phase(), breaker.admit(seconds(6.0)).is_err()), (BreakerPhase::HalfOpen, true));
    breaker.end(probe, seconds(6.0), GOOD);
}

/// Lists the events: time passes, a call comes, or one of those under way ends.
#[derive(Debug, Clone)]
enum Event {
    Wait(u64),
    Call,
    End(usize, Option<CallOutcome>),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u64..4_000).prop_map(Event::Wait),
        Just(Event::Call),
        Just(Event::Call),
        (any::<usize>(), prop_oneof![Just(GOOD), Just(BAD), Just(BAD), Just(SLOW), Just(None)])
            .prop_map(|(which, ended)| Event::End(which, ended)),
    ]
}

proptest! {
    #[test]
    fn breaker_admits_only_probes_when_open(
        events in proptest::collection::vec(event(), 0..300),
        minimum_calls in 1_usize..6,
        probes in 1_usize..4,
    ) {
        let policy = config::Breaker { minimum_calls, probes, ..policy() };
        let mut breaker = Breaker::new(policy.clone());
        let (mut now, mut opened, mut under_way) = (Duration::ZERO, None, Vec::new());
        for event in events {
            let before = breaker.phase();
            match event {
                Event::Wait(milliseconds) => now += Duration::from_millis(milliseconds),
                Event::Call => match (breaker.refuses(now), breaker.admit(now)) {
                    (refuses, Ok(pass)) => {
                        prop_assert!(!refuses);
                        let probe = breaker.phase() == BreakerPhase::HalfOpen;
                        if before == BreakerPhase::Open {
                            prop_assert!(opened.is_some_and(|since| now >= since + policy.open_for) && probe);
                        }
                        let generation = pass.generation;
                        let probing = under_way.iter().any(|(probe, pass): &(bool, CallPass)| *probe && pass.generation == generation);
                        prop_assert!(!probe || !probing, "two probes at a time");
                        under_way.push((probe, pass));
                    }
                    (refuses, Err(refusal)) => {
                        prop_assert!(refuses && before != BreakerPhase::Closed && refusal.left <= policy.open_for);
                        let generation = breaker.generation;
                        let probing = under_way.iter().any(|(probe, pass)| *probe && pass.generation == generation);
                        let waiting = opened.is_some_and(|since| now < since + policy.open_for);
                        prop_assert!(probing || waiting, "refused for nothing");
                    }
                },
                Event::End(which, ended) if !under_way.is_empty() => {
                    let (_, pass) = under_way.swap_remove(which % under_way.len());
                    let bad = ended.is_some_and(|ended| ended.failed || ended == SLOW.unwrap());
                    breaker.end(pass, now, ended);
                    prop_assert!(before != BreakerPhase::Open || breaker.phase() == BreakerPhase::Open);
                    prop_assert!(before != BreakerPhase::HalfOpen || breaker.phase() != BreakerPhase::Open || bad);
                }
                Event::End(..) => {}
            }
            if before != BreakerPhase::Open && breaker.phase() == BreakerPhase::Open {
                opened = Some(now);
            }
        }
        // In every state: once the calls under way are lost and time has passed, good answers close it.
        for (_, pass) in under_way {
            breaker.end(pass, now, None);
        }
        now += policy.open_for;
        for _ in 0..probes {
            if breaker.phase() != BreakerPhase::Closed {
                let pass = breaker.admit(now).unwrap();
                breaker.end(pass, now, GOOD);
            }
        }
        prop_assert_eq!(breaker.phase(), BreakerPhase::Closed);
    }

    #[test]
    fn window_counts_like_plain_list(calls in proptest::collection::vec((0_u64..3_000, any::<bool>(), any::<bool>()), 1..200)) {
        let (mut window, width, mut now) = (SlidingWindow::default(), Duration::from_secs(1), 0);
        let mut seen: Vec<(u64, CallCounts)> = Vec::new();
        for (wait, failed, slow) in calls {
            now += wait;
            seen.push((now / 1_000, CallCounts { calls: 1, errors: failed.into(), slow: slow.into() }));
            let expected = seen.iter().filter(|(at, _)| at + 10 > now / 1_000).fold(CallCounts::default(), |sum, (_, one)| sum.and(*one));
            prop_assert_eq!(window.add(Duration::from_millis(now), width, failed, slow), expected);
        }
    }
}
