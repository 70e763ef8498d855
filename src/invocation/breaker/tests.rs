//! The breaker by examples, and against a plain model of itself.

use proptest::prelude::*;

use super::*;

const GOOD: Option<Ended> = Some(Ended { failed: false, took: Duration::ZERO });
const BAD: Option<Ended> = Some(Ended { failed: true, took: Duration::ZERO });
const SLOW: Option<Ended> = Some(Ended { failed: false, took: Duration::from_secs(2) });

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
fn call(breaker: &mut Breaker, now: f64, ends: &[Option<Ended>]) {
    for ended in ends {
        let pass = breaker.admit(seconds(now)).unwrap();
        breaker.end(pass, seconds(now), *ended);
    }
}

fn open_at(now: f64) -> Breaker {
    let mut breaker = Breaker::new(policy());
    call(&mut breaker, now, &[BAD; 4]);
    assert_eq!(breaker.phase(), Phase::Open);
    breaker
}

#[test]
fn opens_at_its_share_of_errors_and_not_before_the_minimum() {
    let mut breaker = Breaker::new(policy());
    call(&mut breaker, 1.0, &[BAD, BAD, BAD]);
    assert_eq!(breaker.phase(), Phase::Closed);
    call(&mut breaker, 1.0, &[GOOD]);
    assert_eq!(breaker.phase(), Phase::Open);
    let refusal = breaker.admit(seconds(2.5)).unwrap_err();
    assert_eq!((refusal.open_for, refusal.left), (seconds(1.5), seconds(3.5)));
    assert_eq!(refusal.trip.to_string(), "3 of 4 calls failed");
}

#[test]
fn opens_at_its_share_of_slow_calls() {
    let mut breaker = Breaker::new(policy());
    call(&mut breaker, 1.0, &[GOOD, SLOW, SLOW, SLOW]);
    assert_eq!(breaker.phase(), Phase::Closed);
    call(&mut breaker, 1.0, &[SLOW]);
    assert_eq!(breaker.admit(seconds(1.0)).unwrap_err().trip.to_string(), "4 of 5 calls were slow");
    let mut breaker = Breaker::new(config::Breaker { slow_call: None, ..policy() });
    call(&mut breaker, 1.0, &[SLOW; 50]);
    assert_eq!(breaker.phase(), Phase::Closed);
}

#[test]
fn forgets_what_is_older_than_the_window() {
    let mut breaker = Breaker::new(policy());
    call(&mut breaker, 0.5, &[BAD, BAD, BAD]);
    call(&mut breaker, 10.1, &[BAD]);
    assert_eq!(breaker.phase(), Phase::Closed);
    call(&mut breaker, 19.9, &[BAD, BAD, GOOD]);
    assert_eq!(breaker.phase(), Phase::Open, "three of four within the window");
}

#[test]
fn what_says_nothing_is_not_counted() {
    let mut breaker = Breaker::new(policy());
    call(&mut breaker, 1.0, &[None; 50]);
    call(&mut breaker, 1.0, &[BAD, BAD, BAD]);
    assert_eq!(breaker.phase(), Phase::Closed);
}

#[test]
fn probes_go_one_after_the_other_and_close_it() {
    let mut breaker = open_at(1.0);
    assert!(breaker.admit(seconds(5.9)).is_err());
    let probe = breaker.admit(seconds(6.0)).unwrap();
    assert_eq!((breaker.phase(), breaker.admit(seconds(6.0)).is_err()), (Phase::HalfOpen, true));
    breaker.end(probe, seconds(6.5), GOOD);
    assert_eq!(breaker.phase(), Phase::HalfOpen);
    call(&mut breaker, 7.0, &[GOOD]);
    assert_eq!(breaker.phase(), Phase::Closed);
    call(&mut breaker, 7.0, &[BAD, BAD, BAD]);
    assert_eq!(breaker.phase(), Phase::Closed, "what was counted before is forgotten");
}

#[test]
fn one_bad_or_slow_probe_opens_it_again() {
    for bad in [BAD, SLOW] {
        let mut breaker = open_at(1.0);
        call(&mut breaker, 6.0, &[GOOD]);
        call(&mut breaker, 6.5, &[bad]);
        assert_eq!(breaker.admit(seconds(11.4)).unwrap_err().trip, Trip::Probe);
        assert!(breaker.admit(seconds(11.5)).is_ok());
    }
}

#[test]
fn a_probe_that_is_lost_makes_room_for_the_next() {
    let mut breaker = open_at(1.0);
    call(&mut breaker, 6.0, &[None, None, GOOD, None, GOOD]);
    assert_eq!(breaker.phase(), Phase::Closed);
}

#[test]
fn calls_from_before_a_change_say_nothing_about_after_it() {
    let mut breaker = Breaker::new(policy());
    let early: Vec<Pass> = (0..3).map(|_| breaker.admit(seconds(1.0)).unwrap()).collect();
    call(&mut breaker, 1.0, &[BAD; 4]);
    let probe = breaker.admit(seconds(6.0)).unwrap();
    for (pass, ended) in early.into_iter().zip([GOOD, BAD, None]) {
        breaker.end(pass, seconds(6.0), ended);
    }
    assert_eq!((breaker.phase(), breaker.admit(seconds(6.0)).is_err()), (Phase::HalfOpen, true));
    breaker.end(probe, seconds(6.0), GOOD);
}

/// A thing that happens: time passes, a call comes, or one of those under way ends.
#[derive(Debug, Clone)]
enum Event {
    Wait(u64),
    Call,
    End(usize, Option<Ended>),
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
    fn an_open_breaker_lets_nothing_but_probes_through(
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
                        let probe = breaker.phase() == Phase::HalfOpen;
                        if before == Phase::Open {
                            prop_assert!(opened.is_some_and(|since| now >= since + policy.open_for) && probe);
                        }
                        let generation = pass.generation;
                        let probing = under_way.iter().any(|(probe, pass): &(bool, Pass)| *probe && pass.generation == generation);
                        prop_assert!(!probe || !probing, "two probes at a time");
                        under_way.push((probe, pass));
                    }
                    (refuses, Err(refusal)) => {
                        prop_assert!(refuses && before != Phase::Closed && refusal.left <= policy.open_for);
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
                    prop_assert!(before != Phase::Open || breaker.phase() == Phase::Open);
                    prop_assert!(before != Phase::HalfOpen || breaker.phase() != Phase::Open || bad);
                }
                Event::End(..) => {}
            }
            if before != Phase::Open && breaker.phase() == Phase::Open {
                opened = Some(now);
            }
        }
        // However it stands: once the calls under way are lost and time has passed, good answers close it.
        for (_, pass) in under_way {
            breaker.end(pass, now, None);
        }
        now += policy.open_for;
        for _ in 0..probes {
            if breaker.phase() != Phase::Closed {
                let pass = breaker.admit(now).unwrap();
                breaker.end(pass, now, GOOD);
            }
        }
        prop_assert_eq!(breaker.phase(), Phase::Closed);
    }

    #[test]
    fn the_window_counts_what_a_plain_list_counts(calls in proptest::collection::vec((0_u64..3_000, any::<bool>(), any::<bool>()), 1..200)) {
        let (mut window, width, mut now) = (Window::default(), Duration::from_secs(1), 0);
        let mut seen: Vec<(u64, Tally)> = Vec::new();
        for (wait, failed, slow) in calls {
            now += wait;
            seen.push((now / 1_000, Tally { calls: 1, errors: failed.into(), slow: slow.into() }));
            let expected = seen.iter().filter(|(at, _)| at + 10 > now / 1_000).fold(Tally::default(), |sum, (_, one)| sum.and(*one));
            prop_assert_eq!(window.add(Duration::from_millis(now), width, failed, slow), expected);
        }
    }
}
