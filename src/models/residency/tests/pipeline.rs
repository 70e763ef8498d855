//! Loads that ask while others wait for processes to go: nothing is given out twice, and nobody waits in vain.

use super::*;

const LIMIT: u64 = 100;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A load asks for room.
    Ask {
        bytes: u64,
    },
    /// One of those who wait no longer does.
    GiveUp(usize),
    /// One of the processes that were told to go has gone.
    Gone(usize),
    /// One of the loads has ended, well or not.
    Loaded(usize),
    Failed(usize),
    /// A call begins or ends.
    Called(usize),
    /// More is measured than before.
    Grown {
        who: usize,
        bytes: u64,
    },
}

#[derive(Debug)]
struct Asked {
    bytes: u64,
    /// What was leaving when room was promised to it.
    promised: Option<Vec<u32>>,
}

/// The bounds as their keeper carries them out, one step at a time.
#[derive(Debug, Default)]
struct House {
    residents: Vec<Resident<u32>>,
    leaving: Vec<Resident<u32>>,
    loading: Vec<u64>,
    asking: Vec<Asked>,
    next_key: u32,
}

impl House {
    fn take(&mut self, step: Step) {
        let among = |index: usize, length: usize| (length > 0).then(|| index % length);
        match step {
            Step::Ask { bytes } => self.asking.push(Asked { bytes, promised: None }),
            Step::GiveUp(index) => drop(among(index, self.asking.len()).map(|index| self.asking.remove(index))),
            Step::Gone(index) => drop(among(index, self.leaving.len()).map(|index| self.leaving.remove(index))),
            Step::Failed(index) => drop(among(index, self.loading.len()).map(|index| self.loading.remove(index))),
            Step::Loaded(index) => {
                if let Some(index) = among(index, self.loading.len()) {
                    let memory = self.loading.remove(index);
                    self.next_key += 1;
                    self.residents.push(Resident { memory, memory_when_loaded: memory, ..resident(self.next_key) });
                }
            }
            Step::Called(index) => {
                if let Some(index) = among(index, self.residents.len()) {
                    self.residents[index].in_use ^= true;
                }
            }
            Step::Grown { who, bytes } => {
                if let Some(index) = among(who, self.residents.len()) {
                    self.residents[index].memory += bytes;
                    let excess = rules(LIMIT).excess(&self.residents, self.claims(self.asking.len()), NOW);
                    self.evict(&excess.evict);
                }
            }
        }
    }

    /// Everyone who may ask does, those who came last first: tasks are woken in any order.
    fn look_again(&mut self) {
        for index in (0..self.asking.len()).rev() {
            if self.asking[index].promised.is_some() {
                self.ask(index);
            }
        }
        while let Some(index) = self.asking.iter().position(|asked| asked.promised.is_none()) {
            if !self.ask(index) {
                return;
            }
        }
    }

    /// Whether the next one may ask.
    fn ask(&mut self, index: usize) -> bool {
        let wanted = Wanted { memory: self.asking[index].bytes, patience: Duration::MAX };
        loop {
            match rules(LIMIT).room(&self.residents, self.claims(index), wanted, NOW) {
                Room::Free => {
                    self.loading.push(self.asking.remove(index).bytes);
                    assert!(self.taken() <= LIMIT, "{self:?}");
                    return true;
                }
                Room::Coming => {
                    let leaving = || self.leaving.iter().map(|resident| resident.key).collect();
                    let promised = self.asking[index].promised.take().unwrap_or_else(leaving);
                    self.asking[index].promised = Some(promised);
                    return true;
                }
                Room::Evict(keys) => self.evict(&keys),
                Room::Wait { .. } => return false,
                Room::Refuse(refusal) => panic!("{refusal:?}"),
            }
        }
    }

    fn evict(&mut self, keys: &[u32]) {
        assert!(of_keys(&self.residents, keys).all(|resident| !resident.in_use));
        self.leaving.extend(of_keys(&self.residents, keys));
        self.residents.retain(|resident| !keys.contains(&resident.key));
    }

    /// What counts for whoever is at this place.
    fn claims(&self, place: usize) -> Claims {
        let promised = self.asking[..place].iter().filter(|asked| asked.promised.is_some());
        Claims {
            leaving: total(&self.leaving),
            loading: self.loading.iter().sum(),
            promised: promised.map(|asked| asked.bytes).sum(),
        }
    }

    /// What processes hold, or may.
    fn taken(&self) -> u64 {
        total(&self.residents) + total(&self.leaving) + self.loading.iter().sum::<u64>()
    }

    /// What is promised is covered, and given once that has gone which was leaving when it was promised.
    fn keeps_promises(&self) {
        let Claims { loading, promised, .. } = self.claims(self.asking.len());
        assert!(total(&self.residents) + loading + promised <= LIMIT, "{self:?}");
        for asked in &self.asking {
            let leaves = |key: &u32| self.leaving.iter().any(|resident| resident.key == *key);
            assert!(asked.promised.as_ref().is_none_or(|awaited| awaited.iter().any(leaves)), "{asked:?} {self:?}");
        }
    }
}

fn of_keys<'a>(residents: &'a [Resident<u32>], keys: &[u32]) -> impl Iterator<Item = Resident<u32>> + use<'a> {
    let keys = keys.to_vec();
    residents.iter().filter(move |resident| keys.contains(&resident.key)).copied()
}

fn any_step() -> impl Strategy<Value = Step> {
    let index = || any::<usize>();
    prop_oneof![
        4 => (1..=30_u64).prop_map(|bytes| Step::Ask { bytes }),
        1 => (60..=LIMIT).prop_map(|bytes| Step::Ask { bytes }),
        4 => index().prop_map(Step::Gone),
        4 => index().prop_map(Step::Loaded),
        1 => index().prop_map(Step::Failed),
        2 => index().prop_map(Step::Called),
        1 => index().prop_map(Step::GiveUp),
    ]
}

fn any_step_or_growth() -> impl Strategy<Value = Step> {
    let grown = (any::<usize>(), 1..40_u64).prop_map(|(who, bytes)| Step::Grown { who, bytes });
    prop_oneof![9 => any_step(), 1 => grown]
}

proptest! {
    #[test]
    fn what_is_promised_is_kept_however_many_come(steps in proptest::collection::vec(any_step(), 0..80)) {
        let mut house = House::default();
        for step in steps {
            house.take(step);
            house.look_again();
            house.keeps_promises();
            prop_assert!(house.taken() <= LIMIT);
        }
    }

    #[test]
    fn nobody_waits_in_vain(steps in proptest::collection::vec(any_step_or_growth(), 0..80)) {
        let mut house = House::default();
        for step in steps {
            house.take(step);
            house.look_again();
        }
        // What processes do ends some time, and then everyone has had room.
        for _ in 0..2 * house.asking.len() {
            house.leaving.clear();
            while !house.loading.is_empty() {
                house.take(Step::Loaded(0));
            }
            house.residents.iter_mut().for_each(|resident| resident.in_use = false);
            house.look_again();
        }
        prop_assert!(house.asking.is_empty(), "{house:?}");
    }

    #[test]
    fn a_large_one_is_not_overtaken_for_ever(
        large in 60..=LIMIT, small in proptest::collection::vec(1..=10_u64, 1..10),
    ) {
        let mut house = House::default();
        for _ in 0..10 {
            house.take(Step::Ask { bytes: 10 });
            house.look_again();
            house.take(Step::Loaded(0));
        }
        house.take(Step::Ask { bytes: large });
        house.look_again();
        for gone in 0.. {
            if house.asking.iter().all(|asked| asked.bytes != large) {
                break;
            }
            prop_assert!(gone < 10, "{house:?}");
            house.take(Step::Gone(0));
            // Whenever a process has gone others come, and take what they can get.
            small.iter().for_each(|bytes| house.take(Step::Ask { bytes: *bytes }));
            house.look_again();
            while let Some(index) = house.loading.iter().position(|bytes| *bytes != large) {
                house.take(Step::Loaded(index));
            }
        }
    }
}
