//! The partitions this process owns, each with the window of its requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::ticket::{Assignment, Completion};
use super::window::Window;

/// The widest a window may grow before its partition is held back: as many offsets as a commit's metadata can describe.
pub(super) const MAX_WINDOW: usize = 16_384;

/// One partition's requests.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) assignment: Arc<Assignment>,
    pub(super) window: Window,
    /// The offset that was last handed to the broker; `None` when the last attempt failed or there was none.
    committed: Option<i64>,
    /// Whether this lane alone is paused, because its window is too wide.
    pub(super) held: bool,
}

/// All lanes, by partition.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: HashMap<i32, Lane>,
    epoch: u64,
}

impl Lanes {
    /// A partition has become ours.
    pub(super) fn open(&mut self, partition: i32) {
        self.close(partition);
        self.epoch += 1;
        let assignment = Arc::new(Assignment { partition, epoch: self.epoch, revoked: AtomicBool::new(false) });
        let lane = Lane { assignment, window: Window::default(), committed: None, held: false };
        self.lanes.insert(partition, lane);
    }

    /// A partition is no longer ours; results that come late are dropped.
    pub(super) fn close(&mut self, partition: i32) {
        if let Some(lane) = self.lanes.remove(&partition) {
            lane.assignment.revoked.store(true, Ordering::Release);
        }
    }

    pub(super) fn get_mut(&mut self, partition: i32) -> Option<&mut Lane> {
        self.lanes.get_mut(&partition)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, &Lane)> {
        self.lanes.iter().map(|(partition, lane)| (*partition, lane))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (i32, &mut Lane)> {
        self.lanes.iter_mut().map(|(partition, lane)| (*partition, lane))
    }

    pub(super) fn partitions(&self) -> Vec<i32> {
        self.lanes.keys().copied().collect()
    }

    /// A request has ended. Returns false when its lane is not ours any more.
    pub(super) fn complete(&mut self, completion: &Completion) -> bool {
        match self.lanes.get_mut(&completion.partition) {
            Some(lane) if lane.assignment.epoch == completion.epoch => {
                completion.finished && lane.window.finish(completion.offset)
            }
            Some(_) | None => false,
        }
    }

    /// The commits that are due, and remembers that they were made.
    pub(super) fn take_commits(&mut self, partitions: Option<&[i32]>) -> Vec<(i32, i64)> {
        let chosen = |partition: &i32| partitions.is_none_or(|partitions| partitions.contains(partition));
        let mut due = Vec::new();
        for (partition, lane) in &mut self.lanes {
            let committable = lane.window.committable();
            if chosen(partition) && committable != lane.committed {
                lane.committed = committable;
                due.extend(committable.map(|offset| (*partition, offset)));
            }
        }
        due
    }

    /// A commit did not succeed, so it is due again.
    pub(super) fn commit_failed(&mut self, partition: i32) {
        if let Some(lane) = self.lanes.get_mut(&partition) {
            lane.committed = None;
        }
    }

    /// How many requests of these partitions are under way.
    pub(super) fn in_flight(&self, partitions: &[i32]) -> usize {
        partitions.iter().filter_map(|partition| self.lanes.get(partition)).map(|lane| lane.window.in_flight()).sum()
    }

    /// Since when the oldest request of all has been under way.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.lanes.values().filter_map(|lane| lane.window.oldest()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(lanes: &Lanes, partition: i32, offset: i64) -> Completion {
        let epoch = lanes.lanes[&partition].assignment.epoch;
        Completion { partition, epoch, offset, bytes: 0, finished: true }
    }

    #[test]
    fn late_results_of_a_lost_lane_are_ignored() {
        let mut lanes = Lanes::default();
        lanes.open(0);
        lanes.get_mut(0).unwrap().window.begin(5, Instant::now());
        let late = completion(&lanes, 0, 5);
        lanes.close(0);
        assert!(!lanes.complete(&late));
        lanes.open(0);
        lanes.get_mut(0).unwrap().window.begin(5, Instant::now());
        assert!(!lanes.complete(&late), "the offset is the same, the assignment is not");
        assert_eq!(lanes.in_flight(&[0]), 1);
    }

    #[test]
    fn commits_what_moved_and_repeats_what_failed() {
        let mut lanes = Lanes::default();
        lanes.open(0);
        lanes.open(1);
        assert_eq!(lanes.take_commits(None), [], "an idle partition is never committed");
        lanes.get_mut(0).unwrap().window.begin(5, Instant::now());
        assert!(lanes.complete(&completion(&lanes, 0, 5)));
        assert_eq!(lanes.take_commits(None), [(0, 6)]);
        assert_eq!(lanes.take_commits(None), []);
        lanes.commit_failed(0);
        assert_eq!(lanes.take_commits(Some(&[1])), []);
        assert_eq!(lanes.take_commits(Some(&[0])), [(0, 6)]);
    }

    #[test]
    fn an_abandoned_request_holds_the_commit() {
        let mut lanes = Lanes::default();
        lanes.open(0);
        lanes.get_mut(0).unwrap().window.begin(5, Instant::now());
        let abandoned = Completion { finished: false, ..completion(&lanes, 0, 5) };
        assert!(!lanes.complete(&abandoned));
        assert_eq!(lanes.get_mut(0).unwrap().window.committable(), Some(5));
    }
}
