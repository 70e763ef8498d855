//! How careful a lane is whose owners have ended one after another, and which of its requests are suspected of it.
//!
//! Whoever has a partition says in its commits how far beyond the first unfinished request it may have begun others (the
//! [reach](Position::reach)), and that it is the partition's owner (the [lives](Position::lives)), until it gives the
//! partition back. An owner that finds the note of another has it from one that has ended, perhaps by one of the requests
//! within that reach that are not finished. It runs them with a shorter reach of its own, so that fewer are left to be
//! suspected if it ends as well; after three ends they are run alone, one after the other, and what has been the end of two
//! that ran it alone is not run again. A request that is before all these when an owner ends is suspected only as long as
//! it is not finished, however many others stand before it.

use super::position::{MAX_REACH, Position};

/// So many owners may end one after the other with the same requests under way; after that these are run alone.
const LIVES: u8 = 3;
/// So many of those that ran a request alone may end by it; after that it is a dead letter.
const TRIALS: u8 = 2;
/// How far the first, the second and the third owner reach.
const REACH: [u16; LIVES as usize] = [MAX_REACH, 256, 16];

/// How a request that is suspected is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trial {
    /// Alone.
    Alone,
    /// Not at all: it was run alone, and that was the end of the process each time.
    Never,
}

/// What a lane knows of its owners, of which we are the last. Pure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caution {
    /// How many there were, and we are one, that have had under way the requests before `suspected`.
    lives: u8,
    suspected: i64,
    /// Which request was tried, and how often.
    tried: i64,
    trials: u8,
    /// Requests from here on are not begun, since no commit says that they may be.
    noted: i64,
}

impl Caution {
    /// That of the next owner after the one who has left this.
    pub(super) fn after(left: &Position) -> Self {
        Self {
            lives: left.lives.saturating_add(1),
            suspected: left.offset.saturating_add(i64::from(left.reach)),
            tried: left.offset,
            trials: left.trials,
            noted: left.offset,
        }
    }

    /// Adds to a position what a commit says of its owners. One that is `closing` gives the partition back: nobody has
    /// ended by what is under way, nor is it acquitted.
    pub(super) fn note(&self, position: Position, closing: bool) -> Position {
        let offset = position.offset;
        let lives = self.lives_at(offset);
        let trials = if offset == self.tried { self.trials } else { 0 };
        let ours = u8::from(closing);
        let reach = match REACH.get(usize::from(lives.saturating_sub(1))) {
            Some(reach) => *reach,
            None => u16::try_from(self.suspected - offset).unwrap_or(MAX_REACH),
        };
        let trials = if lives > LIVES { trials.saturating_sub(ours) } else { 0 };
        Position { lives: lives.saturating_sub(ours), trials, reach, ..position }
    }

    /// The broker has a commit that reaches until here.
    pub(super) fn noted(&mut self, until: i64) {
        self.noted = self.noted.max(until);
    }

    /// Whether a request may be begun: if we end by it, the next owner has to know that it may have been.
    pub(super) fn may_begin(&self, offset: i64) -> bool {
        offset < self.noted
    }

    /// Whether the first unfinished request has to be run alone.
    pub(super) fn is_suspect(&self, offset: i64) -> bool {
        self.lives_at(offset) > LIVES
    }

    /// One more owner runs the first unfinished request, alone. How, and what the broker has to know before.
    pub(super) fn try_first(&mut self, offset: i64) -> Trial {
        if self.tried != offset {
            (self.tried, self.trials) = (offset, 0);
        }
        let trial = if self.trials < TRIALS { Trial::Alone } else { Trial::Never };
        self.trials = self.trials.saturating_add(1);
        trial
    }

    /// It was not noted, so it has not begun.
    pub(super) fn take_back(&mut self) {
        self.trials = self.trials.saturating_sub(1);
    }

    /// Nobody is suspected any more from this offset on.
    pub(super) fn acquit(&mut self, offset: i64) {
        self.suspected = self.suspected.min(offset);
    }

    /// The owners that may have ended by the requests from this one on. Whoever stands behind the suspects was perhaps
    /// under way at the first of the ends.
    fn lives_at(&self, offset: i64) -> u8 {
        match offset - self.suspected {
            ..0 => self.lives,
            behind if self.lives > 2 && behind < i64::from(MAX_REACH) => 2,
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
    fn each_owner_that_ends_leaves_fewer_to_be_suspected() {
        let first = Caution::after(&at(100));
        let left = first.note(at(100), false);
        assert_eq!((left.lives, left.reach), (1, MAX_REACH));
        let second = Caution::after(&left).note(at(100), false);
        assert_eq!((second.lives, second.reach), (2, 256));
        let third = Caution::after(&second).note(at(120), false);
        assert_eq!((third.lives, third.reach), (3, 16));
        let fourth = Caution::after(&third);
        assert!(fourth.is_suspect(120) && fourth.is_suspect(135) && !fourth.is_suspect(136));
        assert_eq!(fourth.note(at(130), false).reach, 6, "the suspects stay the same");
        assert_eq!((fourth.note(at(136), false).lives, fourth.note(at(136), false).reach), (2, 256));
    }

    #[test]
    fn what_is_finished_is_not_suspected_any_more() {
        let left = Position { lives: 2, reach: 256, ..at(100) };
        let third = Caution::after(&left);
        assert_eq!(third.note(at(355), false).lives, 3);
        assert_eq!(third.note(at(356), false).lives, 2);
        assert_eq!(Caution::after(&Position { lives: 1, reach: 16, ..at(100) }).note(at(116), false).lives, 1);
    }

    #[test]
    fn what_is_given_back_counts_against_nobody_and_acquits_nobody() {
        let caution = Caution::after(&at(100));
        assert_eq!(caution.note(at(100), true).lives, 0);
        let left = Position { lives: 3, reach: 16, trials: 1, ..at(100) };
        let mut caution = Caution::after(&left);
        assert_eq!(caution.try_first(100), Trial::Alone);
        let back = caution.note(at(100), true);
        assert_eq!((back.lives, back.trials, back.reach), (3, 1, 16));
    }

    #[test]
    fn nothing_is_begun_before_a_commit_says_so() {
        let left = Position { lives: 2, reach: 256, ..at(100) };
        let mut caution = Caution::after(&left);
        assert!(!caution.may_begin(100));
        let position = caution.note(at(100), false);
        caution.noted(position.until());
        assert!(caution.may_begin(115) && !caution.may_begin(116));
    }

    proptest! {
        /// Owners that all end by a deadly request as soon as they have begun it, wherever it stands and whatever of the
        /// others they have finished before; and those others are finished by somebody.
        #[test]
        fn each_deadly_request_is_found_out_and_no_other(
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
                let mut caution = Caution::after(&left);
                let head = |done: &BTreeSet<i64>| (0..=count).find(|offset| !done.contains(offset)).unwrap_or(count);
                left = caution.note(at(head(&done)), false);
                caution.noted(left.until());
                let mut begun = BTreeSet::new();
                while head(&done) < count {
                    let first = head(&done);
                    if caution.is_suspect(first) {
                        let trial = caution.try_first(first);
                        left = caution.note(at(first), false);
                        if trial == Trial::Never {
                            buried.insert(first);
                        } else if deadly.contains(&first) {
                            ends += 1;
                            continue 'owners;
                        }
                        done.insert(first);
                    } else {
                        let next = (first..count).find(|offset| !done.contains(offset) && !begun.contains(offset));
                        let next = next.filter(|next| caution.may_begin(*next));
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
                    left = caution.note(at(head(&done)), false);
                    caution.noted(left.until());
                }
                break;
            }
            prop_assert_eq!(buried, deadly);
        }
    }
}
