//! A few loads at a time, and first those that a request waits for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// So many may have a turn at once.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    queue: Arc<Mutex<Queue>>,
}

/// Whether a request waits for it. Whoever gave it to [`Turns::take`] may change it later.
#[derive(Debug, Clone, Default)]
pub(super) struct Urgency(Arc<AtomicBool>);

/// The right to load, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Turns);

#[derive(Debug)]
struct Queue {
    free: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    urgency: Urgency,
    turn: oneshot::Sender<Turn>,
}

impl Urgency {
    /// From now on a request waits for it.
    pub(super) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether one does.
    pub(super) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Turns {
    /// So many at once, and at least one.
    pub(super) fn new(at_once: usize) -> Self {
        let queue = Queue { free: at_once.max(1), waiting: VecDeque::new() };
        Self { queue: Arc::new(Mutex::new(queue)) }
    }

    /// Waits for a turn: what is urgent comes first, and within that whoever came first.
    pub(super) async fn take(&self, urgency: &Urgency) -> Turn {
        loop {
            let coming = {
                let mut queue = self.queue();
                if queue.free > 0 {
                    queue.free -= 1;
                    return Turn(self.clone());
                }
                let (turn, coming) = oneshot::channel();
                queue.waiting.push_back(Waiting { urgency: urgency.clone(), turn });
                coming
            };
            // Nobody drops the other end without a word, except with the queue itself.
            if let Ok(turn) = coming.await {
                return turn;
            }
        }
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.queue().waiting.iter().filter(|waiting| !waiting.turn.is_closed()).count()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Takes out who is next, and forgets those who have given up.
    fn next(&mut self) -> Option<Waiting> {
        self.waiting.retain(|waiting| !waiting.turn.is_closed());
        let urgent = self.waiting.iter().position(|waiting| waiting.urgency.is_raised());
        self.waiting.remove(urgent.unwrap_or(0))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut queue = self.0.queue();
            let next = queue.next();
            if next.is_none() {
                queue.free += 1;
            }
            next
        };
        if let Some(next) = next {
            // Someone who gives up just now lets go of the turn, which passes it on.
            let _ = next.turn.send(Turn(self.0.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Taking = Pin<Box<dyn Future<Output = Turn>>>;

    fn urgency(urgent: bool) -> Urgency {
        let urgency = Urgency::default();
        if urgent {
            urgency.raise();
        }
        urgency
    }

    /// Queues up. Futures are polled by hand, so that the order is what the test says.
    fn queue_up(turns: &Turns, urgency: &Urgency) -> Taking {
        let (turns, urgency) = (turns.clone(), urgency.clone());
        let mut taking: Taking = Box::pin(async move { turns.take(&urgency).await });
        assert!(turn(&mut taking).is_none());
        taking
    }

    fn turn(taking: &mut Taking) -> Option<Turn> {
        match taking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    /// In which order those who wait get their turns, when each ends at once.
    fn order(mut waiting: Vec<Taking>) -> Vec<usize> {
        let mut order = Vec::new();
        while order.len() < waiting.len() {
            let left = (0..waiting.len()).filter(|index| !order.contains(index)).collect::<Vec<_>>();
            let (index, turn) =
                left.into_iter().find_map(|index| turn(&mut waiting[index]).map(|turn| (index, turn))).unwrap();
            order.push(index);
            drop(turn);
        }
        order
    }

    #[tokio::test]
    async fn so_many_at_once() {
        let turns = Turns::new(2);
        let first = turns.take(&urgency(false)).await;
        let _second = turns.take(&urgency(false)).await;
        let mut third = queue_up(&turns, &urgency(true));
        assert_eq!(turns.waiting(), 1);
        drop(first);
        assert!(turn(&mut third).is_some());
        assert_eq!(turns.waiting(), 0);
    }

    #[tokio::test]
    async fn urgent_ones_come_first_and_each_in_the_order_they_came() {
        let turns = Turns::new(1);
        let held = turns.take(&urgency(false)).await;
        let waiting = [false, true, false, true].map(|urgent| queue_up(&turns, &urgency(urgent))).into();
        drop(held);
        assert_eq!(order(waiting), [1, 3, 0, 2]);
    }

    #[tokio::test]
    async fn one_that_becomes_urgent_moves_ahead() {
        let turns = Turns::new(1);
        let held = turns.take(&urgency(true)).await;
        let preload = urgency(false);
        let waiting =
            vec![queue_up(&turns, &urgency(false)), queue_up(&turns, &preload), queue_up(&turns, &urgency(true))];
        preload.raise();
        drop(held);
        assert_eq!(order(waiting), [1, 2, 0]);
    }

    #[tokio::test]
    async fn who_gives_up_costs_nobody_a_turn() {
        let turns = Turns::new(1);
        let held = turns.take(&urgency(true)).await;
        let [gone, mut next] = [(); 2].map(|()| queue_up(&turns, &urgency(true)));
        drop(gone);
        assert_eq!(turns.waiting(), 1);
        drop(held);
        // It has the turn already and gives up before it knows.
        let mut last = queue_up(&turns, &urgency(true));
        drop(std::mem::replace(&mut next, Box::pin(std::future::pending())));
        assert!(turn(&mut last).is_some());
        drop(last);
        let _free_again = turns.take(&urgency(false)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn under_load_no_turn_is_lost() {
        let turns = Turns::new(3);
        let tasks = (0..200).map(|index| {
            let turns = turns.clone();
            tokio::spawn(async move {
                let urgency = urgency(index % 3 == 0);
                let taking = turns.take(&urgency);
                if index % 5 == 0 {
                    // Gives up at some point.
                    let _ = tokio::time::timeout(std::time::Duration::from_micros(index), taking).await;
                } else {
                    let _turn = taking.await;
                    tokio::task::yield_now().await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(turns.waiting(), 0);
        assert_eq!(turns.queue().free, 3);
    }
}
