//! The partitions this process owns, each with the window of its requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Refusal;
use super::position::Position;
use super::ticket::{Assignment, Claim, Completion, LaneId};
use super::window::Window;
use crate::message::Request;

/// So many owners may end without an answer to the same first request; after that it is run alone.
const LIVES: u8 = 3;
/// So many of those that ran it alone may end by it; after that it is a dead letter.
const TRIALS: u8 = 2;

/// One partition's requests.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) assignment: Arc<Assignment>,
    pub(super) window: Window,
    /// Whether what an earlier owner has committed is known, and that we go on from there. Nothing is run before.
    is_open: bool,
    /// Where we go on from.
    opened_at: Position,
    /// Whether the first request was the end of too many owners, and has not ended yet.
    is_suspect: bool,
    /// What the window was like when it was last handed to the broker; `None` when the last attempt failed or there was
    /// none.
    committed: Option<u64>,
    /// Records that were read and may not be run yet, in their order: the first, for which the partition was paused,
    /// and what was on its way to us.
    held: VecDeque<Held>,
    /// Until when it is known that the first of them may not be run.
    rests_until: Option<Instant>,
}

/// A record that waits for its lane.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) request: Request,
    /// The record's own: the request may be from elsewhere.
    pub(super) offset: i64,
    /// When it may be run, if not at once.
    pub(super) due: Option<Due>,
    /// Why it is not to be served, if that is known already.
    pub(super) refusal: Option<Refusal>,
}

/// When a record that was parked may be run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    pub(super) at: Instant,
    /// Its partition is left alone at least that long: what was fetched of it is thrown away whenever it is paused.
    pub(super) rest: Duration,
}

/// How a request that nobody survived is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trial {
    /// Alone.
    Alone,
    /// Not at all: it was run alone, and that was the end of the process each time.
    Never,
}

/// All lanes, by partition.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<LaneId, Lane>,
    epoch: u64,
    /// When the next held record may be run, or has to be looked at.
    look_at: Option<Instant>,
    suspects: usize,
}

impl Lane {
    fn is_due(&self, now: Instant) -> bool {
        self.rests_until.is_none_or(|until| until <= now)
    }

    /// The offset of the first record that waits.
    pub(super) fn first_held(&self) -> Option<i64> {
        self.held.front().map(|held| held.offset)
    }

    /// What to commit. One that is `closing` gives back what is under way: nobody has ended by it.
    pub(super) fn position(&self, closing: bool) -> Option<Position> {
        let position = self.window.position()?;
        let (lives, trials) = match position.offset == self.opened_at.offset {
            _ if closing => (0, 0),
            true => (self.opened_at.lives, self.opened_at.trials),
            false => (position.lives, position.trials),
        };
        Some(Position { lives, trials, ..position })
    }
}

impl Lanes {
    /// A partition has become ours.
    pub(super) fn take(&mut self, id: LaneId) {
        self.close(id);
        self.epoch += 1;
        let assignment = Arc::new(Assignment { lane: id, epoch: self.epoch, revoked: AtomicBool::new(false) });
        let lane = Lane {
            assignment,
            window: Window::default(),
            is_open: false,
            opened_at: Position::default(),
            is_suspect: false,
            committed: None,
            held: VecDeque::new(),
            rests_until: None,
        };
        self.lanes.insert(id, lane);
    }

    /// What an earlier owner has left is known: requests are run from now on.
    pub(super) fn open(&mut self, id: LaneId, position: Position) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.window = Window::resume(&position);
        lane.committed = Some(lane.window.changes());
        lane.is_open = true;
        lane.is_suspect = position.lives > LIVES;
        lane.opened_at = position;
        self.suspects += usize::from(lane.is_suspect);
    }

    /// A partition is no longer ours; results that come late are dropped.
    pub(super) fn close(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.remove(&id) {
            lane.assignment.revoked.store(true, Ordering::Release);
            self.suspects -= usize::from(lane.is_suspect);
        }
    }

    pub(super) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(&id)
    }

    /// The lane that a request is still of: the one of the assignment by which it was read.
    pub(super) fn of(&mut self, claim: Claim) -> Option<&mut Lane> {
        self.lanes.get_mut(&claim.lane).filter(|lane| lane.assignment.epoch == claim.epoch)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LaneId, &Lane)> {
        self.lanes.iter().map(|(id, lane)| (*id, lane))
    }

    pub(super) fn ids(&self) -> Vec<LaneId> {
        self.lanes.keys().copied().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The lane, if its requests may be run now: not before it is open, and not beside a request that is run alone.
    pub(super) fn running(&mut self, id: LaneId) -> Option<&mut Lane> {
        let alone = self.suspects > 0;
        self.lanes.get_mut(&id).filter(|lane| lane.is_open && !alone)
    }

    /// The lane whose first request is run alone, and is begun now.
    pub(super) fn tried(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(&id).filter(|lane| lane.is_suspect)
    }

    /// A record waits for its lane, behind those that wait there already.
    pub(super) fn hold(&mut self, id: LaneId, held: Held, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.held.push_back(held);
            if lane.held.len() == 1 {
                self.rest(id, now);
            }
        }
    }

    /// Leaves the lane alone until the first record that waits there may be run.
    fn rest(&mut self, id: LaneId, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let due = lane.held.front().and_then(|held| held.due);
        lane.rests_until = due.filter(|due| due.at > now).map(|due| due.at.max(now + due.rest));
        let at = lane.rests_until.unwrap_or(now);
        self.look_at = Some(self.look_at.map_or(at, |look_at| look_at.min(at)));
    }

    /// Takes the first record that waits for a lane.
    pub(super) fn release(&mut self, id: LaneId) -> Option<Held> {
        self.lanes.get_mut(&id)?.held.pop_front()
    }

    /// A record that was taken has to wait on, before all others.
    pub(super) fn put_back(&mut self, id: LaneId, held: Held, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.held.push_front(held);
            self.rest(id, now);
        }
    }

    /// Whether records wait for their lane, so that its partition is paused.
    pub(super) fn is_held(&self, id: LaneId) -> bool {
        self.lanes.get(&id).is_some_and(|lane| !lane.held.is_empty())
    }

    /// Whether a record that waits for its lane may be run now.
    pub(super) fn is_any_due(&self, now: Instant) -> bool {
        self.look_at.is_some_and(|look_at| look_at <= now)
    }

    /// The lanes whose first record may be run now. Whoever asks sees to them all.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<LaneId> {
        let held = || self.lanes.iter().filter(|(_, lane)| !lane.held.is_empty());
        let resting = held().filter(|(_, lane)| !lane.is_due(now));
        self.look_at = resting.filter_map(|(_, lane)| lane.rests_until).min();
        held().filter(|(_, lane)| lane.is_due(now)).map(|(id, _)| *id).collect()
    }

    /// The lanes that are not open yet, with the offset of the record that waits there and may be run now. Until then
    /// nobody has begun it, and nobody may be taken to have ended by it.
    pub(super) fn unopened(&self, now: Instant) -> Vec<(LaneId, i64)> {
        let waiting = |(id, lane): (&LaneId, &Lane)| {
            let held = lane.held.front().filter(|_| !lane.is_open && lane.is_due(now))?;
            Some((*id, held.offset))
        };
        self.lanes.iter().filter_map(waiting).collect()
    }

    /// The lane whose first request is to be run alone next. None while anything else is under way.
    pub(super) fn next_trial(&self) -> Option<LaneId> {
        if self.suspects == 0 || self.lanes.values().any(|lane| lane.window.in_flight() > 0) {
            return None;
        }
        self.lanes.iter().find(|(_, lane)| lane.is_suspect && !lane.held.is_empty()).map(|(id, _)| *id)
    }

    /// One more owner runs a lane's first request alone; what to commit before that. With it goes what is due of the other
    /// lanes, where `commits` are ours and not a transaction's: if this is the end of us, who has been acquitted there must
    /// not be tried for it again.
    pub(super) fn begin_trial(&mut self, id: LaneId, commits: bool) -> Option<(Trial, Vec<(LaneId, Position)>)> {
        let lane = self.lanes.get_mut(&id)?;
        let trial = if lane.opened_at.trials < TRIALS { Trial::Alone } else { Trial::Never };
        lane.opened_at.trials = lane.opened_at.trials.saturating_add(1);
        let position = lane.position(false)?;
        let mut due = if commits { self.take_commits(None, false) } else { Vec::new() };
        due.retain(|(other, _)| *other != id);
        due.push((id, position));
        Some((trial, due))
    }

    /// It was not committed, so it has not begun.
    pub(super) fn revoke_trial(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.opened_at.trials = lane.opened_at.trials.saturating_sub(1);
        }
    }

    /// A request has ended. Returns false when its lane is not ours any more.
    pub(super) fn complete(&mut self, completion: &Completion) -> bool {
        let Some(lane) = self.of(completion.claim) else { return false };
        let finished = completion.finished && lane.window.finish(completion.claim.offset);
        if lane.is_suspect && finished {
            self.acquit(completion.claim.lane);
        }
        finished
    }

    /// A lane's first request has ended, and nobody by it.
    pub(super) fn acquit(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            self.suspects -= usize::from(std::mem::take(&mut lane.is_suspect));
        }
    }

    /// The transaction that a request's end lay in came to nothing.
    pub(super) fn unstage(&mut self, claim: Claim) {
        if let Some(lane) = self.of(claim) {
            lane.window.unstage(claim.offset);
        }
    }

    /// The commits that are due, and remembers that they were made.
    pub(super) fn take_commits(&mut self, chosen: Option<&[LaneId]>, closing: bool) -> Vec<(LaneId, Position)> {
        let is_chosen = |id: &LaneId| chosen.is_none_or(|chosen| chosen.contains(id));
        let mut due = Vec::new();
        for (id, lane) in self.lanes.iter_mut().filter(|(id, lane)| is_chosen(id) && lane.is_open) {
            let gives_back = closing && lane.window.in_flight() > 0;
            if gives_back || lane.committed != Some(lane.window.changes()) {
                lane.committed = Some(lane.window.changes());
                due.extend(lane.position(closing).map(|position| (*id, position)));
            }
        }
        due
    }

    /// A commit did not succeed, so it is due again.
    pub(super) fn commit_failed(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.committed = None;
        }
    }

    /// How many requests of these partitions are under way.
    pub(super) fn in_flight(&self, ids: &[LaneId]) -> usize {
        ids.iter().filter_map(|id| self.lanes.get(id)).map(|lane| lane.window.in_flight()).sum()
    }

    /// Whether a lane that goes has requests under way, and no transaction that may end them.
    pub(super) fn is_given_back(&self, id: LaneId) -> bool {
        self.lanes.get(&id).is_some_and(|lane| lane.window.in_flight() > 0 && !lane.window.is_staged())
    }

    /// Since when the oldest request of all has been under way.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.lanes.values().filter_map(|lane| lane.window.oldest()).min()
    }
}

#[cfg(test)]
mod tests;
