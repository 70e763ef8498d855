//! Loads that ask while others wait for processes to end: no memory is given out twice, and no load waits in vain.

use super::*;

const LIMIT: u64 = 100;

#[derive(Debug, Clone, Copy)]
enum Event {
    /// A load asks for room.
    Ask {
        bytes: u64,
    },
    /// One of the waiting loads gives up.
    GiveUp(usize),
    /// One of the ending processes has gone.
    Gone(usize),
    /// One of the loads has ended, well or not.
    Loaded(usize),
    Failed(usize),
    /// A call begins or ends.
    Called(usize),
    /// More memory is measured than before.
    Grown {
        who: usize,
        bytes: u64,
    },
}

#[derive(Debug)]
struct SimulatedRequest {
    bytes: u64,
    /// The processes that were ending when room was promised to it.
    promised: Option<Vec<u32>>,
}

/// The accounts as their manager keeps them, one step at a time.
#[derive(Debug, Default)]
struct SimulatedAccounts {
    residents: Vec<Resident<u32>>,
    unloading: Vec<Resident<u32>>,
    loading: Vec<u64>,
    requests: Vec<SimulatedRequest>,
    next_key: u32,
}

impl SimulatedAccounts {
    fn take(&mut self, step: Event) {
        let among = |index: usize, length: usize| (length > 0).then(|| index % length);
        match step {
            Event::Ask { bytes } => self.requests.push(SimulatedRequest { bytes, promised: None }),
            Event::GiveUp(index) => drop(among(index, self.requests.len()).map(|index| self.requests.remove(index))),
            Event::Gone(index) => drop(among(index, self.unloading.len()).map(|index| self.unloading.remove(index))),
            Event::Failed(index) => drop(among(index, self.loading.len()).map(|index| self.loading.remove(index))),
            Event::Loaded(index) => {
                if let Some(index) = among(index, self.loading.len()) {
                    let memory = self.loading.remove(index);
                    self.next_key += 1;
                    self.residents.push(Resident { memory, memory_when_loaded: memory, ..resident(self.next_key) });
                }
            }
            Event::Called(index) => {
                if let Some(index) = among(index, self.residents.len()) {
                    self.residents[index].in_use ^= true;
                }
            }
            Event::Grown { who, bytes } => {
                if let Some(index) = among(who, self.residents.len()) {
                    self.residents[index].memory += bytes;
                    let excess = rules(LIMIT).excess(&self.residents, self.claims(self.requests.len()), NOW);
                    self.evict(&excess.evict);
                }
            }
        }
    }

    /// Lets every load ask that may, the last come first: tasks are woken in any order.
    fn wake_waiting(&mut self) {
        for index in (0..self.requests.len()).rev() {
            if self.requests[index].promised.is_some() {
                self.ask(index);
            }
        }
        while let Some(index) = self.requests.iter().position(|request| request.promised.is_none()) {
            if !self.ask(index) {
                return;
            }
        }
    }

    /// Asks for room, and tells whether the next load may ask.
    fn ask(&mut self, index: usize) -> bool {
        let wanted = RoomDemand { memory: self.requests[index].bytes, patience: Duration::MAX };
        loop {
            match rules(LIMIT).room(&self.residents, self.claims(index), wanted, NOW) {
                RoomDecision::Free => {
                    self.loading.push(self.requests.remove(index).bytes);
                    assert!(self.taken() <= LIMIT, "{self:?}");
                    return true;
                }
                RoomDecision::Coming => {
                    let unloading = || self.unloading.iter().map(|resident| resident.key).collect();
                    let promised = self.requests[index].promised.take().unwrap_or_else(unloading);
                    self.requests[index].promised = Some(promised);
                    return true;
                }
                RoomDecision::Evict(keys) => self.evict(&keys),
                RoomDecision::Wait { .. } => return false,
                RoomDecision::Refuse(refusal) => panic!("{refusal:?}"),
            }
        }
    }

    fn evict(&mut self, keys: &[u32]) {
        assert!(of_keys(&self.residents, keys).all(|resident| !resident.in_use));
        self.unloading.extend(of_keys(&self.residents, keys));
        self.residents.retain(|resident| !keys.contains(&resident.key));
    }

    /// Sums up the claims that count for the load at this position.
    fn claims(&self, place: usize) -> MemoryClaims {
        let promised = self.requests[..place].iter().filter(|request| request.promised.is_some());
        MemoryClaims {
            unloading: total(&self.unloading),
            loading: self.loading.iter().sum(),
            promised: promised.map(|request| request.bytes).sum(),
        }
    }

    /// Sums up the bytes that processes hold, or may.
    fn taken(&self) -> u64 {
        total(&self.residents) + total(&self.unloading) + self.loading.iter().sum::<u64>()
    }

    /// Checks that promises are covered, and kept once the processes have gone that were ending when they were made.
    fn keeps_promises(&self) {
        let MemoryClaims { loading, promised, .. } = self.claims(self.requests.len());
        assert!(total(&self.residents) + loading + promised <= LIMIT, "{self:?}");
        for request in &self.requests {
            let leaves = |key: &u32| self.unloading.iter().any(|resident| resident.key == *key);
            assert!(request.promised.as_ref().is_none_or(|awaited| awaited.iter().any(leaves)), "{request:?} {self:?}");
        }
    }
}

fn of_keys<'a>(residents: &'a [Resident<u32>], keys: &[u32]) -> impl Iterator<Item = Resident<u32>> + use<'a> {
    let keys = keys.to_vec();
    residents.iter().filter(move |resident| keys.contains(&resident.key)).copied()
}

fn any_step() -> impl Strategy<Value = Event> {
    let index = || any::<usize>();
    prop_oneof![
        4 => (1..=30_u64).prop_map(|bytes| Event::Ask { bytes }),
        1 => (60..=LIMIT).prop_map(|bytes| Event::Ask { bytes }),
        4 => index().prop_map(Event::Gone),
        4 => index().prop_map(Event::Loaded),
        1 => index().prop_map(Event::Failed),
        2 => index().prop_map(Event::Called),
        1 => index().prop_map(Event::GiveUp),
    ]
}

fn any_step_or_growth() -> impl Strategy<Value = Event> {
    let grown = (any::<usize>(), 1..40_u64).prop_map(|(who, bytes)| Event::Grown { who, bytes });
    prop_oneof![9 => any_step(), 1 => grown]
}

proptest! {
    #[test]
    fn promises_are_kept_however_many_loads_come(steps in proptest::collection::vec(any_step(), 0..80)) {
        let mut accounts = SimulatedAccounts::default();
        for step in steps {
            accounts.take(step);
            accounts.wake_waiting();
            accounts.keeps_promises();
            prop_assert!(accounts.taken() <= LIMIT);
        }
    }

    #[test]
    fn every_load_gets_room_in_the_end(steps in proptest::collection::vec(any_step_or_growth(), 0..80)) {
        let mut accounts = SimulatedAccounts::default();
        for step in steps {
            accounts.take(step);
            accounts.wake_waiting();
        }
        // Loads and calls end some time, and then every load has had room.
        for _ in 0..2 * accounts.requests.len() {
            accounts.unloading.clear();
            while !accounts.loading.is_empty() {
                accounts.take(Event::Loaded(0));
            }
            accounts.residents.iter_mut().for_each(|resident| resident.in_use = false);
            accounts.wake_waiting();
        }
        prop_assert!(accounts.requests.is_empty(), "{accounts:?}");
    }

    #[test]
    fn large_load_is_not_starved_by_small_ones(
        large in 60..=LIMIT, small in proptest::collection::vec(1..=10_u64, 1..10),
    ) {
        let mut accounts = SimulatedAccounts::default();
        for _ in 0..10 {
            accounts.take(Event::Ask { bytes: 10 });
            accounts.wake_waiting();
            accounts.take(Event::Loaded(0));
        }
        accounts.take(Event::Ask { bytes: large });
        accounts.wake_waiting();
        for gone in 0.. {
            if accounts.requests.iter().all(|request| request.bytes != large) {
                break;
            }
            prop_assert!(gone < 10, "{accounts:?}");
            accounts.take(Event::Gone(0));
            // Whenever a process has gone other loads come, and take the room that they can get.
            small.iter().for_each(|bytes| accounts.take(Event::Ask { bytes: *bytes }));
            accounts.wake_waiting();
            while let Some(index) = accounts.loading.iter().position(|bytes| *bytes != large) {
                accounts.take(Event::Loaded(index));
            }
        }
    }
}
