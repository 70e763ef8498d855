//! The partitions this process owns, each with the window of its requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Refusal;
use super::caution::{Caution, Trial};
use super::position::Position;
use super::ticket::{Assignment, Claim, Completion, LaneId};
use super::window::Window;
use crate::broker::TopicId;
use crate::message::Request;

/// So long may nothing come of a lane whose next requests are to run alone, until there is none.
const QUIET: Duration = Duration::from_secs(1);

/// One partition's requests.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) assignment: Arc<Assignment>,
    pub(super) window: Window,
    /// Whether what an earlier owner has committed is known, and that we go on from there. Nothing is run before.
    is_open: bool,
    /// Whether what is committed of it has been found to be of this topic; see [`Lanes::unchecked`].
    is_checked: bool,
    /// Whether nothing that is committed holds, since the topic is another one.
    is_anew: bool,
    /// The topic that its offsets are of, as far as that is known.
    topic: Option<TopicId>,
    caution: Caution,
    /// How far the commit reaches that was made last, and the last transaction.
    reaches: Option<i64>,
    staged: Option<i64>,
    /// Whether its first requests were the end of too many owners, and have not ended yet; and since when none came.
    is_suspect: bool,
    quiet_since: Option<Instant>,
    /// Whether it is being given back: what ends from now on is left to its next owner.
    is_closing: bool,
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
    /// Whether the request has its value. One without is read again when it may be run.
    pub(super) is_whole: bool,
}

/// When a record that was parked may be run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    pub(super) at: Instant,
    /// Its partition is left alone at least that long: what was fetched of it is thrown away whenever it is paused.
    pub(super) rest: Duration,
}

/// All lanes, by partition.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<LaneId, Lane>,
    epoch: u64,
    /// What is under way of topics that are gone, by assignment: it is answered, and no offset follows from that.
    orphans: BTreeMap<u64, Window>,
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
        let position = Position { topic: self.topic, ..self.window.position()? };
        Some(self.caution.note(position, closing))
    }

    /// Whether nothing of it is under way or waits.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.window.in_flight() == 0
    }

    /// Whether the first record that waits was finished by an earlier owner.
    pub(super) fn is_first_held_finished(&self) -> bool {
        self.first_held().is_some_and(|offset| self.window.has_finished(offset))
    }

    /// Whether what is committed of it has been looked at.
    pub(super) fn is_checked(&self) -> bool {
        self.is_checked
    }

    /// Whether the topic that it is a lane of has been made anew.
    pub(super) fn is_anew(&self) -> bool {
        self.is_anew
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
            is_checked: false,
            is_anew: false,
            topic: None,
            caution: Caution::after(&Position::default()),
            reaches: None,
            staged: None,
            is_suspect: false,
            quiet_since: None,
            is_closing: false,
            committed: None,
            held: VecDeque::new(),
            rests_until: None,
        };
        self.lanes.insert(id, lane);
    }

    /// What an earlier owner has left is known, and that we are its owner is noted: requests are run from now on, of which
    /// `first` came first.
    pub(super) fn open(&mut self, id: LaneId, left: &Position, first: i64) {
        let Some(lane) = self.lanes.get_mut(&id).filter(|lane| !lane.is_open) else { return };
        lane.window = Window::resume(left).from_first(first);
        lane.committed = Some(lane.window.changes());
        lane.topic = left.topic;
        lane.caution = Caution::after(left);
        (lane.is_open, lane.is_checked) = (true, true);
        if let Some(position) = lane.position(false) {
            lane.caution.noted(position.until());
        }
        lane.is_suspect = lane.caution.is_suspect(left.offset);
        self.suspects += usize::from(lane.is_suspect);
    }

    /// A lane's topic was deleted and made again, or its offsets have gone back: what was known of it holds no more. What
    /// is under way ends by itself.
    pub(super) fn begin_anew(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.remove(&id) else { return };
        self.suspects -= usize::from(lane.is_suspect);
        if lane.window.in_flight() > 0 {
            self.orphans.insert(lane.assignment.epoch, lane.window);
        }
        self.take(id);
        if let Some(lane) = self.lanes.get_mut(&id) {
            (lane.is_anew, lane.is_checked) = (true, true);
        }
    }

    /// The lanes of which it is not known whether what is committed is of the topic that they are lanes of. It may be of
    /// one of that name before, and say that all requests are answered which wait here.
    pub(super) fn unchecked(&self) -> Vec<LaneId> {
        self.lanes.iter().filter(|(_, lane)| !lane.is_checked).map(|(id, _)| *id).collect()
    }

    /// A lane's position is of its topic.
    pub(super) fn checked(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.is_checked = true;
        }
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

    /// The window that a request is in: that of its lane, or one whose topic is gone.
    pub(super) fn window(&mut self, claim: Claim) -> Option<&mut Window> {
        if self.orphans.contains_key(&claim.epoch) {
            return self.orphans.get_mut(&claim.epoch);
        }
        self.of(claim).map(|lane| &mut lane.window)
    }

    /// Whether a request's topic is gone, so that nothing is committed of it.
    pub(super) fn is_orphan(&self, claim: Claim) -> bool {
        self.orphans.contains_key(&claim.epoch)
    }

    /// How many requests are under way whose topics are gone.
    pub(super) fn orphans(&self) -> usize {
        self.orphans.values().map(Window::in_flight).sum()
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

    /// The lane, if this request of its may be run now: not before it is open, not beside a request that is run alone, and
    /// not before a commit says that it may be.
    pub(super) fn running(&mut self, id: LaneId, offset: i64) -> Option<&mut Lane> {
        let alone = self.suspects > 0;
        let runs = |lane: &&mut Lane| lane.is_open && !lane.is_closing && lane.caution.may_begin(offset);
        self.lanes.get_mut(&id).filter(|_| !alone).filter(runs)
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

    /// Forgets the records that wait for a lane: they are read again.
    pub(super) fn drop_held(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.held.clear();
        }
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

    /// Whether requests are to be run alone.
    pub(super) fn has_suspects(&self) -> bool {
        self.suspects > 0
    }

    /// The lane whose first request is to be run alone next. None while anything else is under way, or it has not come.
    pub(super) fn next_trial(&mut self, now: Instant) -> Option<LaneId> {
        if self.suspects == 0 || self.lanes.values().any(|lane| lane.window.in_flight() > 0) {
            return None;
        }
        let mut suspects = self.lanes.iter_mut().filter(|(_, lane)| lane.is_suspect);
        if let Some((id, lane)) = suspects.find(|(_, lane)| !lane.held.is_empty()) {
            lane.quiet_since = None;
            return Some(*id);
        }
        for lane in self.lanes.values_mut().filter(|lane| lane.is_suspect) {
            if now.duration_since(*lane.quiet_since.get_or_insert(now)) >= QUIET {
                // What a dead owner may have begun need not exist.
                lane.caution.acquit(lane.window.first_unfinished().unwrap_or_default());
                lane.is_suspect = false;
                self.suspects -= 1;
            }
        }
        None
    }

    /// One more owner runs a lane's first request alone; what to commit before that. With it goes what is due of the other
    /// lanes, where `commits` are ours and not a transaction's: if this is the end of us, who has been acquitted there must
    /// not be tried for it again.
    pub(super) fn begin_trial(&mut self, id: LaneId, commits: bool) -> Option<(Trial, Vec<(LaneId, Position)>)> {
        let lane = self.lanes.get_mut(&id)?;
        let trial = lane.caution.try_first(lane.window.position()?.offset);
        let position = lane.position(false)?;
        let mut due = if commits { self.take_commits(None, false) } else { Vec::new() };
        due.retain(|(other, _)| *other != id);
        due.push((id, position));
        Some((trial, due))
    }

    /// It was not committed, so it has not begun.
    pub(super) fn revoke_trial(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.caution.take_back();
        }
    }

    /// A request has ended. Returns false when its lane is not ours any more.
    pub(super) fn complete(&mut self, completion: &Completion) -> bool {
        let Completion { claim, finished, .. } = *completion;
        if let Some(window) = self.orphans.get_mut(&claim.epoch) {
            // Its record is gone, so nobody else will ever run it.
            window.finish(claim.offset);
            if window.in_flight() == 0 {
                self.orphans.remove(&claim.epoch);
            }
            return finished;
        }
        let Some(lane) = self.of(claim) else { return false };
        let finished = finished && lane.window.finish(claim.offset);
        if finished {
            if let Some(until) = lane.staged.take() {
                lane.caution.noted(until);
            }
            self.look_at_suspect(claim.lane);
        }
        finished
    }

    /// One of a lane's requests that run alone has ended, and nobody by it: it was the last, or the next has its turn.
    pub(super) fn look_at_suspect(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.is_suspect) else { return };
        if lane.window.first_unfinished().is_some_and(|first| !lane.caution.is_suspect(first)) {
            lane.is_suspect = false;
            self.suspects -= 1;
        }
    }

    /// A request's end is in a transaction from now on. False when its lane is not ours any more, or is being given back.
    pub(super) fn stage(&mut self, claim: Claim) -> bool {
        if self.of(claim).is_some_and(|lane| lane.is_closing) {
            return false;
        }
        self.window(claim).is_some_and(|window| window.stage(claim.offset))
    }

    /// What a transaction says of a lane, which remembers it.
    pub(super) fn take_staged(&mut self, id: LaneId) -> Option<(LaneId, Position)> {
        let lane = self.lanes.get_mut(&id)?;
        let position = lane.position(false)?;
        lane.staged = Some(position.until());
        Some((id, position))
    }

    /// The transaction that a request's end lay in came to nothing.
    pub(super) fn unstage(&mut self, claim: Claim) {
        if let Some(window) = self.window(claim) {
            window.unstage(claim.offset);
        }
        if let Some(lane) = self.of(claim) {
            lane.staged = None;
        }
    }

    /// The commits that are due, and remembers that they were made. Whatever is `closing` says that nobody has it.
    pub(super) fn take_commits(&mut self, chosen: Option<&[LaneId]>, closing: bool) -> Vec<(LaneId, Position)> {
        let is_chosen = |id: &LaneId| chosen.is_none_or(|chosen| chosen.contains(id));
        let mut due = Vec::new();
        for (id, lane) in self.lanes.iter_mut().filter(|(id, lane)| is_chosen(id) && lane.is_open) {
            if closing || lane.committed != Some(lane.window.changes()) {
                let Some(position) = lane.position(closing) else { continue };
                lane.committed = Some(lane.window.changes());
                lane.reaches = Some(position.until());
                due.push((*id, position));
            }
        }
        due
    }

    /// The broker has the commit of a lane that was made last.
    pub(super) fn committed(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id)
            && let Some(until) = lane.reaches.take()
        {
            lane.caution.noted(until);
        }
    }

    /// A commit did not succeed, so it is due again.
    pub(super) fn commit_failed(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            (lane.committed, lane.reaches) = (None, None);
        }
    }

    /// These partitions are to be given back: what ends of them from now on is left to their next owner, unless it is in a
    /// transaction already.
    pub(super) fn begin_closing(&mut self, ids: &[LaneId]) {
        for id in ids {
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.is_closing = true;
                lane.assignment.revoked.store(true, Ordering::Release);
            }
        }
    }

    /// Whether a transaction that is not decided says something of one of these partitions.
    pub(super) fn is_any_staged(&self, ids: &[LaneId]) -> bool {
        ids.iter().any(|id| self.is_staged(*id))
    }

    /// Whether a transaction that is not decided says something of a partition.
    pub(super) fn is_staged(&self, id: LaneId) -> bool {
        self.lanes.get(&id).is_some_and(|lane| lane.window.is_staged())
    }

    /// How many requests of these partitions are under way.
    pub(super) fn in_flight(&self, ids: &[LaneId]) -> usize {
        ids.iter().filter_map(|id| self.lanes.get(id)).map(|lane| lane.window.in_flight()).sum()
    }

    /// Since when the oldest request of all has been under way.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let windows = self.lanes.values().map(|lane| &lane.window).chain(self.orphans.values());
        windows.filter_map(Window::oldest).min()
    }
}

#[cfg(test)]
mod tests;
