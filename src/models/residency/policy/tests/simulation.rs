//! Twenty models and room for half of them, beside plain LRU.

use std::collections::BTreeMap;

use super::*;
use crate::models::usage::Usage;

const MODELS: usize = 20;
const REQUESTS: usize = 6000;

/// Random numbers: small enough to be written here, and the same everywhere.
struct Chance(u64);

impl Chance {
    /// Draws a number from 0 up to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.next() * from.len() as f64) as usize]
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Pattern {
    Uniform,
    /// The nth most popular is used 1/n as often as the first.
    Zipf,
    Cyclic,
    /// Each model in turn, with gaps of any length between the calls.
    UnevenlyCyclic,
    /// Zipf, but the popular models change three times.
    Changing,
}

impl Pattern {
    /// Draws the requests: the model, and the seconds after the last answer, when one is called a second.
    fn requests(self) -> Vec<(f64, usize)> {
        let mut chance = Chance(7);
        let mut request = |index: usize| {
            let gap = -(1.0 - chance.next()).ln();
            let gap = if self == Self::Cyclic { 1.0 } else { gap };
            let model = match self {
                Self::Uniform => (chance.next() * MODELS as f64) as usize,
                Self::Cyclic | Self::UnevenlyCyclic => index % MODELS,
                Self::Zipf => zipf(chance.next()),
                Self::Changing => (zipf(chance.next()) + 7 * (index * 4 / REQUESTS)) % MODELS,
            };
            (gap, model)
        };
        (0..REQUESTS).map(&mut request).collect()
    }
}

fn zipf(chance: f64) -> usize {
    let weight = |rank: usize| 1.0 / (rank + 1) as f64;
    let mut left = chance * (0..MODELS).map(weight).sum::<f64>();
    let chosen = (0..MODELS).find(|rank| {
        left -= weight(*rank);
        left < 0.0
    });
    chosen.unwrap_or(MODELS - 1)
}

/// Memory and load cost of a model.
#[derive(Debug, Clone, Copy)]
struct Kind {
    memory: u64,
    load_cost: Duration,
}

fn equal() -> [Kind; MODELS] {
    [Kind { memory: 4, load_cost: millis(50) }; MODELS]
}

fn mixed() -> [Kind; MODELS] {
    let mut chance = Chance(3);
    std::array::from_fn(|_| Kind {
        memory: chance.pick(&[1, 2, 4, 8]),
        load_cost: millis(chance.pick(&[50, 200, 1000, 5000])),
    })
}

#[derive(Debug, Clone, Copy)]
enum Policy {
    LeastRecentlyUsed,
    Signalbox,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    /// The part of all requests that found their model loaded.
    hits: f64,
    /// The seconds that a request waited on average, for room and for the load.
    wait: f64,
}

/// Simulates one caller at a time, with so many calls a second.
fn simulate(policy: Policy, pattern: Pattern, kinds: &[Kind; MODELS], per_second: f64) -> Measured {
    let limit = kinds.iter().map(|kind| kind.memory).sum::<u64>() / 2;
    let rules = rules(limit);
    let usage: [Usage; MODELS] = std::array::from_fn(|_| Usage::default());
    let mut loaded_at: BTreeMap<usize, Duration> = BTreeMap::new();
    let mut now = Duration::ZERO;
    let (mut hits, mut waited) = (0, Duration::ZERO);
    for (call, (gap, model)) in (1..).zip(pattern.requests()) {
        now += Duration::from_secs_f64(gap / per_second);
        usage[model].used(now, call);
        if loaded_at.contains_key(&model) {
            hits += 1;
            continue;
        }
        let arrived = now;
        let wanted = RoomDemand { memory: kinds[model].memory, patience: seconds(3600) };
        loop {
            let resident = |(&key, &loaded_at): (&usize, &Duration)| {
                let Kind { memory, load_cost } = kinds[key];
                let habit = usage[key].habit(call);
                let (preloaded, in_use, pinned) = (false, false, false);
                Resident {
                    key,
                    memory,
                    memory_when_loaded: memory,
                    loaded_at,
                    load_cost,
                    habit,
                    preloaded,
                    in_use,
                    pinned,
                }
            };
            let residents: Vec<_> = loaded_at.iter().map(resident).collect();
            let room = match policy {
                Policy::Signalbox => rules.room(&residents, MemoryClaims::default(), wanted, now),
                Policy::LeastRecentlyUsed => least_recently_used(&residents, wanted.memory, limit),
            };
            match room {
                RoomDecision::Free => break,
                RoomDecision::Evict(keys) => loaded_at.retain(|key, _| !keys.contains(key)),
                RoomDecision::Wait { until: Some(time) } => now = time,
                RoomDecision::Coming | RoomDecision::Wait { until: None } | RoomDecision::Refuse(_) => {
                    panic!("{room:?}")
                }
            }
        }
        now += kinds[model].load_cost;
        loaded_at.insert(model, now);
        waited += now - arrived;
        assert!(loaded_at.keys().map(|key| kinds[*key].memory).sum::<u64>() <= limit);
    }
    Measured { hits: f64::from(hits) / REQUESTS as f64, wait: waited.as_secs_f64() / REQUESTS as f64 }
}

fn least_recently_used(residents: &[Resident<usize>], needed: u64, limit: u64) -> RoomDecision<usize> {
    if sum(residents.iter()) + needed <= limit {
        return RoomDecision::Free;
    }
    let oldest = residents.iter().min_by_key(|resident| resident.habit.last_use).unwrap();
    RoomDecision::Evict(vec![oldest.key])
}

/// Runs both policies on the same requests: ours first.
fn compare(pattern: Pattern, kinds: &[Kind; MODELS], per_second: f64) -> (Measured, Measured) {
    let run = |policy| simulate(policy, pattern, kinds, per_second);
    let (ours, lru) = (run(Policy::Signalbox), run(Policy::LeastRecentlyUsed));
    println!(
        "{pattern:?} at {per_second}/s: {:.1} % hits and {:.0} ms of waiting a request; LRU {:.1} % and {:.0} ms",
        100.0 * ours.hits,
        1000.0 * ours.wait,
        100.0 * lru.hits,
        1000.0 * lru.wait,
    );
    (ours, lru)
}

#[test]
fn policy_beats_lru_when_habits_can_be_learned() {
    let compare = |pattern| compare(pattern, &equal(), 1.0);
    // All models are alike here: whichever goes, half of the requests find their model.
    let (ours, lru) = compare(Pattern::Uniform);
    assert!(ours.hits > lru.hits - 0.02, "{ours:?} {lru:?}");
    let (ours, lru) = compare(Pattern::Zipf);
    assert!(ours.hits > lru.hits + 0.04, "{ours:?} {lru:?}");
    // LRU evicts each time the model that is needed next. A policy that knows all that is to come reaches 9 of 19.
    let (ours, lru) = compare(Pattern::Cyclic);
    assert!(ours.hits > 0.45 && lru.hits < 0.01, "{ours:?} {lru:?}");
    let (ours, lru) = compare(Pattern::UnevenlyCyclic);
    assert!(ours.hits > 0.4 && lru.hits < 0.01, "{ours:?} {lru:?}");
}

#[test]
fn policy_relearns_when_habits_change() {
    let (ours, lru) = compare(Pattern::Changing, &equal(), 1.0);
    assert!(ours.hits > lru.hits + 0.02, "{ours:?} {lru:?}");
}

#[test]
fn policy_keeps_expensive_and_small_models() {
    for pattern in [Pattern::Uniform, Pattern::Zipf, Pattern::Cyclic, Pattern::UnevenlyCyclic, Pattern::Changing] {
        // The calls are rare enough for no minimum stay to matter.
        let (ours, lru) = compare(pattern, &mixed(), 0.05);
        assert!(ours.wait < 0.6 * lru.wait, "{pattern:?}: {ours:?} {lru:?}");
    }
}

#[test]
fn minimum_stay_costs_little_under_pressure() {
    for pattern in [Pattern::Uniform, Pattern::Zipf, Pattern::Changing] {
        let (ours, lru) = compare(pattern, &equal(), 20.0);
        assert!(ours.hits > lru.hits - 0.02 && ours.wait < 1.2 * lru.wait, "{pattern:?}: {ours:?} {lru:?}");
    }
    let (ours, lru) = compare(Pattern::Cyclic, &equal(), 20.0);
    assert!(ours.hits > 0.3 && ours.wait < lru.wait, "{ours:?} {lru:?}");
}
