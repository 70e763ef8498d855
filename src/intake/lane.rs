//! Lane: a partition that this process owns, with the window of its requests and the records that wait for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::RefusalReason;
use super::poison_pill::CrashHistory;
use super::position::Position;
use super::ticket::Assignment;
use super::window::Window;
use crate::broker::TopicId;
use crate::message::Request;

/// Requests of one partition.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) assignment: Arc<Assignment>,
    pub(super) window: Window,
    /// True if the last owner's commit is known, and it is noted that we go on from there. Nothing runs before.
    pub(super) is_open: bool,
    /// True if the commit has been found to be of this topic; see [`Lanes::unchecked`](super::lanes::Lanes::unchecked).
    pub(super) is_checked: bool,
    /// True if no commit holds, since the topic was made anew, or its offsets have gone back.
    pub(super) was_restarted: bool,
    /// Topic that the lane's offsets are of, as far as that is known.
    pub(super) topic: Option<TopicId>,
    pub(super) crashes: CrashHistory,
    /// Offset up to which the last commit allows requests to begin.
    pub(super) reaches: Option<i64>,
    /// Offset up to which the transaction under way will allow requests to begin.
    pub(super) staged: Option<i64>,
    /// True if the partition is being given back: requests that end from now on are left to its next owner.
    pub(super) is_closing: bool,
    /// Changes of the window when it was last handed to the broker; `None` when that failed or never happened.
    pub(super) committed: Option<u64>,
    /// Records that were read and may not run yet, in their order: the first, for which the partition was paused, and
    /// those that were on their way to us.
    pub(super) held: VecDeque<HeldRecord>,
    /// Time before which the first of them may not run.
    pub(super) rests_until: Option<Instant>,
}

/// Record that waits for its lane.
#[derive(Debug)]
pub(super) struct HeldRecord {
    pub(super) request: Request,
    /// Offset of the record itself: the request may be from elsewhere.
    pub(super) offset: i64,
    /// Time at which the record may run, if not at once.
    pub(super) due: Option<Due>,
    /// Reason why the request is not to be served, if that is known already.
    pub(super) refusal: Option<RefusalReason>,
    /// True if the request has its value. A record without it is read again when it may run.
    pub(super) is_whole: bool,
}

/// Time at which a parked record may run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    pub(super) at: Instant,
    /// Least time for which its partition stays paused: librdkafka throws away what it has fetched at each pause.
    pub(super) rest: Duration,
}

impl Lane {
    /// Creates a lane of which nothing is known yet.
    pub(super) fn new(assignment: Arc<Assignment>) -> Self {
        Self {
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
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.rests_until.is_none_or(|until| until <= now)
    }

    /// Returns the offset of the first record that waits.
    pub(super) fn first_held(&self) -> Option<i64> {
        self.held.front().map(|held| held.offset)
    }

    /// Returns the position to commit. A lane that is `closing` gives back the requests under way: they have ended
    /// nobody.
    pub(super) fn position(&self, closing: bool) -> Option<Position> {
        let position = Position { topic: self.topic, ..self.window.position()? };
        Some(self.crashes.note(position, closing))
    }

    /// Returns whether no request of the lane is under way or waits.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.window.in_flight() == 0
    }

    /// Returns whether the first record that waits was finished by an earlier owner.
    pub(super) fn is_first_held_finished(&self) -> bool {
        self.first_held().is_some_and(|offset| self.window.has_finished(offset))
    }
}
