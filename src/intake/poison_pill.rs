//! Poison pills: requests that end every process that runs them, found from the commits of the owners they ended.
//!
//! The owner of a partition says in its commits how far beyond the first unfinished request it may have begun others
//! (the [reach](Position::reach)), and that it owns the partition (the [crash count](Position::crash_count)), until it
//! gives the partition back. An owner that finds such a note has it from a process that has ended, perhaps by one of
//! the unfinished requests within that reach. The new owner runs these with a shorter reach of its own, so that fewer
//! are left to be suspected if it ends as well. After three ends they are in quarantine: they run alone, one after the
//! other, and a request that has ended two processes while it ran alone is not run again. A request before all these is
//! suspected only as long as it is unfinished when an owner ends, however many others stand before it.

use std::time::{Duration, Instant};

use super::position::{MAX_REACH, Position};

/// Owners that may end one after the other with the same requests under way; after that these requests run alone.
const MAX_SHARED_CRASHES: u8 = 3;
/// Processes that a request may end while it runs alone; after that it becomes a dead letter.
const MAX_ISOLATED_RUNS: u8 = 2;
/// Offsets that the first, the second and the third owner may begin beyond the first unfinished one.
const REACH: [u16; MAX_SHARED_CRASHES as usize] = [MAX_REACH, 256, 16];
/// Time after which a quarantined lane without records is released: its suspects do not exist.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// Verdict on the next run of a suspected request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IsolatedRun {
    /// The request runs, and nothing else beside it.
    Alone,
    /// The request does not run: each process that ran it alone has ended by it.
    Never,
}

/// History of a lane's owners that have ended, of which this process is the latest; decides what may run. Pure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CrashHistory {
    /// Owners, this process included, that have had the requests before `suspected` under way.
    crash_count: u8,
    suspected: i64,
    /// The request that last ran alone, and how often it has.
    isolated: i64,
    isolated_runs: u8,
    /// First offset that no commit allows to begin yet.
    noted: i64,
    /// True if the lane's first requests run alone, since too many owners have ended with them under way.
    is_quarantined: bool,
    /// Time since which no record of the quarantined lane has come.
    quiet_since: Option<Instant>,
}

impl CrashHistory {
    /// Continues the history that the last owner has left in its commit.
    pub(super) fn after(left: &Position) -> Self {
        Self {
            crash_count: left.crash_count.saturating_add(1),
            suspected: left.offset.saturating_add(i64::from(left.reach)),
            isolated: left.offset,
            isolated_runs: left.isolated_runs,
            noted: left.offset,
            is_quarantined: false,
            quiet_since: None,
        }
    }

    /// Adds the history to a position that is about to be committed. A lane that is `closing` gives the partition back:
    /// the requests under way have ended nobody, and are not cleared either.
    pub(super) fn note(&self, position: Position, closing: bool) -> Position {
        let offset = position.offset;
        let crash_count = self.crash_count_at(offset);
        let isolated_runs = if offset == self.isolated { self.isolated_runs } else { 0 };
        let ours = u8::from(closing);
        let reach = match REACH.get(usize::from(crash_count.saturating_sub(1))) {
            Some(reach) => *reach,
            None => u16::try_from(self.suspected - offset).unwrap_or(MAX_REACH),
        };
        let isolated_runs = if crash_count > MAX_SHARED_CRASHES { isolated_runs.saturating_sub(ours) } else { 0 };
        Position { crash_count: crash_count.saturating_sub(ours), isolated_runs, reach, ..position }
    }

    /// Allows requests up to this offset to begin: the broker has a commit that reaches so far.
    pub(super) fn noted(&mut self, until: i64) {
        self.noted = self.noted.max(until);
    }

    /// Returns whether a request may begin: if it ends this process, the next owner has to know that it may have begun.
    pub(super) fn may_begin(&self, offset: i64) -> bool {
        offset < self.noted
    }

    /// Returns whether the first unfinished request has to run alone.
    pub(super) fn is_suspect(&self, offset: i64) -> bool {
        self.crash_count_at(offset) > MAX_SHARED_CRASHES
    }

    /// Quarantines the lane if its first unfinished request has to run alone. Returns whether it has to.
    pub(super) fn quarantine(&mut self, first: i64) -> bool {
        self.is_quarantined = self.is_suspect(first);
        self.is_quarantined
    }

    /// Returns whether the lane's first requests run alone.
    pub(super) fn is_quarantined(&self) -> bool {
        self.is_quarantined
    }

    /// Ends the quarantine once the first unfinished request is no suspect. Returns whether that is so.
    pub(super) fn release_if_cleared(&mut self, first: i64) -> bool {
        let is_cleared = self.is_quarantined && !self.is_suspect(first);
        self.is_quarantined &= !is_cleared;
        is_cleared
    }

    /// Ends the quarantine of a lane that has been without records for long enough: a request that an ended owner may
    /// have begun need not exist. Returns whether it has been.
    pub(super) fn release_if_quiet(&mut self, first: i64, now: Instant) -> bool {
        let is_quiet = now.duration_since(*self.quiet_since.get_or_insert(now)) >= QUIET;
        if is_quiet {
            self.clear(first);
            self.is_quarantined = false;
        }
        is_quiet
    }

    /// Forgets how long the lane has been without records: one has come.
    pub(super) fn record_came(&mut self) {
        self.quiet_since = None;
    }

    /// Counts one more isolated run of the first unfinished request. Returns whether it may run; the broker has to know
    /// of the count before it does.
    pub(super) fn begin_isolated_run(&mut self, offset: i64) -> IsolatedRun {
        if self.isolated != offset {
            (self.isolated, self.isolated_runs) = (offset, 0);
        }
        let run = if self.isolated_runs < MAX_ISOLATED_RUNS { IsolatedRun::Alone } else { IsolatedRun::Never };
        self.isolated_runs = self.isolated_runs.saturating_add(1);
        run
    }

    /// Takes back an isolated run that could not be committed, and so has not begun.
    pub(super) fn revoke_isolated_run(&mut self) {
        self.isolated_runs = self.isolated_runs.saturating_sub(1);
    }

    /// Suspects no request from this offset on.
    fn clear(&mut self, offset: i64) {
        self.suspected = self.suspected.min(offset);
    }

    /// Counts the owners that may have ended by the requests from this one on. A request behind the suspects was
    /// perhaps under way at the first of the ends.
    fn crash_count_at(&self, offset: i64) -> u8 {
        match offset - self.suspected {
            ..0 => self.crash_count,
            behind if self.crash_count > 2 && behind < i64::from(MAX_REACH) => 2,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(offset: i64) -> Position {
        Position { offset, ..Position::default() }
    }

    #[test]
    fn crash_history_suspects_fewer_requests_after_each_crash() {
        let first = CrashHistory::after(&at(100));
        let left = first.note(at(100), false);
        assert_eq!((left.crash_count, left.reach), (1, MAX_REACH));
        let second = CrashHistory::after(&left).note(at(100), false);
        assert_eq!((second.crash_count, second.reach), (2, 256));
        let third = CrashHistory::after(&second).note(at(120), false);
        assert_eq!((third.crash_count, third.reach), (3, 16));
        let fourth = CrashHistory::after(&third);
        assert!(fourth.is_suspect(120) && fourth.is_suspect(135) && !fourth.is_suspect(136));
        assert_eq!(fourth.note(at(130), false).reach, 6, "the suspects stay the same");
        assert_eq!((fourth.note(at(136), false).crash_count, fourth.note(at(136), false).reach), (2, 256));
    }

    #[test]
    fn crash_history_forgets_suspects_when_they_finish() {
        let left = Position { crash_count: 2, reach: 256, ..at(100) };
        let third = CrashHistory::after(&left);
        assert_eq!(third.note(at(355), false).crash_count, 3);
        assert_eq!(third.note(at(356), false).crash_count, 2);
        assert_eq!(
            CrashHistory::after(&Position { crash_count: 1, reach: 16, ..at(100) }).note(at(116), false).crash_count,
            1
        );
    }

    #[test]
    fn crash_history_keeps_counts_when_partition_is_given_back() {
        let crashes = CrashHistory::after(&at(100));
        assert_eq!(crashes.note(at(100), true).crash_count, 0);
        let left = Position { crash_count: 3, reach: 16, isolated_runs: 1, ..at(100) };
        let mut crashes = CrashHistory::after(&left);
        assert_eq!(crashes.begin_isolated_run(100), IsolatedRun::Alone);
        let back = crashes.note(at(100), true);
        assert_eq!((back.crash_count, back.isolated_runs, back.reach), (3, 1, 16));
    }

    #[test]
    fn request_waits_until_commit_allows_its_offset() {
        let left = Position { crash_count: 2, reach: 256, ..at(100) };
        let mut crashes = CrashHistory::after(&left);
        assert!(!crashes.may_begin(100));
        let position = crashes.note(at(100), false);
        crashes.noted(position.until());
        assert!(crashes.may_begin(115) && !crashes.may_begin(116));
    }

    proptest! {
        /// Simulates owners that all end by a deadly request some time after they have begun it, wherever it stands and
        /// whatever of the others they have finished before. Some owner finishes each of those others.
        #[test]
        fn crash_history_finds_each_poison_pill_and_no_other(
            count in 1i64..600,
            deadly in prop::collection::btree_set(0i64..600, 1..4),
            luck in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let deadly: BTreeSet<i64> = deadly.into_iter().map(|offset| offset % count).collect();
            let mut luck = luck.into_iter().cycle();
            let mut done = BTreeSet::new();
            let mut buried = BTreeSet::new();
            let mut ends = 0;
            let mut left = at(0);
            'owners: loop {
                prop_assert!(ends <= 5 * deadly.len(), "{ends} ends for {deadly:?}");
                let mut crashes = CrashHistory::after(&left);
                let head = |done: &BTreeSet<i64>| (0..=count).find(|offset| !done.contains(offset)).unwrap_or(count);
                left = crashes.note(at(head(&done)), false);
                crashes.noted(left.until());
                let mut begun = BTreeSet::new();
                while head(&done) < count {
                    let first = head(&done);
                    if crashes.is_suspect(first) {
                        let run = crashes.begin_isolated_run(first);
                        left = crashes.note(at(first), false);
                        if run == IsolatedRun::Never {
                            buried.insert(first);
                        } else if deadly.contains(&first) {
                            ends += 1;
                            continue 'owners;
                        }
                        done.insert(first);
                    } else {
                        let next = (first..count).find(|offset| !done.contains(offset) && !begun.contains(offset));
                        let next = next.filter(|next| crashes.may_begin(*next));
                        match next {
                            Some(next) => {
                                begun.insert(next);
                                // A while may pass until the process ends by it, or it may end at once.
                                if deadly.contains(&next) && luck.next().unwrap_or(0) % 2 == 0 {
                                    ends += 1;
                                    continue 'owners;
                                }
                            }
                            None if begun.iter().all(|offset| deadly.contains(offset)) => {
                                ends += 1;
                                continue 'owners;
                            }
                            None => {}
                        }
                        let innocent: Vec<i64> = begun.iter().copied().filter(|it| !deadly.contains(it)).collect();
                        if !innocent.is_empty() && (next.is_none() || luck.next().unwrap_or(0) % 3 == 0) {
                            let ended = innocent[usize::from(luck.next().unwrap_or(0)) % innocent.len()];
                            begun.remove(&ended);
                            done.insert(ended);
                        }
                    }
                    left = crashes.note(at(head(&done)), false);
                    crashes.noted(left.until());
                }
                break;
            }
            prop_assert_eq!(buried, deadly);
        }
    }
}
