//! Queues of places: which reply leaves next. Pure.

use std::collections::{HashMap, VecDeque};

use crate::intake::LaneId;

/// Queue of replies that leave in the order of their requests: those of one key, or all, of one assignment of a
/// partition. A partition that has come back has queues of its own, so no reply waits for one that another owner gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct QueueId {
    /// Partition.
    pub(super) lane: LaneId,
    /// Number of its assignment.
    pub(super) epoch: u64,
    /// Hash of the key. Two keys that share it share their queue, which is harmless.
    pub(super) key: u64,
}

/// Holds all queues that are not empty. A `W` wakes the task that waits for a place.
#[derive(Debug)]
pub(super) struct Queues<W> {
    queues: HashMap<QueueId, VecDeque<QueuedPlace<W>>>,
    /// Number of the next place; numbers rise in the order in which places are taken.
    next: u64,
}

/// Place in a queue.
#[derive(Debug)]
struct QueuedPlace<W> {
    number: u64,
    /// None until the place is waited for.
    waker: Option<W>,
}

impl<W> Default for Queues<W> {
    fn default() -> Self {
        Self { queues: HashMap::new(), next: 0 }
    }
}

impl<W> Queues<W> {
    /// Takes the last place of a queue, and returns its number.
    pub(super) fn join(&mut self, queue: QueueId) -> u64 {
        let number = self.next;
        self.next += 1;
        self.queues.entry(queue).or_default().push_back(QueuedPlace { number, waker: None });
        number
    }

    /// Returns whether a place is the first of its queue. If not, the place is woken once it is.
    pub(super) fn is_first(&mut self, queue: QueueId, number: u64, waker: impl FnOnce() -> W) -> bool {
        let Some(members) = self.queues.get_mut(&queue) else { return true };
        match members.binary_search_by_key(&number, |member| member.number) {
            Ok(0) | Err(_) => true,
            Ok(index) => {
                members[index].waker = Some(waker());
                false
            }
        }
    }

    /// Returns whether a place is the first of its queue, and one behind it waits to be.
    pub(super) fn is_waited_for(&self, queue: QueueId, number: u64) -> bool {
        let Some(members) = self.queues.get(&queue) else { return false };
        let is_first = members.front().is_some_and(|first| first.number == number);
        is_first && members.iter().any(|member| member.waker.is_some())
    }

    /// Gives a place up, wherever in its queue it is, and returns the place to wake.
    pub(super) fn leave(&mut self, queue: QueueId, number: u64) -> Option<W> {
        let members = self.queues.get_mut(&queue)?;
        let index = members.binary_search_by_key(&number, |member| member.number).ok()?;
        members.remove(index);
        match members.front_mut() {
            Some(first) => first.waker.take().filter(|_| index == 0),
            None => {
                self.queues.remove(&queue);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn queue(key: u64) -> QueueId {
        QueueId { lane: LaneId { topic: 0, partition: 0 }, epoch: 1, key }
    }

    /// Event of one of the requests.
    #[derive(Debug, Clone)]
    enum Event {
        /// A request of this key is read.
        Read(u64),
        /// A request under way is answered, and leaves when its turn has come.
        Answered(prop::sample::Index),
        /// A request under way or waiting is dropped: a panic, a lane that is gone.
        Dropped(prop::sample::Index),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            3 => (0..4_u64).prop_map(Event::Read),
            3 => any::<prop::sample::Index>().prop_map(Event::Answered),
            1 => any::<prop::sample::Index>().prop_map(Event::Dropped),
        ];
        prop::collection::vec(event, 0..200)
    }

    /// Requests, and the order in which they have left.
    #[derive(Default)]
    struct World {
        queues: Queues<(u64, u64)>,
        /// Requests by key and number.
        under_way: BTreeSet<(u64, u64)>,
        waiting: BTreeSet<(u64, u64)>,
        left: Vec<(u64, u64)>,
    }

    impl World {
        fn answered(&mut self, (key, number): (u64, u64)) {
            self.under_way.remove(&(key, number));
            match self.queues.is_first(queue(key), number, || (key, number)) {
                true => self.leave((key, number)),
                false => assert!(self.waiting.insert((key, number))),
            }
        }

        fn leave(&mut self, request: (u64, u64)) {
            self.left.push(request);
            self.give_up(request);
        }

        fn give_up(&mut self, (key, number): (u64, u64)) {
            if let Some(next) = self.queues.leave(queue(key), number) {
                assert!(self.waiting.remove(&next), "{next:?} is woken and does not wait");
                self.leave(next);
            }
        }

        fn run(&mut self, event: Event) {
            let pick = |among: &BTreeSet<(u64, u64)>, index: prop::sample::Index| {
                (!among.is_empty()).then(|| *among.iter().nth(index.index(among.len())).unwrap())
            };
            match event {
                Event::Read(key) => {
                    let number = self.queues.join(queue(key));
                    self.under_way.insert((key, number));
                }
                Event::Answered(index) => {
                    if let Some(request) = pick(&self.under_way, index) {
                        self.answered(request);
                    }
                }
                Event::Dropped(index) => {
                    let all = &self.under_way | &self.waiting;
                    if let Some(request) = pick(&all, index) {
                        self.under_way.remove(&request);
                        self.waiting.remove(&request);
                        self.give_up(request);
                    }
                }
            }
        }
    }

    proptest! {
        /// Replies of one key leave in the order of their requests, in whatever order these end; none waits without
        /// need, and all leave.
        #[test]
        fn queues_keep_order_and_let_all_leave(events in events()) {
            let mut world = World::default();
            for event in events {
                world.run(event);
                // A waiting request waits for one that is under way.
                for (key, number) in &world.waiting {
                    prop_assert!(world.under_way.iter().any(|(other, before)| other == key && before < number));
                }
            }
            for key in 0..4 {
                let left: Vec<_> = world.left.iter().filter(|(other, _)| *other == key).collect();
                prop_assert!(left.is_sorted(), "{left:?}");
            }
            while let Some(request) = world.under_way.last().copied() {
                world.answered(request);
            }
            prop_assert!(world.waiting.is_empty() && world.queues.queues.is_empty());
        }
    }

    #[test]
    fn queue_holds_up_no_other() {
        let mut queues = Queues::<()>::default();
        let (slow, second) = (queues.join(queue(1)), queues.join(queue(1)));
        let mut is_first = |queue, number| queues.is_first(queue, number, || ());
        assert!(is_first(queue(1), slow) && !is_first(queue(1), second));
        let later = QueueId { epoch: 2, ..queue(1) };
        for other in [queue(2), later] {
            let number = queues.join(other);
            assert!(queues.is_first(other, number, || ()));
        }
        assert_eq!(queues.leave(queue(1), slow), Some(()));
    }
}
