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
