//! The requests that wait for a seat, in order.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::job::Job;

/// Most requests of one frame. More would not be faster, and would wait longer behind one that is late.
const MOST_REQUESTS: usize = 32;

/// Most bytes of the requests of one frame; a larger request has a frame of its own.
const MOST_BYTES: usize = 1 << 20;

/// The queue between callers and seats.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    /// Wakes a seat that waits.
    pushed: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    seats: usize,
    /// The number of seats that wait for a request.
    idle: usize,
    closed: bool,
}

impl Queue {
    /// Adds a request, and tells whether there should be one more seat, which then counts as there.
    pub(super) fn push(&self, job: Job, most_seats: usize) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            // Its caller is told by the sender that is dropped.
            return false;
        }
        state.jobs.push_back(job);
        let opens = state.jobs.len() > state.idle && state.seats < most_seats;
        state.seats += usize::from(opens);
        drop(state);
        self.pushed.notify_one();
        opens
    }

    /// Puts requests back in front of all others, since they have waited longer.
    pub(super) fn put_back(&self, jobs: VecDeque<Job>) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        for job in jobs.into_iter().rev() {
            state.jobs.push_front(job);
            self.pushed.notify_one();
        }
    }

    /// Counts the first seat, and tells whether there was none.
    pub(super) fn open_seat(&self) -> bool {
        let mut state = self.state.lock();
        let opens = state.seats == 0;
        state.seats += usize::from(opens);
        opens
    }

    /// Waits for requests, and takes a seat's part of them.
    pub(super) async fn take(&self) -> VecDeque<Job> {
        let _idle = IdleSeat::new(self);
        loop {
            let pushed = self.pushed.notified();
            let jobs = self.take_now();
            if !jobs.is_empty() {
                return jobs;
            }
            pushed.await;
        }
    }

    /// Removes all requests.
    pub(super) fn drain(&self) -> VecDeque<Job> {
        std::mem::take(&mut self.state.lock().jobs)
    }

    /// Drops all requests, and those to come.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.drain();
    }

    /// Counts the requests that wait.
    pub(super) fn len(&self) -> usize {
        self.state.lock().jobs.len()
    }

    /// Takes an even share of the requests, within the bounds of a frame.
    fn take_now(&self) -> VecDeque<Job> {
        let mut state = self.state.lock();
        let share = state.jobs.len().div_ceil(state.seats.max(1)).min(MOST_REQUESTS);
        let (mut jobs, mut bytes) = (VecDeque::with_capacity(share), 0);
        while jobs.len() < share
            && let Some(job) = state.jobs.pop_front()
        {
            if job.is_abandoned() {
                continue;
            }
            bytes += job.size();
            if bytes > MOST_BYTES && !jobs.is_empty() {
                state.jobs.push_front(job);
                break;
            }
            jobs.push_back(job);
        }
        // The wake-up of one request was enough for a seat to take several: what is left may need another.
        if !state.jobs.is_empty() {
            self.pushed.notify_one();
        }
        jobs
    }
}

/// A seat that waits, for as long as this lives.
struct IdleSeat<'a>(&'a Queue);

impl<'a> IdleSeat<'a> {
    fn new(queue: &'a Queue) -> Self {
        queue.state.lock().idle += 1;
        Self(queue)
    }
}

impl Drop for IdleSeat<'_> {
    fn drop(&mut self) {
        self.0.state.lock().idle -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use tokio::sync::oneshot;

    use super::*;
    use crate::message::{Headers, Request, Source};
    use crate::routing::{Answers, Question};

    fn job(size: usize) -> (Job, oneshot::Receiver<Answers>) {
        let (sender, answers) = oneshot::channel();
        let source = Source { topic: "t".into(), partition: 0, offset: 0 };
        let payload = Some(Bytes::from(vec![b'x'; size]));
        let request =
            Request { source, timestamp: None, key: None, payload, headers: Headers::default(), parked: None };
        (Job::new(Arc::new(Question::new(Vec::new(), Vec::new())), Arc::new(request), sender), answers)
    }

    fn sizes(jobs: &VecDeque<Job>) -> Vec<usize> {
        jobs.iter().map(Job::size).collect()
    }

    #[tokio::test]
    async fn take_shares_requests_between_seats() {
        let queue = Queue::default();
        let mut callers = Vec::new();
        let opened: Vec<bool> = (0..4)
            .map(|size| {
                let (job, answers) = job(size);
                callers.push(answers);
                queue.push(job, 2)
            })
            .collect();
        assert_eq!(opened, [true, true, false, false]);
        assert_eq!(sizes(&queue.take().await), [0, 1]);
        drop(callers.remove(2));
        assert_eq!(sizes(&queue.take().await), [3]);
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test]
    async fn take_bounds_a_frame_and_keeps_the_order() {
        let queue = Queue::default();
        let mut callers = Vec::new();
        for size in [MOST_BYTES / 2, MOST_BYTES / 2, 1, 2 * MOST_BYTES, 2] {
            let (job, answers) = job(size);
            callers.push(answers);
            queue.push(job, 1);
        }
        let first = queue.take().await;
        assert_eq!(sizes(&first), [MOST_BYTES / 2, MOST_BYTES / 2]);
        queue.put_back(first);
        assert_eq!(sizes(&queue.take().await), [MOST_BYTES / 2, MOST_BYTES / 2]);
        assert_eq!(sizes(&queue.take().await), [1]);
        assert_eq!(sizes(&queue.take().await), [2 * MOST_BYTES]);
        assert_eq!(sizes(&queue.take().await), [2]);
    }

    #[tokio::test]
    async fn push_opens_no_seat_while_one_is_idle() {
        let queue = Arc::new(Queue::default());
        assert!(queue.open_seat() && !queue.open_seat());
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { sizes(&queue.take().await) }
        });
        tokio::task::yield_now().await;
        let (job, _answers) = job(7);
        assert!(!queue.push(job, 2));
        assert_eq!(waiting.await.unwrap(), [7]);
    }
}
