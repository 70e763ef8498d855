//! Whereabouts of the requests under way: the step that each one is at, for operators who ask what holds the oldest.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::position::MAX_WINDOW;

/// Bits of a mark that hold the step; the others hold the place.
const STEP_BITS: u32 = 3;

/// Step of a request's way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Progress {
    /// The request was read and has not begun.
    #[default]
    Read,
    /// The request's route is being decided.
    Deciding,
    /// The request waits for its model: until that is loaded, or until a place there is free.
    Waiting,
    /// The model is being called.
    Calling,
    /// The request's answer waits for its turn, and for the broker.
    Publishing,
}

/// Step of a request, and the place where it takes it: a number that the pipeline knows the meaning of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// The step.
    pub progress: Progress,
    /// The place, of at most 29 bits; 0 is none.
    pub place: u32,
}

/// Marks of one partition's requests. Setting one is a single store, so that each step of a request can do so; offsets
/// of one window never share a mark.
#[derive(Debug, Default)]
pub(super) struct Whereabouts(OnceLock<Box<[AtomicU32]>>);

impl Whereabouts {
    /// Notes where the request at this offset is now.
    pub(super) fn set(&self, offset: i64, mark: Mark) {
        // A partition of which nothing is read takes no memory for this.
        let marks = self.0.get_or_init(|| (0..MAX_WINDOW).map(|_| AtomicU32::new(0)).collect());
        if let Some(slot) = marks.get(slot(offset)) {
            slot.store(mark.place << STEP_BITS | mark.progress as u32, Ordering::Relaxed);
        }
    }

    /// Returns where the request at this offset is.
    pub(super) fn get(&self, offset: i64) -> Mark {
        let marks = self.0.get().and_then(|marks| marks.get(slot(offset)));
        let bits = marks.map_or(0, |slot| slot.load(Ordering::Relaxed));
        let steps = [Progress::Read, Progress::Deciding, Progress::Waiting, Progress::Calling, Progress::Publishing];
        let step = (bits & ((1 << STEP_BITS) - 1)) as usize;
        Mark { progress: steps.get(step).copied().unwrap_or_default(), place: bits >> STEP_BITS }
    }
}

fn slot(offset: i64) -> usize {
    usize::try_from(offset).unwrap_or_default() % MAX_WINDOW
}

impl Progress {
    /// Names the step, for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Deciding => "deciding",
            Self::Waiting => "waiting",
            Self::Calling => "calling",
            Self::Publishing => "publishing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whereabouts_keep_mark_of_each_offset_in_window() {
        let whereabouts = Whereabouts::default();
        assert_eq!(whereabouts.get(7), Mark::default());
        let first = Mark { progress: Progress::Calling, place: (1 << 29) - 1 };
        let last = Mark { progress: Progress::Publishing, place: 0 };
        let end = 7 + i64::try_from(MAX_WINDOW).unwrap() - 1;
        whereabouts.set(7, first);
        whereabouts.set(end, last);
        assert_eq!((whereabouts.get(7), whereabouts.get(end)), (first, last));
        whereabouts.set(end + 1, Mark::default());
        assert_eq!(whereabouts.get(7), Mark::default());
    }
}
