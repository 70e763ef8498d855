//! Place of a request among the replies that leave in order.

use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Instant;

use prometheus::{Histogram, IntGauge};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::sync::oneshot::{Sender, channel};

use super::queues::{QueueId, Queues};

/// Queues of all places, with their metrics. Locked for moments.
#[derive(Debug)]
pub(super) struct Sequencer {
    queues: Mutex<Queues<Sender<()>>>,
    /// Notified whenever another place may be waited for: one has come to wait, or has left.
    moved: Notify,
    waiting: IntGauge,
    wait: Histogram,
}

/// Place of a request, from its reading until its record has left. Dropping the place gives it up, however that comes
/// about, so that no reply waits for one that is gone.
#[derive(Debug)]
pub struct OrderPlace {
    sequencer: Arc<Sequencer>,
    queue: QueueId,
    number: u64,
}

/// Counts a place among the waiting ones, for as long as it waits.
struct WaitingGauge<'a>(&'a IntGauge);

impl Sequencer {
    pub(super) fn new(waiting: IntGauge, wait: Histogram) -> Self {
        Self { queues: Mutex::default(), moved: Notify::new(), waiting, wait }
    }

    /// Takes the last place of a queue.
    pub(super) fn join(self: &Arc<Self>, queue: QueueId) -> OrderPlace {
        let number = self.queues().join(queue);
        OrderPlace { sequencer: self.clone(), queue, number }
    }

    fn queues(&self) -> MutexGuard<'_, Queues<Sender<()>>> {
        self.queues.lock()
    }
}

impl OrderPlace {
    /// Waits until all places before this one have left.
    pub(in crate::replies) async fn turn(&self) {
        let Sequencer { waiting, wait, .. } = &*self.sequencer;
        let (waker, woken) = channel();
        if self.sequencer.queues().is_first(self.queue, self.number, || waker) {
            return wait.observe(0.0);
        }
        self.sequencer.moved.notify_waiters();
        let (began, _counted) = (Instant::now(), WaitingGauge::new(waiting));
        // The waker is dropped with its place alone, which is still there.
        let _ = woken.await;
        wait.observe(began.elapsed().as_secs_f64());
    }
}

impl OrderPlace {
    /// Completes when the place that is waited for may have changed. Has to be called before looking.
    pub fn moved(&self) -> Notified<'_> {
        self.sequencer.moved.notified()
    }

    /// Returns whether this place is the first, and one behind it is ready to leave.
    pub fn is_waited_for(&self) -> bool {
        self.sequencer.queues().is_waited_for(self.queue, self.number)
    }
}

impl Drop for OrderPlace {
    fn drop(&mut self) {
        let next = self.sequencer.queues().leave(self.queue, self.number);
        match next {
            // A waiting task may be gone just now, and then gives its own place up.
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
    async fn place_waits_for_earlier_ones_unless_they_are_dropped() {
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
        // The later a request was read, the sooner it is answered.
        models.into_iter().rev().for_each(|answer| answer.send(()).unwrap());
        until(|| sequencer.waiting.get() == 15).await;
        // Other queues are not held up.
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
    async fn place_is_passed_over_when_dropped_while_waiting() {
        let sequencer = sequencer();
        let places: Vec<_> = (0..3).map(|_| sequencer.join(queue(0))).collect();
        let [first, second, third] = <[OrderPlace; 3]>::try_from(places).unwrap();
        let waiting = tokio::spawn(async move { second.turn().await });
        until(|| sequencer.waiting.get() == 1).await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        drop(first);
        third.turn().await;
        assert_eq!(sequencer.waiting.get(), 0);
    }
}
