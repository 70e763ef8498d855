//! The partitions this process owns, each with the window of its requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Refusal;
use super::poison_pill::{CrashHistory, IsolatedRun};
use super::position::Position;
use super::ticket::{Assignment, Completion, LaneId, RequestPosition};
use super::window::Window;
use crate::broker::TopicId;
use crate::message::Request;

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
    was_restarted: bool,
    /// The topic that its offsets are of, as far as that is known.
    topic: Option<TopicId>,
    crashes: CrashHistory,
    /// How far the commit reaches that was made last, and the last transaction.
    reaches: Option<i64>,
    staged: Option<i64>,
    /// Whether it is being given back: what ends from now on is left to its next owner.
    is_closing: bool,
    /// What the window was like when it was last handed to the broker; `None` when the last attempt failed or there was
    /// none.
    committed: Option<u64>,
    /// Records that were read and may not be run yet, in their order: the first, for which the partition was paused,
    /// and what was on its way to us.
    held: VecDeque<HeldRecord>,
    /// Until when it is known that the first of them may not be run.
    rests_until: Option<Instant>,
}

/// A record that waits for its lane.
#[derive(Debug)]
pub(super) struct HeldRecord {
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
    next_due: Option<Instant>,
    quarantined: usize,
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
        Some(self.crashes.note(position, closing))
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
    pub(super) fn was_restarted(&self) -> bool {
        self.was_restarted
    }
}

impl Lanes {
    /// A partition has become ours.
    pub(super) fn assign(&mut self, id: LaneId) {
        self.remove(id);
        self.epoch += 1;
        let assignment = Arc::new(Assignment { lane: id, epoch: self.epoch, revoked: AtomicBool::new(false) });
        let lane = Lane {
            assignment,
            window: Window::default(),
            is_open: false,
            is_checked: false,
            was_restarted: false,
            topic: None,
            crashes: CrashHistory::after(&Position::default()),
            reaches: None,
            staged: None,
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
        lane.crashes = CrashHistory::after(left);
        (lane.is_open, lane.is_checked) = (true, true);
        if let Some(position) = lane.position(false) {
            lane.crashes.noted(position.until());
        }
        self.quarantined += usize::from(lane.crashes.quarantine(left.offset));
    }

    /// A lane's topic was deleted and made again, or its offsets have gone back: what was known of it holds no more. What
    /// is under way ends by itself.
    pub(super) fn restart(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.remove(&id) else { return };
        self.quarantined -= usize::from(lane.crashes.is_quarantined());
        if lane.window.in_flight() > 0 {
            self.orphans.insert(lane.assignment.epoch, lane.window);
        }
        self.assign(id);
        if let Some(lane) = self.lanes.get_mut(&id) {
            (lane.was_restarted, lane.is_checked) = (true, true);
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
    pub(super) fn remove(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.remove(&id) {
            lane.assignment.revoked.store(true, Ordering::Release);
            self.quarantined -= usize::from(lane.crashes.is_quarantined());
        }
    }

    pub(super) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(&id)
    }

    /// The lane that a request is still of: the one of the assignment by which it was read.
    pub(super) fn lane_of(&mut self, request: RequestPosition) -> Option<&mut Lane> {
        self.lanes.get_mut(&request.lane).filter(|lane| lane.assignment.epoch == request.epoch)
    }

    /// The window that a request is in: that of its lane, or one whose topic is gone.
    pub(super) fn window(&mut self, request: RequestPosition) -> Option<&mut Window> {
        if self.orphans.contains_key(&request.epoch) {
            return self.orphans.get_mut(&request.epoch);
        }
        self.lane_of(request).map(|lane| &mut lane.window)
    }

    /// Whether a request's topic is gone, so that nothing is committed of it.
    pub(super) fn is_orphan(&self, request: RequestPosition) -> bool {
        self.orphans.contains_key(&request.epoch)
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
    pub(super) fn runnable(&mut self, id: LaneId, offset: i64) -> Option<&mut Lane> {
        let alone = self.quarantined > 0;
        let runs = |lane: &&mut Lane| lane.is_open && !lane.is_closing && lane.crashes.may_begin(offset);
        self.lanes.get_mut(&id).filter(|_| !alone).filter(runs)
    }

    /// The lane whose first request is run alone, and is begun now.
    pub(super) fn quarantined(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(&id).filter(|lane| lane.crashes.is_quarantined())
    }

    /// A record waits for its lane, behind those that wait there already.
    pub(super) fn hold(&mut self, id: LaneId, held: HeldRecord, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.held.push_back(held);
            if lane.held.len() == 1 {
                self.schedule(id, now);
            }
        }
    }

    /// Leaves the lane alone until the first record that waits there may be run.
    fn schedule(&mut self, id: LaneId, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let due = lane.held.front().and_then(|held| held.due);
        lane.rests_until = due.filter(|due| due.at > now).map(|due| due.at.max(now + due.rest));
        let at = lane.rests_until.unwrap_or(now);
        self.next_due = Some(self.next_due.map_or(at, |next_due| next_due.min(at)));
    }

    /// Takes the first record that waits for a lane.
    pub(super) fn release(&mut self, id: LaneId) -> Option<HeldRecord> {
        self.lanes.get_mut(&id)?.held.pop_front()
    }

    /// Forgets the records that wait for a lane: they are read again.
    pub(super) fn drop_held(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.held.clear();
        }
    }

    /// A record that was taken has to wait on, before all others.
    pub(super) fn put_back(&mut self, id: LaneId, held: HeldRecord, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.held.push_front(held);
            self.schedule(id, now);
        }
    }

    /// Whether records wait for their lane, so that its partition is paused.
    pub(super) fn is_held(&self, id: LaneId) -> bool {
        self.lanes.get(&id).is_some_and(|lane| !lane.held.is_empty())
    }

    /// Whether a record that waits for its lane may be run now.
    pub(super) fn is_any_due(&self, now: Instant) -> bool {
        self.next_due.is_some_and(|next_due| next_due <= now)
    }

    /// The lanes whose first record may be run now. Whoever asks sees to them all.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<LaneId> {
        let held = || self.lanes.iter().filter(|(_, lane)| !lane.held.is_empty());
        let resting = held().filter(|(_, lane)| !lane.is_due(now));
        self.next_due = resting.filter_map(|(_, lane)| lane.rests_until).min();
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
    pub(super) fn has_quarantined(&self) -> bool {
        self.quarantined > 0
    }

    /// The lane whose first request is to be run alone next. None while anything else is under way, or it has not come.
    pub(super) fn next_isolated_run(&mut self, now: Instant) -> Option<LaneId> {
        if self.quarantined == 0 || self.lanes.values().any(|lane| lane.window.in_flight() > 0) {
            return None;
        }
        let mut quarantined = self.lanes.iter_mut().filter(|(_, lane)| lane.crashes.is_quarantined());
        if let Some((id, lane)) = quarantined.find(|(_, lane)| !lane.held.is_empty()) {
            lane.crashes.record_came();
            return Some(*id);
        }
        for lane in self.lanes.values_mut().filter(|lane| lane.crashes.is_quarantined()) {
            let first = lane.window.first_unfinished().unwrap_or_default();
            self.quarantined -= usize::from(lane.crashes.release_if_quiet(first, now));
        }
        None
    }

    /// One more owner runs a lane's first request alone; what to commit before that. With it goes what is due of the other
    /// lanes, where `commits` are ours and not a transaction's: if this is the end of us, who has been acquitted there must
    /// not be tried for it again.
    pub(super) fn begin_isolated_run(
        &mut self,
        id: LaneId,
        commits: bool,
    ) -> Option<(IsolatedRun, Vec<(LaneId, Position)>)> {
        let lane = self.lanes.get_mut(&id)?;
        let run = lane.crashes.begin_isolated_run(lane.window.position()?.offset);
        let position = lane.position(false)?;
        let mut due = if commits { self.take_commits(None, false) } else { Vec::new() };
        due.retain(|(other, _)| *other != id);
        due.push((id, position));
        Some((run, due))
    }

    /// It was not committed, so it has not begun.
    pub(super) fn revoke_isolated_run(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.crashes.revoke_isolated_run();
        }
    }

    /// A request has ended. Returns false when its lane is not ours any more.
    pub(super) fn complete(&mut self, completion: &Completion) -> bool {
        let Completion { request, finished, .. } = *completion;
        if let Some(window) = self.orphans.get_mut(&request.epoch) {
            // Its record is gone, so nobody else will ever run it.
            window.finish(request.offset);
            if window.in_flight() == 0 {
                self.orphans.remove(&request.epoch);
            }
            return finished;
        }
        let Some(lane) = self.lane_of(request) else { return false };
        let finished = finished && lane.window.finish(request.offset);
        if finished {
            if let Some(until) = lane.staged.take() {
                lane.crashes.noted(until);
            }
            self.release_if_cleared(request.lane);
        }
        finished
    }

    /// One of a lane's requests that run alone has ended, and nobody by it: it was the last, or the next has its turn.
    pub(super) fn release_if_cleared(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if let Some(first) = lane.window.first_unfinished() {
            self.quarantined -= usize::from(lane.crashes.release_if_cleared(first));
        }
    }

    /// A request's end is in a transaction from now on. False when its lane is not ours any more, or is being given back.
    pub(super) fn stage(&mut self, request: RequestPosition) -> bool {
        if self.lane_of(request).is_some_and(|lane| lane.is_closing) {
            return false;
        }
        self.window(request).is_some_and(|window| window.stage(request.offset))
    }

    /// What a transaction says of a lane, which remembers it.
    pub(super) fn take_staged(&mut self, id: LaneId) -> Option<(LaneId, Position)> {
        let lane = self.lanes.get_mut(&id)?;
        let position = lane.position(false)?;
        lane.staged = Some(position.until());
        Some((id, position))
    }

    /// The transaction that a request's end lay in came to nothing.
    pub(super) fn unstage(&mut self, request: RequestPosition) {
        if let Some(window) = self.window(request) {
            window.unstage(request.offset);
        }
        if let Some(lane) = self.lane_of(request) {
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
            lane.crashes.noted(until);
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
