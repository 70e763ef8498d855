//! Window of one partition's offsets: which are under way, which are finished, and how far a commit may go.

use std::collections::VecDeque;
use std::time::Instant;

use super::position::{MAX_WINDOW, Position};

/// Offsets of one partition from the first unfinished one on.
///
/// Requests finish in any order; a commit may only move to the first offset that is not finished, and says which of the
/// later ones are finished as well. Offsets that never arrive (transaction markers, compaction) count as finished.
#[derive(Debug, Default)]
pub struct Window {
    /// Offset of the first slot.
    base: i64,
    slots: VecDeque<OffsetState>,
    /// One past the last offset that was read; no record below it is still to come.
    read: i64,
    /// True if any offset is known; before that there is nothing to commit.
    begun: bool,
    in_flight: usize,
    /// Number of changes that a commit would say differently.
    changes: u64,
}

#[derive(Debug, Clone, Copy)]
enum OffsetState {
    /// The offset was unfinished when its last owner committed; its record is to be read again, unless it never
    /// arrives.
    Unread,
    InFlight {
        since: Instant,
    },
    /// The end of the request is in a transaction that is not committed yet.
    Staged {
        since: Instant,
    },
    Finished,
}

/// Result of beginning an offset that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetBegin {
    /// The request is under way from now on.
    New,
    /// The request is under way or finished already.
    Seen,
    /// The offset lies before what was read already, so its record is another one than the one that was there: records
    /// come in rising order. Nothing has changed.
    Back,
    /// The offset is too far from the first unfinished one, and has to wait. Nothing has changed.
    TooFar,
}

impl Window {
    /// Continues from the position that an earlier owner of the partition has left.
    pub fn resume(position: &Position) -> Self {
        let slot = |finished: &bool| if *finished { OffsetState::Finished } else { OffsetState::Unread };
        let slots = position.finished.iter().map(slot).collect();
        let (base, read) = (position.offset, position.offset);
        let mut window = Self { base, slots, read, begun: true, ..Self::default() };
        window.slide();
        window
    }

    /// Accepts this offset as the first that has come to us: the requests between it and the position were finished
    /// meanwhile, and their records are on their way.
    pub fn from_first(mut self, first: i64) -> Self {
        self.read = self.read.min(first);
        self
    }

    /// Begins a request that was read. Offsets come in rising order.
    pub fn begin(&mut self, offset: i64, now: Instant) -> OffsetBegin {
        if !self.begun {
            *self = Self { base: offset, read: offset, begun: true, ..Self::default() };
        }
        if offset < self.read {
            return OffsetBegin::Back;
        }
        self.skip_to(offset);
        let Some(index) = index(offset - self.base) else {
            // An earlier owner has finished this request, and all before it.
            self.read = offset + 1;
            return OffsetBegin::Seen;
        };
        if index >= MAX_WINDOW {
            return OffsetBegin::TooFar;
        }
        self.read = offset + 1;
        // Offsets between the last known one and this one hold no record.
        while self.slots.len() < index {
            self.slots.push_back(OffsetState::Finished);
        }
        match self.slots.get_mut(index) {
            None => self.slots.push_back(OffsetState::InFlight { since: now }),
            Some(slot @ OffsetState::Unread) => *slot = OffsetState::InFlight { since: now },
            Some(OffsetState::InFlight { .. } | OffsetState::Staged { .. } | OffsetState::Finished) => {
                return OffsetBegin::Seen;
            }
        }
        self.in_flight += 1;
        OffsetBegin::New
    }

    /// Finishes the offsets before `offset` that were not read: they never will be.
    fn skip_to(&mut self, offset: i64) {
        let from = index(self.read - self.base).unwrap_or_default();
        let until = index(offset - self.base).unwrap_or_default().min(self.slots.len());
        for slot in self.slots.range_mut(from.min(until)..until) {
            if matches!(slot, OffsetState::Unread) {
                *slot = OffsetState::Finished;
                self.changes += 1;
            }
        }
        self.read = offset;
        self.slide();
        if self.slots.is_empty() {
            self.base = self.base.max(offset);
        }
    }

    /// Finishes a request. Returns false for a request that is not under way here, and changes nothing.
    pub fn finish(&mut self, offset: i64) -> bool {
        match self.slot(offset).filter(|slot| slot.since().is_some()) {
            Some(slot) => *slot = OffsetState::Finished,
            None => return false,
        }
        self.in_flight -= 1;
        self.changes += 1;
        self.slide();
        true
    }

    /// Stages the end of a request in a transaction: [`position`](Self::position) takes the request as finished. False
    /// when it is not under way here.
    pub fn stage(&mut self, offset: i64) -> bool {
        let Some(slot) = self.slot(offset) else { return false };
        let Some(since) = slot.since() else { return false };
        *slot = OffsetState::Staged { since };
        true
    }

    /// Takes back an end whose transaction was aborted: the request is under way as before.
    pub fn unstage(&mut self, offset: i64) {
        if let Some(slot) = self.slot(offset)
            && let OffsetState::Staged { since } = *slot
        {
            *slot = OffsetState::InFlight { since };
        }
    }

    /// Returns how far the requests are answered: the offset of the first that is not finished, and which later ones
    /// are. Requests whose ends are staged count as finished. `None` before anything was read.
    pub fn position(&self) -> Option<Position> {
        let done = |slot: &OffsetState| matches!(slot, OffsetState::Finished | OffsetState::Staged { .. });
        let prefix = self.slots.iter().take_while(|slot| done(slot)).count();
        let last = self.slots.iter().rposition(done).map_or(0, |last| last + 1);
        let finished = self.slots.range(prefix..last.max(prefix)).map(done).collect();
        let offset = self.base + i64::try_from(prefix).unwrap_or(i64::MAX);
        self.begun.then_some(Position { offset, finished, ..Position::default() })
    }

    /// Returns the offset of the first request that is not finished. `None` before anything was read.
    pub fn first_unfinished(&self) -> Option<i64> {
        self.begun.then_some(self.base)
    }

    /// Returns one past the last offset that was read. `None` before anything was.
    pub fn read(&self) -> Option<i64> {
        self.begun.then_some(self.read)
    }

    /// Returns whether a request is known to be finished.
    pub fn has_finished(&self, offset: i64) -> bool {
        let slot = index(offset - self.base).map(|index| self.slots.get(index));
        match slot {
            Some(slot) => matches!(slot, Some(OffsetState::Finished)),
            None => self.begun,
        }
    }

    /// Returns a number that grows with everything that a commit would say differently.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Counts the offsets between the first unfinished one and the last that is known.
    pub fn width(&self) -> usize {
        self.slots.len()
    }

    /// Counts the requests under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns whether the ends of some requests are in a transaction.
    pub fn is_staged(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, OffsetState::Staged { .. }))
    }

    /// Returns since when the first unfinished request has been under way.
    pub fn oldest(&self) -> Option<Instant> {
        self.slots.front().and_then(OffsetState::since)
    }

    fn slot(&mut self, offset: i64) -> Option<&mut OffsetState> {
        self.slots.get_mut(index(offset - self.base)?)
    }

    fn slide(&mut self) {
        while let Some(OffsetState::Finished) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
    }
}

impl OffsetState {
    fn since(&self) -> Option<Instant> {
        match self {
            Self::InFlight { since } | Self::Staged { since } => Some(*since),
            Self::Unread | Self::Finished => None,
        }
    }
}

/// Converts a distance to an index; None for an offset before the first slot.
fn index(distance: i64) -> Option<usize> {
    usize::try_from(distance).ok()
}

#[cfg(test)]
mod tests;
