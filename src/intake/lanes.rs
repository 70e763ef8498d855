//! Lanes: the partitions that this process owns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::lane::{HeldRecord, Lane};
use super::poison_pill::{CrashHistory, IsolatedRun};
use super::position::Position;
use super::ticket::{Assignment, Completion, LaneId, RequestPosition};
use super::whereabouts::Whereabouts;
use super::window::Window;

/// All lanes, by partition.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<LaneId, Lane>,
    epoch: u64,
    /// Requests under way of topics that are gone, by assignment: they are answered, and no offset follows from that.
    orphans: BTreeMap<u64, Window>,
    /// Time at which the next held record may run, or has to be looked at.
    next_due: Option<Instant>,
    quarantined: usize,
}

impl Lanes {
    /// Adds a partition that has become ours.
    pub(super) fn assign(&mut self, id: LaneId) {
        self.remove(id);
        self.epoch += 1;
        let (revoked, whereabouts) = (AtomicBool::new(false), Whereabouts::default());
        let assignment = Arc::new(Assignment { lane: id, epoch: self.epoch, revoked, whereabouts });
        self.lanes.insert(id, Lane::new(assignment));
    }

    /// Opens a lane: the last owner's commit is known, and it is noted that we are the owner. Requests run from now on,
    /// of which `first` came first.
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

    /// Restarts a lane whose topic was deleted and made again, or whose offsets have gone back: nothing that was known
    /// of it holds. The requests under way end by themselves.
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

    /// Lists the lanes whose commits have not been checked. A commit may be of an earlier topic of the same name, and
    /// say that all requests are answered which wait here.
    pub(super) fn unchecked(&self) -> Vec<LaneId> {
        self.lanes.iter().filter(|(_, lane)| !lane.is_checked).map(|(id, _)| *id).collect()
    }

    /// Notes that a lane's commit is of its topic.
    pub(super) fn checked(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.is_checked = true;
        }
    }

    /// Removes a partition that is no longer ours; results that come late are dropped.
    pub(super) fn remove(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.remove(&id) {
            lane.assignment.revoked.store(true, Ordering::Release);
            self.quarantined -= usize::from(lane.crashes.is_quarantined());
        }
    }

    pub(super) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(&id)
    }

    /// Returns the lane that a request is still of: the one of the assignment by which it was read.
    pub(super) fn lane_of(&mut self, request: RequestPosition) -> Option<&mut Lane> {
        self.lanes.get_mut(&request.lane).filter(|lane| lane.assignment.epoch == request.epoch)
    }

    /// Returns the window that a request is in: that of its lane, or one whose topic is gone.
    pub(super) fn window(&mut self, request: RequestPosition) -> Option<&mut Window> {
        if self.orphans.contains_key(&request.epoch) {
            return self.orphans.get_mut(&request.epoch);
        }
        self.lane_of(request).map(|lane| &mut lane.window)
    }

    /// Returns whether a request's topic is gone, so that nothing is committed of it.
    pub(super) fn is_orphan(&self, request: RequestPosition) -> bool {
        self.orphans.contains_key(&request.epoch)
    }

    /// Counts the requests under way whose topics are gone.
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

    /// Returns the lane, if this request of it may run now: not before the lane is open, not beside a request that runs
    /// alone, and not before a commit allows its offset.
    pub(super) fn runnable(&mut self, id: LaneId, offset: i64) -> Option<&mut Lane> {
        let alone = self.quarantined > 0;
        let runs = |lane: &&mut Lane| lane.is_open && !lane.is_closing && lane.crashes.may_begin(offset);
        self.lanes.get_mut(&id).filter(|_| !alone).filter(runs)
    }

    /// Returns the lane, if its first request runs alone.
    pub(super) fn quarantined(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(&id).filter(|lane| lane.crashes.is_quarantined())
    }

    /// Holds a record that waits for its lane, behind those that wait there already.
    pub(super) fn hold(&mut self, id: LaneId, held: HeldRecord, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.held.push_back(held);
            if lane.held.len() == 1 {
                self.schedule(id, now);
            }
        }
    }

    /// Sets the time at which the first held record of a lane may run.
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

    /// Puts a record back that has to wait on, before all others.
    pub(super) fn put_back(&mut self, id: LaneId, held: HeldRecord, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.held.push_front(held);
            self.schedule(id, now);
        }
    }

    /// Returns whether records wait for their lane, so that its partition is paused.
    pub(super) fn is_held(&self, id: LaneId) -> bool {
        self.lanes.get(&id).is_some_and(|lane| !lane.held.is_empty())
    }

    /// Returns whether a record that waits for its lane may run now.
    pub(super) fn is_any_due(&self, now: Instant) -> bool {
        self.next_due.is_some_and(|next_due| next_due <= now)
    }

    /// Lists the lanes whose first record may run now. The caller has to handle them all.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<LaneId> {
        let held = || self.lanes.iter().filter(|(_, lane)| !lane.held.is_empty());
        let resting = held().filter(|(_, lane)| !lane.is_due(now));
        self.next_due = resting.filter_map(|(_, lane)| lane.rests_until).min();
        held().filter(|(_, lane)| lane.is_due(now)).map(|(id, _)| *id).collect()
    }

    /// Lists the lanes that are not open yet, with the offset of the record that waits there and may run now. Until it
    /// may, no owner has begun it, and none may be taken to have ended by it.
    pub(super) fn unopened(&self, now: Instant) -> Vec<(LaneId, i64)> {
        let waiting = |(id, lane): (&LaneId, &Lane)| {
            let held = lane.held.front().filter(|_| !lane.is_open && lane.is_due(now))?;
            Some((*id, held.offset))
        };
        self.lanes.iter().filter_map(waiting).collect()
    }

    /// Returns whether any lane is quarantined.
    pub(super) fn has_quarantined(&self) -> bool {
        self.quarantined > 0
    }

    /// Chooses the lane whose first request runs alone next. None while any request is under way, or that one has not
    /// come.
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

    /// Counts one more isolated run of a lane's first request. Returns the verdict, and the positions to commit before
    /// the run. Those of the other lanes that are due go with it, where `commits` are ours and not a transaction's: if
    /// the run ends this process, requests that have been cleared there must not run alone once more.
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

    /// Takes back an isolated run that was not committed, and so has not begun.
    pub(super) fn revoke_isolated_run(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.crashes.revoke_isolated_run();
        }
    }

    /// Takes in the end of a request. Returns false when its lane is not ours any more.
    pub(super) fn complete(&mut self, completion: &Completion) -> bool {
        let Completion { request, finished, .. } = *completion;
        if let Some(window) = self.orphans.get_mut(&request.epoch) {
            // The record is gone, so no other owner will ever run it.
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

    /// Ends a lane's quarantine once its suspects have ended: an isolated run was survived, and another suspect may
    /// follow.
    pub(super) fn release_if_cleared(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if let Some(first) = lane.window.first_unfinished() {
            self.quarantined -= usize::from(lane.crashes.release_if_cleared(first));
        }
    }

    /// Stages the end of a request in a transaction. False when its lane is not ours any more, or is being given back.
    pub(super) fn stage(&mut self, request: RequestPosition) -> bool {
        if self.lane_of(request).is_some_and(|lane| lane.is_closing) {
            return false;
        }
        self.window(request).is_some_and(|window| window.stage(request.offset))
    }

    /// Returns the position of a lane for a transaction, and remembers how far it reaches.
    pub(super) fn take_staged(&mut self, id: LaneId) -> Option<(LaneId, Position)> {
        let lane = self.lanes.get_mut(&id)?;
        let position = lane.position(false)?;
        lane.staged = Some(position.until());
        Some((id, position))
    }

    /// Takes back a request's end whose transaction was aborted.
    pub(super) fn unstage(&mut self, request: RequestPosition) {
        if let Some(window) = self.window(request) {
            window.unstage(request.offset);
        }
        if let Some(lane) = self.lane_of(request) {
            lane.staged = None;
        }
    }

    /// Takes the commits that are due. A lane that is `closing` is given back by its commit.
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

    /// Takes in whether the broker has the last commits of these lanes. Those that failed are due again.
    pub(super) fn committed(&mut self, ids: impl IntoIterator<Item = LaneId>, succeeded: bool) {
        for id in ids {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            match lane.reaches.take() {
                Some(until) if succeeded => lane.crashes.noted(until),
                _ if succeeded => {}
                _ => lane.committed = None,
            }
        }
    }

    /// Begins to give partitions back: requests that end from now on are left to the next owner, unless their ends are
    /// in a transaction already.
    pub(super) fn begin_closing(&mut self, ids: &[LaneId]) {
        for id in ids {
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.is_closing = true;
                lane.assignment.revoked.store(true, Ordering::Release);
            }
        }
    }

    /// Returns whether an undecided transaction has ends of a partition.
    pub(super) fn is_staged(&self, id: LaneId) -> bool {
        self.lanes.get(&id).is_some_and(|lane| lane.window.is_staged())
    }

    /// Counts the requests of these partitions that are under way.
    pub(super) fn in_flight(&self, ids: &[LaneId]) -> usize {
        ids.iter().filter_map(|id| self.lanes.get(id)).map(|lane| lane.window.in_flight()).sum()
    }

    /// Returns since when the oldest request of all has been under way.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let windows = self.lanes.values().map(|lane| &lane.window).chain(self.orphans.values());
        windows.filter_map(Window::oldest).min()
    }
}

#[cfg(test)]
mod tests;
