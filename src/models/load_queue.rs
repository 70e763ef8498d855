//! Queue of loads: a few at a time, and first those that a request waits for.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

/// Caps concurrent loads; waiting loads run urgent first, then FIFO.
#[derive(Debug, Clone)]
pub(super) struct LoadQueue {
    queue: Arc<Mutex<QueueState>>,
}

/// Priority of a load: whether a request waits for it. The holder of a copy may raise it after [`LoadQueue::acquire`]
/// was called.
#[derive(Debug, Clone, Default)]
pub(super) struct Priority(Arc<AtomicBool>);

/// Right to load, until it is dropped.
#[derive(Debug)]
pub(super) struct LoadPermit(LoadQueue);

#[derive(Debug)]
struct QueueState {
    free: usize,
    waiting: VecDeque<QueuedLoad>,
}

#[derive(Debug)]
struct QueuedLoad {
    priority: Priority,
    permit: oneshot::Sender<LoadPermit>,
}

impl Priority {
    /// Records that a request waits for the load from now on.
    pub(super) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Tells whether a request waits for the load.
    pub(super) fn is_urgent(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl LoadQueue {
    /// Builds a queue for so many loads at once, and at least one.
    pub(super) fn new(at_once: usize) -> Self {
        let queue = QueueState { free: at_once.max(1), waiting: VecDeque::new() };
        Self { queue: Arc::new(Mutex::new(queue)) }
    }

    /// Waits for a permit: urgent loads come first, and within a priority the first come is the first served.
    pub(super) async fn acquire(&self, priority: &Priority) -> LoadPermit {
        loop {
            let coming = {
                let mut queue = self.queue.lock();
                if queue.free > 0 {
                    queue.free -= 1;
                    return LoadPermit(self.clone());
                }
                let (permit, coming) = oneshot::channel();
                queue.waiting.push_back(QueuedLoad { priority: priority.clone(), permit });
                coming
            };
            // The sender is dropped without a permit only with the queue itself.
            if let Ok(permit) = coming.await {
                return permit;
            }
        }
    }

    /// Counts the loads that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.queue.lock().waiting.iter().filter(|waiting| !waiting.permit.is_closed()).count()
    }
}

impl QueueState {
    /// Takes out the load that is next, and forgets those that have given up.
    fn next(&mut self) -> Option<QueuedLoad> {
        self.waiting.retain(|waiting| !waiting.permit.is_closed());
        let urgent = self.waiting.iter().position(|waiting| waiting.priority.is_urgent());
        self.waiting.remove(urgent.unwrap_or(0))
    }
}

impl Drop for LoadPermit {
    fn drop(&mut self) {
        let next = {
            let mut queue = self.0.queue.lock();
            let next = queue.next();
            if next.is_none() {
                queue.free += 1;
            }
            next
        };
        if let Some(next) = next {
            // A load that gives up just now drops the permit, which passes it on.
            let _ = next.permit.send(LoadPermit(self.0.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Taking = Pin<Box<dyn Future<Output = LoadPermit>>>;

    fn priority(urgent: bool) -> Priority {
        let priority = Priority::default();
        if urgent {
            priority.raise();
        }
        priority
    }

    /// Queues up a load. Futures are polled by hand, so that the order is as the test says.
    fn queue_up(queue: &LoadQueue, priority: &Priority) -> Taking {
        let (queue, priority) = (queue.clone(), priority.clone());
        let mut taking: Taking = Box::pin(async move { queue.acquire(&priority).await });
        assert!(permit(&mut taking).is_none());
        taking
    }

    fn permit(taking: &mut Taking) -> Option<LoadPermit> {
        match taking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    /// Returns the order in which the waiting loads get their permits, when each load ends at once.
    fn order(mut waiting: Vec<Taking>) -> Vec<usize> {
        let mut order = Vec::new();
        while order.len() < waiting.len() {
            let left = (0..waiting.len()).filter(|index| !order.contains(index)).collect::<Vec<_>>();
            let (index, permit) =
                left.into_iter().find_map(|index| permit(&mut waiting[index]).map(|permit| (index, permit))).unwrap();
            order.push(index);
            drop(permit);
        }
        order
    }

    #[tokio::test]
    async fn queue_caps_concurrent_loads() {
        let queue = LoadQueue::new(2);
        let first = queue.acquire(&priority(false)).await;
        let _second = queue.acquire(&priority(false)).await;
        let mut third = queue_up(&queue, &priority(true));
        assert_eq!(queue.waiting(), 1);
        drop(first);
        assert!(permit(&mut third).is_some());
        assert_eq!(queue.waiting(), 0);
    }

    #[tokio::test]
    async fn queue_serves_urgent_loads_first_then_fifo() {
        let queue = LoadQueue::new(1);
        let held = queue.acquire(&priority(false)).await;
        let waiting = [false, true, false, true].map(|urgent| queue_up(&queue, &priority(urgent))).into();
        drop(held);
        assert_eq!(order(waiting), [1, 3, 0, 2]);
    }

    #[tokio::test]
    async fn load_moves_ahead_when_raised() {
        let queue = LoadQueue::new(1);
        let held = queue.acquire(&priority(true)).await;
        let preload = priority(false);
        let waiting =
            vec![queue_up(&queue, &priority(false)), queue_up(&queue, &preload), queue_up(&queue, &priority(true))];
        preload.raise();
        drop(held);
        assert_eq!(order(waiting), [1, 2, 0]);
    }

    #[tokio::test]
    async fn permit_passes_on_when_a_load_gives_up() {
        let queue = LoadQueue::new(1);
        let held = queue.acquire(&priority(true)).await;
        let [gone, mut next] = [(); 2].map(|()| queue_up(&queue, &priority(true)));
        drop(gone);
        assert_eq!(queue.waiting(), 1);
        drop(held);
        // The waiting load has the permit already and gives up before it knows.
        let mut last = queue_up(&queue, &priority(true));
        drop(std::mem::replace(&mut next, Box::pin(std::future::pending())));
        assert!(permit(&mut last).is_some());
        drop(last);
        let _free_again = queue.acquire(&priority(false)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn permits_are_not_lost_under_contention() {
        let queue = LoadQueue::new(3);
        let tasks = (0..200).map(|index| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let priority = priority(index % 3 == 0);
                let taking = queue.acquire(&priority);
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
        assert_eq!(queue.waiting(), 0);
        assert_eq!(queue.queue.lock().free, 3);
    }
}
