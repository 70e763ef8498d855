//! Who waits, in the order of their coming, and who goes together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Company;
use crate::config;
use crate::invocation::batch_size::BatchSize;
use crate::invocation::body::{Key, Payload, Signature};
use crate::invocation::suspicion::Suspicion;
use crate::invocation::trust::Joining;
use crate::message::Request;
use crate::pipeline::attempt::is_over;
use crate::telemetry::BatchMetrics;

/// Requests that wait.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
    /// Rows of all who wait.
    rows: usize,
    /// How payloads are told apart for the version that was called last.
    reader: Reader,
    pub(super) size: BatchSize,
    pub(super) suspicion: Suspicion<Key>,
}

/// What payloads have to agree in depends on who reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reader {
    signature: Option<Arc<Signature>>,
    /// Whether rows that lack a value may be treated otherwise in company of rows that have it, for all that is known.
    nulls_apart: bool,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) payload: Payload,
    pub(super) request: Arc<Request>,
    pub(super) deadline: Option<Instant>,
    /// What it must have in common with others.
    pub(super) key: Option<Key>,
    pub(super) taken: oneshot::Sender<Company>,
}

/// Who goes when somebody has a place.
pub(super) enum Taken {
    /// Nobody, since another has taken it along.
    Along,
    Alone(Single),
    /// That one and others.
    Several(Group),
}

/// A request that goes by itself.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::pipeline) struct Single {
    pub(super) rows: usize,
    /// Its kind, where most of that are refused.
    suspected: Option<Key>,
}

/// Requests that go together: at least two, the first of which has the place.
pub(super) struct Group {
    pub(super) members: Vec<Waiting>,
    pub(super) joining: Joining,
    pub(super) key: Key,
}

impl Queue {
    /// `tells` whether what answers tells which requests of a call it refuses.
    pub(super) fn new(max_rows: usize, target: Duration, tells: bool) -> Self {
        Self {
            waiting: BTreeMap::new(),
            next: 0,
            rows: 0,
            reader: Reader { signature: None, nulls_apart: true },
            size: BatchSize::new(max_rows, target),
            suspicion: Suspicion::new(tells),
        }
    }

    /// The number of the one that has entered.
    pub(super) fn enter(&mut self, mut waiting: Waiting) -> u64 {
        waiting.key = waiting.key_for(&self.reader);
        self.rows += waiting.payload.rows();
        self.next += 1;
        self.waiting.insert(self.next, waiting);
        self.next
    }

    /// The one with this number does not wait any longer.
    pub(super) fn leave(&mut self, number: u64) -> Option<Waiting> {
        let left = self.waiting.remove(&number)?;
        self.rows -= left.payload.rows();
        Some(left)
    }

    /// How long it takes at least until those who wait have been called, with calls as full as they may be; none when they
    /// do not even fill two, or too little was measured yet.
    pub(super) fn expected_wait(&self, places: usize) -> Option<Duration> {
        let calls = self.rows / self.size.rows();
        if calls < 2 {
            return None;
        }
        Some(self.size.quickest()?.mul_f64(calls as f64 / places.max(1) as f64))
    }

    /// Whether there are as many rows as may go with the one of this number, or it has gone already.
    pub(super) fn is_complete(&self, number: u64) -> bool {
        let Some(own) = self.waiting.get(&number) else { return true };
        let rows: usize = self.waiting.values().filter(|it| it.key == own.key).map(|it| it.payload.rows()).sum();
        own.key.is_none() || rows >= self.size.rows()
    }

    /// Takes the one with this number, and those that go with it. `joining` says how those of a form may.
    pub(super) fn take(
        &mut self,
        number: u64,
        signature: Option<&Arc<Signature>>,
        joining: impl Fn(usize) -> Joining,
        settings: &config::Batch,
        metrics: &BatchMetrics,
    ) -> Taken {
        let Some(own) = self.waiting.get(&number) else { return Taken::Along };
        let joining = joining(own.payload.form());
        if joining != Joining::No {
            self.learn(Reader { signature: signature.cloned(), nulls_apart: joining != Joining::Known });
        }
        let Some(own) = self.leave(number) else { return Taken::Along };
        if joining == Joining::No {
            metrics.model.inc();
            return Taken::Alone(own.single());
        }
        let Some(key) = own.key.clone() else {
            metrics.payload.inc();
            return Taken::Alone(own.single());
        };
        let suspected = self.suspicion.most(&key);
        let (others, is_crowded) =
            self.company(&own, &key, self.size.rows().min(suspected), settings.max_bytes.as_u64());
        self.size.left_behind(is_crowded);
        if others.is_empty() {
            if suspected > 1 {
                metrics.company.inc();
                return Taken::Alone(own.single());
            }
            metrics.refused.inc();
            return Taken::Alone(Single { suspected: Some(key), ..own.single() });
        }
        let mut members = vec![own];
        members.extend(others.into_iter().filter_map(|other| self.leave(other)));
        Taken::Several(Group { members, joining, key })
    }

    /// Takes account of a call with so many rows, if their number is known.
    pub(super) fn took(&mut self, rows: Option<usize>, took: Duration) {
        match rows {
            Some(rows) => self.size.took(rows, took),
            None => self.size.saw(took),
        }
    }

    /// Takes account of one that was called by itself: a suspicion is confirmed, or forgiven in the end.
    pub(super) fn called(&mut self, single: &Single, is_refused: bool) {
        if let Some(kind) = &single.suspected {
            self.suspicion.saw(kind, single.rows, if is_refused { single.rows } else { 0 });
        }
    }

    /// Those that can go with one, and fit in; and whether some do not, for their rows.
    fn company(&self, own: &Waiting, key: &Key, most_rows: usize, most_bytes: u64) -> (Vec<u64>, bool) {
        let (mut rows, mut bytes) = (own.payload.rows(), own.payload.size());
        let (mut others, mut is_crowded) = (Vec::new(), false);
        for (number, other) in &self.waiting {
            if rows >= most_rows {
                break;
            }
            let (more_rows, more_bytes) = (rows + other.payload.rows(), bytes + other.payload.size());
            // Nobody wants what is over; it tells its caller itself.
            if other.key.as_ref() != Some(key) || is_over(other.deadline) || other.taken.is_closed() {
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

    /// What has to be the same depends on the model.
    fn learn(&mut self, reader: Reader) {
        if self.reader == reader {
            return;
        }
        self.reader = reader;
        for waiting in self.waiting.values_mut() {
            waiting.key = waiting.key_for(&self.reader);
        }
    }
}

impl Waiting {
    fn single(&self) -> Single {
        Single { rows: self.payload.rows(), suspected: None }
    }

    fn key_for(&self, reader: &Reader) -> Option<Key> {
        self.payload.key(self.request.content_type(), reader.signature.as_deref(), reader.nulls_apart)
    }
}

#[cfg(test)]
mod tests;
