use std::cell::Cell;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
struct FakeHost {
    number: usize,
    gone: Rc<Cell<bool>>,
    spent: Rc<Cell<bool>>,
}

impl FakeHost {
    fn new(number: usize) -> Self {
        Self { number, gone: Rc::default(), spent: Rc::default() }
    }
}

impl PoolHost for FakeHost {
    fn is(&self, other: &Self) -> bool {
        self.number == other.number
    }

    fn is_gone(&self) -> bool {
        self.gone.get()
    }

    fn is_spent(&self) -> bool {
        self.spent.get()
    }
}

fn places(hosts: usize, threads: usize, at_once: usize) -> Places<FakeHost, char> {
    Places::new((0..hosts).map(FakeHost::new), threads, at_once)
}

fn numbers(hosts: &[FakeHost]) -> Vec<usize> {
    hosts.iter().map(|host| host.number).collect()
}

fn next(places: &mut Places<FakeHost, char>) -> Option<(FakeHost, char)> {
    places.next(|_| true)
}

#[test]
fn places_fill_hosts_evenly_up_to_the_limit() {
    let mut places = places(2, 3, 5);
    let taken: Vec<_> = (0..5).map(|_| places.take(false).unwrap()).collect();
    assert_eq!(numbers(&taken), [0, 1, 0, 1, 0]);
    assert_eq!((places.take(false).is_none(), places.free()), (true, 0));
    places.give_back(&taken[1], false);
    assert_eq!(places.free(), 1);
    assert_eq!(places.take(false).unwrap().number, 1);
}

#[test]
fn queue_serves_in_order_and_skips_abandoned_calls() {
    let mut places = places(1, 1, 1);
    let host = places.take(false).unwrap();
    for waiter in ['a', 'b', 'c'] {
        places.wait(false, waiter);
    }
    assert!(next(&mut places).is_none());
    places.give_back(&host, false);
    let (host, waiter) = places.next(|waiter| *waiter != 'a').unwrap();
    assert_eq!(waiter, 'b');
    places.give_back(&host, false);
    // A free place belongs to the call that waits for it.
    assert!(places.take(false).is_none());
    assert_eq!(next(&mut places).unwrap().1, 'c');
}

#[test]
fn lone_call_waits_until_a_host_is_empty() {
    let mut places = places(1, 3, 3);
    let [first, second] = [(); 2].map(|()| places.take(false).unwrap());
    places.wait(true, 'a');
    places.wait(false, 'b');
    places.give_back(&first, false);
    assert!(next(&mut places).is_none(), "one is still called, and nobody may go past");
    places.give_back(&second, false);
    let (host, waiter) = next(&mut places).unwrap();
    assert_eq!(waiter, 'a');
    assert!(next(&mut places).is_none());
    assert!(!places.had_company(&host));
    places.give_back(&host, false);
    assert_eq!(next(&mut places).unwrap().1, 'b');
}

#[test]
fn late_call_loses_its_host_when_the_others_end() {
    let mut places = places(1, 3, 3);
    let host = places.take(false).unwrap();
    assert!(!places.runs_late(&host), "there is no other");
    let other = places.take(false).unwrap();
    assert!(places.runs_late(&host));
    // The third place can still be taken.
    let third = places.take(false).unwrap();
    places.give_back(&other, false);
    assert!(places.lost().is_empty());
    places.give_back(&third, false);
    assert_eq!(numbers(&places.lost()), [0]);
    assert!(places.take(false).is_none());
    places.give_back(&host, true);
    places.add(FakeHost::new(1));
    assert_eq!(places.take(false).unwrap().number, 1);

    // A late call that ends while there are others is as if it had not been late.
    let mut places = self::places(1, 2, 2);
    let [late, other] = [(); 2].map(|()| places.take(false).unwrap());
    assert!(places.runs_late(&late));
    places.give_back(&late, true);
    places.give_back(&other, false);
    assert!(places.lost().is_empty());
    assert_eq!(places.free(), 2);
}

#[test]
fn gone_host_is_lost_once_for_all_its_calls() {
    let mut places = places(2, 2, 4);
    let taken: Vec<_> = (0..4).map(|_| places.take(false).unwrap()).collect();
    taken[0].gone.set(true);
    assert!(places.had_company(&taken[0]));
    places.give_back(&taken[0], false);
    assert_eq!(numbers(&places.lost()), [0]);
    assert!(places.had_company(&taken[2]), "another has missed it before");
    places.give_back(&taken[2], false);
    assert!(places.lost().is_empty());
    assert_eq!(places.free(), 0);
    places.add(FakeHost::new(2));
    assert_eq!(places.free(), 2);

    // A host that ends while it is idle is missed as well.
    let mut places = self::places(2, 2, 4);
    let host = places.take(false).unwrap();
    places.give_back(&host, false);
    host.gone.set(true);
    assert_eq!(places.take(false).unwrap().number, 1);
    assert_eq!(numbers(&places.lost()), [0]);
}

#[test]
fn spent_host_is_lost_when_its_last_call_ends() {
    let mut places = places(1, 3, 3);
    let [spent, other] = [(); 2].map(|()| places.take(false).unwrap());
    spent.spent.set(true);
    places.give_back(&spent, false);
    assert!(places.take(false).is_none() && places.lost().is_empty());
    places.give_back(&other, false);
    assert_eq!(numbers(&places.lost()), [0]);
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Take { alone: bool },
    GiveBack(usize),
    Late(usize),
    Crash(usize),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        6 => (0..8_u8).prop_map(|dice| Action::Take { alone: dice == 0 }),
        6 => any::<usize>().prop_map(Action::GiveBack),
        1 => any::<usize>().prop_map(Action::Late),
        1 => any::<usize>().prop_map(Action::Crash),
    ];
    proptest::collection::vec(action, 0..200)
}

proptest! {
    /// Invariants: no host has more calls than threads, nor another beside one that is to be alone; and once all calls
    /// have ended and every lost host is replaced, no call waits and every place is free.
    #[test]
    fn places_are_neither_lost_nor_given_twice(
        (hosts, threads) in (1..4_usize, 1..5_usize), at_once in 1..20_usize, actions in actions()
    ) {
        let mut places: Places<FakeHost, bool> = Places::new((0..hosts).map(FakeHost::new), threads, at_once);
        let mut born = hosts;
        // Each call: its host, whether it is to be alone, whether it is late.
        let mut calls: Vec<(FakeHost, bool, bool)> = Vec::new();
        let end = actions.len();
        let more = std::iter::repeat_n(Action::GiveBack(0), 2 * end);
        for action in actions.into_iter().chain(more) {
            match action {
                Action::Take { alone } => match places.take(alone) {
                    Some(host) => calls.push((host, alone, false)),
                    None => places.wait(alone, alone),
                },
                Action::GiveBack(index) if !calls.is_empty() => {
                    let (host, _, late) = calls.swap_remove(index % calls.len());
                    places.give_back(&host, late);
                }
                Action::Late(index) if !calls.is_empty() => {
                    let index = index % calls.len();
                    if !calls[index].2 && places.runs_late(&calls[index].0) {
                        calls[index].2 = true;
                    }
                }
                Action::Crash(index) if !calls.is_empty() => calls[index % calls.len()].0.gone.set(true),
                Action::GiveBack(_) | Action::Late(_) | Action::Crash(_) => {}
            }
            while let Some((host, alone)) = places.next(|_| true) {
                calls.push((host, alone, false));
            }
            for lost in places.lost() {
                lost.gone.set(true);
                places.add(FakeHost::new(born));
                born += 1;
            }
            while let Some((host, alone)) = places.next(|_| true) {
                calls.push((host, alone, false));
            }
            prop_assert!(calls.len() <= at_once);
            for (host, alone, _) in &calls {
                let beside = calls.iter().filter(|(other, ..)| other.is(host)).count();
                let most = if *alone { 1 } else { threads };
                prop_assert!(beside <= most);
            }
        }
        // Hosts that ended while they were idle still count among those that are there.
        prop_assert!(calls.is_empty() && places.waiting.is_empty());
        prop_assert_eq!(places.hosts.len(), hosts);
        prop_assert_eq!(places.free(), at_once.min(hosts * threads));
    }
}
