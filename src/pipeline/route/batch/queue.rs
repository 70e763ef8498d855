//! The queue of requests that may go together, in the order of their coming.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::ticket::{BatchTicket, SingleCall};
use crate::config;
use crate::invocation::batch_size::BatchSize;
use crate::invocation::body::{JoinKey, Payload, Signature};
use crate::invocation::rejection_rate::RejectionRate;
use crate::invocation::row_independence::BatchMode;
use crate::message::{Deadline, Request};
use crate::telemetry::BatchMetrics;

/// Keeps the waiting requests of one route, and knows how many of them may go into one call.
#[derive(Debug)]
pub(super) struct BatchQueue {
    waiters: BTreeMap<u64, BatchWaiter>,
    next: u64,
    /// Rows of all waiters.
    rows: usize,
    /// Rules by which payloads are told apart for the version that was called last.
    rules: KeyRules,
    pub(super) size: BatchSize,
    pub(super) rejection_rate: RejectionRate<JoinKey>,
}

/// Sets in which respects payloads have to agree to be joined, which depends on the model that reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyRules {
    signature: Option<Arc<Signature>>,
    /// Tells whether rows that lack a value may be treated otherwise among rows that have it, for all that is known.
    nulls_apart: bool,
}

/// Waits in the queue for a request.
#[derive(Debug)]
pub(super) struct BatchWaiter {
    pub(super) payload: Payload,
    pub(super) request: Arc<Request>,
    pub(super) deadline: Deadline,
    /// Key that the request must have in common with others; none when it cannot be joined with any.
    pub(super) key: Option<JoinKey>,
    pub(super) ticket: oneshot::Sender<BatchTicket>,
}

/// Tells which requests are called now that one of them has a lease.
pub(super) enum Taken {
    /// None: the task of another request has taken that one along.
    ByOther,
    /// The request with the lease, by itself.
    Single(SingleCall),
    /// The request with the lease, and others.
    Batch(Box<BatchGroup>),
}

/// Groups the request that has the lease with at least one other that goes with it.
pub(super) struct BatchGroup {
    pub(super) own: BatchWaiter,
    pub(super) others: Vec<BatchWaiter>,
    pub(super) mode: BatchMode,
    pub(super) key: JoinKey,
}

impl BatchQueue {
    /// Makes an empty queue. `isolates_bad_rows` tells whether the model's host says which requests of a call it refuses.
    pub(super) fn new(max_rows: usize, target: Duration, isolates_bad_rows: bool) -> Self {
        Self {
            waiters: BTreeMap::new(),
            next: 0,
            rows: 0,
            rules: KeyRules { signature: None, nulls_apart: true },
            size: BatchSize::new(max_rows, target),
            rejection_rate: RejectionRate::new(isolates_bad_rows),
        }
    }

    /// Enters a request, and returns its number.
    pub(super) fn enter(&mut self, mut waiter: BatchWaiter) -> u64 {
        waiter.key = waiter.key_by(&self.rules);
        self.rows += waiter.payload.rows();
        self.next += 1;
        self.waiters.insert(self.next, waiter);
        self.next
    }

    /// Removes the request with this number, if it still waits.
    pub(super) fn leave(&mut self, number: u64) -> Option<BatchWaiter> {
        let left = self.waiters.remove(&number)?;
        self.rows -= left.payload.rows();
        Some(left)
    }

    /// Computes how long it takes at least until all waiters have been called, with calls as full as they may be and each
    /// as long as `call`; none when the waiters do not even fill two calls.
    pub(super) fn expected_wait(&self, places: usize, call: Duration) -> Option<Duration> {
        let calls = self.rows / self.size.rows();
        (calls >= 2).then(|| call.mul_f64(calls as f64 / places.max(1) as f64))
    }

    /// Tells whether there are as many rows as may go with the request of this number, or the request has gone already.
    pub(super) fn is_complete(&self, number: u64) -> bool {
        let Some(own) = self.waiters.get(&number) else { return true };
        let rows: usize = self.waiters.values().filter(|it| it.key == own.key).map(|it| it.payload.rows()).sum();
        own.key.is_none() || rows >= self.size.rows()
    }

    /// Takes the request with this number, and those that go with it. `mode` says how payloads of a form may be joined.
    pub(super) fn take(
        &mut self,
        number: u64,
        signature: Option<&Arc<Signature>>,
        mode: impl Fn(usize) -> BatchMode,
        settings: &config::Batch,
        metrics: &BatchMetrics,
    ) -> Taken {
        let Some(own) = self.waiters.get(&number) else { return Taken::ByOther };
        let mode = mode(own.payload.form());
        // Keys depend on the version that the lease is for, which may be another one than before.
        if mode != BatchMode::Off {
            self.apply(KeyRules { signature: signature.cloned(), nulls_apart: mode != BatchMode::Proven });
        }
        let Some(own) = self.leave(number) else { return Taken::ByOther };
        if mode == BatchMode::Off {
            metrics.model.inc();
            return Taken::Single(own.single());
        }
        let Some(key) = own.key.clone() else {
            metrics.payload.inc();
            return Taken::Single(own.single());
        };
        // Kinds of payloads that are often refused go in smaller calls, and in the end one by one.
        let bearable = self.rejection_rate.max_rows(&key);
        let (others, is_crowded) =
            self.companions(&own, &key, self.size.rows().min(bearable), settings.max_bytes.as_u64());
        self.size.record_crowding(is_crowded);
        if others.is_empty() {
            if bearable > 1 {
                metrics.company.inc();
                return Taken::Single(own.single());
            }
            metrics.refused.inc();
            return Taken::Single(SingleCall { suspected: Some(key), ..own.single() });
        }
        let others = others.into_iter().filter_map(|other| self.leave(other)).collect();
        Taken::Batch(Box::new(BatchGroup { own, others, mode, key }))
    }

    /// Records the outcome of a request that was called by itself: a suspicion is confirmed, or forgiven in the end.
    pub(super) fn record_single_call(&mut self, single: &SingleCall, is_refused: bool) {
        if let Some(kind) = &single.suspected {
            self.rejection_rate.record(kind, single.rows, if is_refused { single.rows } else { 0 });
        }
    }

    /// Finds the requests that can go with one, and fit in; and whether some do not fit in, for their rows.
    fn companions(&self, own: &BatchWaiter, key: &JoinKey, most_rows: usize, most_bytes: u64) -> (Vec<u64>, bool) {
        let (mut rows, mut bytes) = (own.payload.rows(), own.payload.size());
        let (mut others, mut is_crowded) = (Vec::new(), false);
        for (number, other) in &self.waiters {
            if rows >= most_rows {
                break;
            }
            let (more_rows, more_bytes) = (rows + other.payload.rows(), bytes + other.payload.size());
            // A request whose time is up is left: nobody wants its answer, and its own task tells its caller.
            if other.key.as_ref() != Some(key) || other.deadline.is_over() || other.ticket.is_closed() {
                continue;
            }
            if more_rows > most_rows {
                is_crowded = true;
            } else if more_bytes as u64 <= most_bytes {
                (rows, bytes) = (more_rows, more_bytes);
                others.push(*number);
            }
        }
        (others, is_crowded)
    }

    /// Computes all keys anew, when the rules for them have changed.
    fn apply(&mut self, rules: KeyRules) {
        if self.rules == rules {
            return;
        }
        self.rules = rules;
        for waiter in self.waiters.values_mut() {
            waiter.key = waiter.key_by(&self.rules);
        }
    }
}

impl BatchWaiter {
    fn single(&self) -> SingleCall {
        SingleCall { rows: self.payload.rows(), suspected: None }
    }

    fn key_by(&self, rules: &KeyRules) -> Option<JoinKey> {
        self.payload.key(self.request.content_type(), rules.signature.as_deref(), rules.nulls_apart)
    }
}

#[cfg(test)]
mod tests;
