use proptest::prelude::*;

use super::*;
use crate::models::usage::Pace;

mod pipeline;
mod simulation;

const MB: u64 = 1 << 20;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn rules(memory_limit: u64) -> Rules {
    Rules { memory_limit: Some(memory_limit), idle_timeout: Some(seconds(900)), minimum_stay: millis(250) }
}

/// Builds a resident of ten megabytes, loaded in 100 ms at 0 s, used once a second until 100 s.
fn resident(key: u32) -> Resident<u32> {
    Resident {
        key,
        memory: 10 * MB,
        memory_when_loaded: 10 * MB,
        loaded_at: seconds(0),
        load_cost: millis(100),
        habit: habit(1.0, 100),
        preloaded: false,
        in_use: false,
        pinned: false,
    }
}

fn habit(interval: f32, last_use: u64) -> Habit {
    let pace = Some(Pace { interval, deviation: interval });
    let silence = NOW.saturating_sub(seconds(last_use)).as_secs_f32();
    Habit { uses: 9, last_use: Some(seconds(last_use)), silence, pace }
}

fn wanted(megabytes: u64) -> RoomDemand {
    RoomDemand { memory: megabytes * MB, patience: seconds(1) }
}

const NOW: Duration = Duration::from_secs(101);

#[test]
fn room_is_free_without_a_limit() {
    let rules = Rules { memory_limit: None, ..rules(0) };
    let huge = RoomDemand { memory: u64::MAX / 2, patience: Duration::ZERO };
    assert_eq!(rules.room(&[resident(1)], MemoryClaims::default(), huge, NOW), RoomDecision::Free);
}

#[test]
fn room_evicts_the_least_valuable() {
    let rules = rules(30 * MB);
    let room = |residents: [Resident<u32>; 3]| rules.room(&residents, MemoryClaims::default(), wanted(10), NOW);
    let seldom = Resident { habit: habit(60.0, 100), ..resident(2) };
    assert_eq!(room([resident(1), seldom, resident(3)]), RoomDecision::Evict(vec![2]));
    let large = Resident { memory: 11 * MB, ..resident(3) };
    assert_eq!(room([resident(1), resident(2), large]), RoomDecision::Evict(vec![3]));
    let dear = |key| Resident { load_cost: millis(200), ..resident(key) };
    assert_eq!(room([dear(1), resident(2), dear(3)]), RoomDecision::Evict(vec![2]));
    let once = Resident { habit: Habit { pace: None, ..habit(0.0, 101) }, ..resident(3) };
    assert_eq!(
        room([Resident { habit: habit(2.0, 100), ..resident(1) }, resident(2), once]),
        RoomDecision::Evict(vec![1])
    );
}

#[test]
fn value_ignores_load_times_below_quick() {
    let slow = Resident { load_cost: millis(90), habit: habit(2.0, 100), ..resident(1) };
    let quick = Resident { load_cost: millis(9), ..resident(2) };
    let room = rules(20 * MB).room(&[slow, quick], MemoryClaims::default(), wanted(10), NOW);
    assert_eq!(room, RoomDecision::Evict(vec![1]));
}

#[test]
fn eviction_spares_what_a_large_one_makes_superfluous() {
    let small = Resident { memory: MB, habit: habit(600.0, 100), ..resident(1) };
    let room = rules(11 * MB).room(&[small, resident(2)], MemoryClaims::default(), wanted(10), NOW);
    assert_eq!(room, RoomDecision::Evict(vec![2]));
}

#[test]
fn room_is_coming_until_the_process_has_ended() {
    let rules = rules(20 * MB);
    let room = |unloading| {
        let claims = MemoryClaims { unloading: unloading * MB, ..MemoryClaims::default() };
        rules.room(&[resident(1)], claims, wanted(10), NOW)
    };
    assert_eq!(room(10), RoomDecision::Coming);
    assert_eq!(room(0), RoomDecision::Free);
    // The ending processes are not enough here.
    let claims = MemoryClaims { unloading: 10 * MB, ..MemoryClaims::default() };
    assert_eq!(rules.room(&[resident(1)], claims, wanted(15), NOW), RoomDecision::Evict(vec![1]));
}

#[test]
fn room_is_promised_only_once() {
    let rules = rules(30 * MB);
    let room = |promised| {
        let claims = MemoryClaims { unloading: 10 * MB, promised: promised * MB, ..MemoryClaims::default() };
        rules.room(&[resident(1), resident(2)], claims, wanted(5), NOW)
    };
    assert_eq!(room(0), RoomDecision::Coming);
    assert_eq!(room(5), RoomDecision::Coming);
    assert_eq!(room(6), RoomDecision::Evict(vec![1]));
    // Promised memory is no longer there to be taken, either.
    let promised = MemoryClaims { promised: 6 * MB, ..MemoryClaims::default() };
    assert_eq!(rules.room(&[resident(1), resident(2)], promised, wanted(5), NOW), RoomDecision::Evict(vec![1]));
}

#[test]
fn room_waits_for_a_cheap_newcomer_and_refuses_for_an_expensive_one() {
    let rules = rules(10 * MB);
    let room = |load_cost| {
        let newcomer = Resident { loaded_at: NOW, load_cost, habit: habit(1.0, 101), ..resident(1) };
        rules.room(&[newcomer], MemoryClaims::default(), wanted(10), NOW)
    };
    assert_eq!(room(millis(100)), RoomDecision::Wait { until: Some(NOW + millis(250)) });
    assert_eq!(room(seconds(20)), RoomDecision::Refuse(RoomRefusal::Thrash { retry_after: seconds(39) }));
    assert_eq!(room(seconds(2000)), RoomDecision::Refuse(RoomRefusal::Thrash { retry_after: LONGEST_STAY }));
}

#[test]
fn preload_is_evicted_at_once_when_unused() {
    let preload = Resident { loaded_at: NOW, preloaded: true, load_cost: seconds(20), ..resident(1) };
    let room = |resident| rules(10 * MB).room(&[resident], MemoryClaims::default(), wanted(10), NOW);
    assert_eq!(room(preload), RoomDecision::Evict(vec![1]));
    let used = Resident { habit: habit(1.0, 101), ..preload };
    assert!(matches!(room(used), RoomDecision::Refuse(RoomRefusal::Thrash { .. })));
}

#[test]
fn room_waits_for_versions_in_use_or_loading() {
    let in_use = Resident { in_use: true, ..resident(1) };
    let rules = rules(10 * MB);
    assert_eq!(rules.room(&[in_use], MemoryClaims::default(), wanted(10), NOW), RoomDecision::Wait { until: None });
    let loading = MemoryClaims { loading: 10 * MB, ..MemoryClaims::default() };
    assert_eq!(rules.room::<u32>(&[], loading, wanted(10), NOW), RoomDecision::Wait { until: None });
}

#[test]
fn room_is_refused_with_numbers_when_it_can_never_fit() {
    let pinned = Resident { pinned: true, ..resident(1) };
    let refusal = |residents: &[_], megabytes| match rules(20 * MB).room(
        residents,
        MemoryClaims::default(),
        wanted(megabytes),
        NOW,
    ) {
        RoomDecision::Refuse(refusal) => refusal.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(&[], 21), "it needs 22020096 bytes, and models.memory_limit is 20971520");
    let expected = "it needs 11534336 bytes, and pinned models leave 10485760 of models.memory_limit";
    assert_eq!(refusal(&[pinned], 11), expected);
}

#[test]
fn idle_versions_are_listed_after_the_timeout() {
    let rules = rules(0);
    let residents = [
        resident(1),
        Resident { habit: habit(1.0, 50), ..resident(2) },
        Resident { in_use: true, ..resident(3) },
        Resident { pinned: true, ..resident(4) },
        Resident { habit: Habit::default(), loaded_at: seconds(70), ..resident(5) },
    ];
    assert!(rules.idle(&residents, seconds(949)).is_empty());
    assert_eq!(rules.idle(&residents, seconds(970)), [2, 5]);
    let never = Rules { idle_timeout: None, ..rules };
    assert!(never.idle(&residents, seconds(9999)).is_empty());
}

#[test]
fn excess_recycles_the_leaking_version() {
    let excess = |residents: &[_]| rules(35 * MB).excess(residents, MemoryClaims::default(), NOW);
    let nothing = ExcessPlan { evict: vec![], recycle: None };
    assert_eq!(excess(&[resident(1), resident(2), resident(3)]), nothing);

    // Idle versions are enough.
    let leaking = Resident { memory: 20 * MB, in_use: true, ..resident(1) };
    assert_eq!(excess(&[leaking, resident(2), resident(3)]), ExcessPlan { evict: vec![2], recycle: None });

    // Idle versions are not enough: the leaking version gives up its growth, and the others stay if that will do.
    let leaking = Resident { memory: 60 * MB, in_use: true, ..resident(1) };
    assert_eq!(excess(&[leaking, resident(2), resident(3)]), ExcessPlan { evict: vec![], recycle: Some(1) });
    let pinned = Resident { pinned: true, in_use: false, ..leaking };
    assert_eq!(excess(&[pinned, resident(2)]), ExcessPlan { evict: vec![], recycle: Some(1) });

    // Where that will not do, because the others are too large together, they go as well.
    let busy = Resident { memory: 19 * MB, memory_when_loaded: 18 * MB, in_use: true, ..resident(2) };
    assert_eq!(excess(&[leaking, busy, resident(3)]), ExcessPlan { evict: vec![3], recycle: Some(1) });

    // No version leaks: there is just too much in use.
    let busy = |key| Resident { memory: 12 * MB, in_use: true, ..resident(key) };
    assert_eq!(excess(&[busy(1), busy(2), busy(3)]), nothing);
}

#[test]
fn headroom_evicts_only_quick_loads() {
    let rules = rules(85 * MB);
    let headroom = |cost, unloading, bytes: u64| {
        let residents: Vec<_> = (1..=8).map(|key| Resident { load_cost: cost, ..resident(key) }).collect();
        rules.headroom(&residents, MemoryClaims { unloading, ..MemoryClaims::default() }, bytes * MB, NOW)
    };
    assert_eq!(headroom(millis(50), 0, 10), [1]);
    assert!(headroom(millis(150), 0, 10).is_empty());
    // The memory that is free, or will be, is enough.
    assert!(headroom(millis(50), 0, 5).is_empty());
    assert!(headroom(millis(50), 5 * MB, 5).is_empty());
    // That much is more than may be kept free.
    assert!(headroom(millis(50), 0, 11).is_empty());
}

fn any_resident() -> impl Strategy<Value = Resident<u32>> {
    let times = (0..200_u64, 0..5000_u64, proptest::option::of(0..200_u64), 0.0..200.0_f32);
    let pace = proptest::option::of((0.0..100.0_f32, 0.0..50.0_f32));
    let flags = (any::<bool>(), proptest::bool::weighted(0.3), proptest::bool::weighted(0.2));
    (0..100_u64, 1..100_u64, times, pace, flags).prop_map(
        |(memory, memory_when_loaded, (loaded_at, load_cost, last_use, silence), pace, (preloaded, in_use, pinned))| {
            Resident {
                key: 0,
                memory,
                memory_when_loaded,
                loaded_at: seconds(loaded_at),
                load_cost: millis(load_cost),
                habit: Habit {
                    uses: 3,
                    last_use: last_use.map(seconds),
                    silence,
                    pace: pace.map(|(interval, deviation)| Pace { interval, deviation }),
                },
                preloaded,
                in_use,
                pinned,
            }
        },
    )
}

prop_compose! {
    fn any_house()(mut residents in proptest::collection::vec(any_resident(), 0..12)) -> Vec<Resident<u32>> {
        for (key, resident) in (0..).zip(&mut residents) {
            resident.key = key;
        }
        residents
    }
}

fn total<'a>(residents: impl IntoIterator<Item = &'a Resident<u32>>) -> u64 {
    sum(residents.into_iter())
}

fn of<'a>(residents: &'a [Resident<u32>], keys: &[u32]) -> Vec<&'a Resident<u32>> {
    keys.iter().map(|key| &residents[*key as usize]).collect()
}

proptest! {
    #[test]
    fn room_decision_holds_when_carried_out(
        residents in any_house(), limit in 0..600_u64, unloading in 0..80_u64, loading in 0..80_u64,
        promised in 0..80_u64, needed in 0..150_u64, patience in 0..20_u64, now in 200..220_u64,
    ) {
        let (rules, now) = (rules(limit), seconds(now));
        let claims = MemoryClaims { unloading, loading, promised };
        let wanted = RoomDemand { memory: needed, patience: seconds(patience) };
        let used = total(&residents) + unloading + loading + promised;
        let guests = || residents.iter().filter(|resident| !resident.pinned);
        let gone_by = |time| move |resident: &&Resident<u32>| rules.stay_ends(resident) <= time;
        let enough = |bytes: u64| used + needed <= limit + unloading + bytes;
        let room = rules.room(&residents, claims, wanted, now);
        prop_assert_eq!(room == RoomDecision::Free, used + needed <= limit);
        prop_assert_eq!(&room, &rules.room(&residents, claims, wanted, now));
        match room {
            RoomDecision::Free => {}
            RoomDecision::Coming => {
                prop_assert!(enough(0));
                prop_assert_eq!(rules.room(&residents, MemoryClaims { unloading: 0, ..claims }, wanted, now), RoomDecision::Free);
            }
            RoomDecision::Evict(keys) => {
                let evicted = of(&residents, &keys);
                let mut distinct = keys.clone();
                distinct.sort_unstable();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), keys.len());
                prop_assert!(!keys.is_empty());
                prop_assert!(evicted.iter().all(|resident| rules.may_go(resident, now)));
                // The evicted versions and the ending processes suffice, so that the limit then holds with the
                // newcomer.
                let freed = total(evicted.iter().copied());
                prop_assert!(enough(freed));
                prop_assert!(evicted.iter().all(|resident| resident.memory == 0 || !enough(freed - resident.memory)));
                let after: Vec<_> = residents.iter().filter(|resident| !keys.contains(&resident.key)).copied().collect();
                prop_assert_eq!(rules.room(&after, MemoryClaims { unloading: 0, ..claims }, wanted, now), RoomDecision::Free);
                let going = MemoryClaims { unloading: unloading + freed, ..claims };
                prop_assert_eq!(rules.room(&after, going, wanted, now), RoomDecision::Coming);
            }
            RoomDecision::Wait { until: Some(time) } => {
                prop_assert!(now < time && time <= now + wanted.patience);
                // Nothing else happening, it is worth asking again then, and not a moment sooner.
                let evicts = |time| matches!(rules.room(&residents, claims, wanted, time), RoomDecision::Evict(_));
                prop_assert!(evicts(time));
                prop_assert!(!evicts(time - Duration::from_nanos(1)));
            }
            RoomDecision::Wait { until: None } => {
                let in_time = total(guests().filter(gone_by(now + wanted.patience)));
                let all = total(guests());
                prop_assert!(!enough(0));
                prop_assert!(enough(in_time) || !enough(all));
                prop_assert!(!enough(total(guests().filter(|resident| !resident.in_use).filter(gone_by(now)))));
            }
            RoomDecision::Refuse(RoomRefusal::TooLarge { .. }) => prop_assert!(needed > limit),
            RoomDecision::Refuse(RoomRefusal::Pinned { left, .. }) => {
                prop_assert_eq!(left, limit.saturating_sub(total(residents.iter().filter(|resident| resident.pinned))));
                prop_assert!(needed > left);
            }
            RoomDecision::Refuse(RoomRefusal::Thrash { retry_after }) => {
                prop_assert!(retry_after > wanted.patience);
                prop_assert!(!enough(total(guests().filter(gone_by(now + wanted.patience)))));
                prop_assert!(enough(total(guests().filter(gone_by(now + retry_after)))));
            }
        }
    }

    #[test]
    fn headroom_makes_room_without_waiting(
        residents in any_house(), limit in 0..600_u64, unloading in 0..80_u64, promised in 0..80_u64,
        bytes in 0..80_u64, now in 200..220_u64,
    ) {
        let (rules, now) = (rules(limit), seconds(now));
        let claims = MemoryClaims { unloading, loading: 0, promised };
        let go = rules.headroom(&residents, claims, bytes, now);
        prop_assert!(of(&residents, &go).iter().all(|resident| rules.may_go(resident, now) && resident.load_cost <= QUICK));
        let wanted = RoomDemand { memory: bytes, patience: Duration::ZERO };
        if !go.is_empty() {
            prop_assert!(bytes <= limit / LARGEST_HEADROOM);
            prop_assert_eq!(rules.room(&residents, claims, wanted, now), RoomDecision::Evict(go.clone()));
            let after: Vec<_> = residents.iter().filter(|resident| !go.contains(&resident.key)).copied().collect();
            prop_assert_eq!(rules.room(&after, MemoryClaims { unloading: 0, ..claims }, wanted, now), RoomDecision::Free);
        }
    }

    #[test]
    fn idle_matches_quiet_time_exactly(residents in any_house(), now in 0..1500_u64) {
        let rules = rules(0);
        let idle = rules.idle(&residents, seconds(now));
        for resident in &residents {
            let quiet = seconds(now).checked_sub(resident.quiet_since()).is_some_and(|quiet| quiet >= seconds(900));
            prop_assert_eq!(idle.contains(&resident.key), quiet && !resident.in_use && !resident.pinned);
        }
    }

    #[test]
    fn excess_evicts_no_more_than_it_must(
        residents in any_house(), limit in 0..600_u64, unloading in 0..80_u64, promised in 0..80_u64,
        now in 200..220_u64,
    ) {
        let (rules, now) = (rules(limit), seconds(now));
        let claims = MemoryClaims { unloading, loading: 0, promised };
        let over = (total(&residents) + promised).saturating_sub(limit);
        let ExcessPlan { evict, recycle } = rules.excess(&residents, claims, now);
        let evicted = of(&residents, &evict);
        prop_assert!(evicted.iter().all(|resident| rules.may_go(resident, now)));
        let freed = total(evicted.iter().copied());
        let all = total(residents.iter().filter(|resident| rules.may_go(resident, now)));
        let given_up = recycle.map_or(0, |key| residents[key as usize].growth());
        prop_assert!(freed + given_up >= over || freed == all);
        if over == 0 || all >= over {
            prop_assert_eq!(recycle, None);
        }
        if freed + given_up >= over {
            let superfluous = |resident: &&&Resident<u32>| resident.memory > 0 && freed - resident.memory + given_up >= over;
            prop_assert_eq!(evicted.iter().find(superfluous), None);
        }
        if let Some(key) = recycle {
            let leak = &residents[key as usize];
            prop_assert!((leak.in_use || leak.pinned) && leak.leaks() && !evict.contains(&key));
        }
    }
}
