//! A request's place among those that leave in order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::{Histogram, IntGauge};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::sync::oneshot::{Sender, channel};

use super::queues::{QueueId, Queues};

/// All queues, and what is measured of them. Locked for moments.
#[derive(Debug)]
pub(super) struct Sequencer {
    queues: Mutex<Queues<Sender<()>>>,
    /// Told whenever another may be waited for: one has come to wait, or has left.
    moved: Notify,
    waiting: IntGauge,
    wait: Histogram,
}

/// A request's place, from its reading until its record has left. Dropping it gives it up, however that comes about, so
/// that nobody waits for one who is gone.
#[derive(Debug)]
pub struct Place {
    sequencer: Arc<Sequencer>,
    queue: QueueId,
    number: u64,
}

/// Counts one that waits, for as long as it does.
struct WaitingGauge<'a>(&'a IntGauge);

impl Sequencer {
    pub(super) fn new(waiting: IntGauge, wait: Histogram) -> Self {
        Self { queues: Mutex::default(), moved: Notify::new(), waiting, wait }
    }

    /// Takes the last place of a queue.
    pub(super) fn join(self: &Arc<Self>, queue: QueueId) -> Place {
        let number = self.queues().join(queue);
        Place { sequencer: self.clone(), queue, number }
    }

    fn queues(&self) -> MutexGuard<'_, Queues<Sender<()>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until all before it have left.
    pub(in crate::replies) async fn turn(&self) {
        let Sequencer { waiting, wait, .. } = &*self.sequencer;
        let (waker, woken) = channel();
        if self.sequencer.queues().is_first(self.queue, self.number, || waker) {
            return wait.observe(0.0);
        }
        self.sequencer.moved.notify_waiters();
        let (began, _counted) = (Instant::now(), WaitingGauge::new(waiting));
        // The waker goes with the place alone, which is still there.
        let _ = woken.await;
        wait.observe(began.elapsed().as_secs_f64());
    }
}

impl Place {
    /// Completes when that may have changed of which one is waited for. It has to be asked for before looking.
    pub fn moved(&self) -> Notified<'_> {
        self.sequencer.moved.notified()
    }

    /// Whether it is the first, and one behind it is ready to leave.
    pub fn is_waited_for(&self) -> bool {
        self.sequencer.queues().is_waited_for(self.queue, self.number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let next = self.sequencer.queues().leave(self.queue, self.number);
        match next {
            // Whoever waited may be gone just now, and then gives its own place up.
            Some(next) => drop(next.send(())),
            None => self.sequencer.moved.notify_waiters(),
        }
    }
}

impl<'a> WaitingGauge<'a> {
    fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for WaitingGauge<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::intake::LaneId;
    use crate::telemetry::Metrics;

    fn sequencer() -> Arc<Sequencer> {
        let metrics = Metrics::new().unwrap();
        Arc::new(Sequencer::new(metrics.order_waiting, metrics.order_wait))
    }

    fn queue(key: u64) -> QueueId {
        QueueId { lane: LaneId { topic: 0, partition: 0 }, epoch: 1, key }
    }

    async fn until(done: impl Fn() -> bool) {
        while !done() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn those_that_finish_early_wait_and_one_that_never_asks_for_its_turn_holds_up_nobody() {
        let sequencer = sequencer();
        let (left, mut leaving) = unbounded_channel();
        let mut models = Vec::new();
        for number in 0..20 {
            let (place, left) = (sequencer.join(queue(0)), left.clone());
            let (answer, answered) = channel();
            models.push(answer);
            tokio::spawn(async move {
                answered.await.unwrap();
                if number % 5 == 3 {
                    return;
                }
                place.turn().await;
                left.send(number).unwrap();
            });
        }
        drop(left);
        let first = models.remove(0);
        // The later it was read, the sooner it is answered.
        models.into_iter().rev().for_each(|answer| answer.send(()).unwrap());
        until(|| sequencer.waiting.get() == 15).await;
        // Others are not held up.
        sequencer.join(queue(1)).turn().await;
        assert!(leaving.is_empty());
        first.send(()).unwrap();
        let mut order = Vec::new();
        while let Some(number) = leaving.recv().await {
            order.push(number);
        }
        assert_eq!(order, (0..20).filter(|number| number % 5 != 3).collect::<Vec<_>>());
        assert_eq!((sequencer.waiting.get(), sequencer.wait.get_sample_count()), (0, 17));
    }

    #[tokio::test]
    async fn one_that_is_dropped_while_it_waits_is_passed_over() {
        let sequencer = sequencer();
        let places: Vec<_> = (0..3).map(|_| sequencer.join(queue(0))).collect();
        let [first, second, third] = <[Place; 3]>::try_from(places).unwrap();
        let waiting = tokio::spawn(async move { second.turn().await });
        until(|| sequencer.waiting.get() == 1).await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        drop(first);
        third.turn().await;
        assert_eq!(sequencer.waiting.get(), 0);
    }
}
