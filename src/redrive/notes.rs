//! Which letters of a partition were sent back, as the group notes it.
//!
//! The letters that a filter leaves may lie anywhere and are as many as they like, while a broker keeps some 4,000 bytes
//! of notes. So it is not the letters that are noted but the choices of the runs, and how far each holds: *of the
//! letters before this offset, all that this choice takes were sent*. What a choice takes is for ever the same, and that
//! is enough to tell of each letter whether it was sent.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::topic_partition_list::TopicPartitionListElem;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::choice::Choice;
use super::letter::Letter;
use crate::intake::{Position, Unreadable};

/// Names the format, and its version.
const MARK: &str = "sr1.";
/// How many bytes a broker keeps, if it does not say otherwise (`offset.metadata.max.bytes`).
pub(super) const LONGEST: usize = 4096;

/// Which letters of a partition were sent back.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Notes {
    /// All before this offset, or there were none.
    pub(super) offset: i64,
    runs: Vec<Note>,
    /// Those that an earlier version has noted one by one.
    singly: Option<Position>,
}

/// How far a choice holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    /// All before this offset that the choice takes were sent.
    before: i64,
    #[serde(flatten)]
    choice: Choice,
    /// Whether a letter after that was left which the choice takes, so that it holds no further.
    #[serde(skip)]
    is_over: bool,
}

/// The commit's metadata after its mark and its check.
#[derive(Serialize, Deserialize)]
struct Written {
    runs: Vec<Note>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    singly: Option<(i64, String)>,
}

impl Notes {
    /// A partition of which nothing was sent, from this offset on.
    pub(super) fn new(offset: i64) -> Self {
        Self { offset, ..Self::default() }
    }

    /// Reads what was committed at this offset.
    ///
    /// # Errors
    /// When there is metadata that cannot be relied on.
    pub(super) fn of(offset: i64, element: &TopicPartitionListElem<'_>) -> Result<Self, Unreadable> {
        // The library panics on text that is not UTF-8, which any client may have committed.
        let read = catch_unwind(AssertUnwindSafe(|| Self::read(offset, element.metadata())));
        read.unwrap_or(Err(Unreadable::Foreign))
    }

    fn read(offset: i64, metadata: &str) -> Result<Self, Unreadable> {
        let Some(text) = metadata.strip_prefix(MARK) else {
            let position = Position::read(offset, metadata)?;
            let singly = Some(position).filter(|position| !position.finished.is_empty());
            return Ok(Self { offset, runs: Vec::new(), singly });
        };
        let (check, written) = text.split_once('.').ok_or(Unreadable::Damaged)?;
        if check != self::check(offset, written) {
            return Err(Unreadable::Damaged);
        }
        let Written { runs, singly } = serde_json::from_str(written).map_err(|_| Unreadable::Damaged)?;
        let singly = singly.map(|(offset, metadata)| Position::read(offset, &metadata)).transpose()?;
        Ok(Self { offset, runs, singly })
    }

    /// The commit's metadata.
    pub(super) fn metadata(&self) -> String {
        let singly = self.singly.as_ref().map(|position| (position.offset, position.metadata()));
        let written = Written { runs: self.runs.clone(), singly };
        // Text and numbers can always be written.
        let written = serde_json::to_string(&written).unwrap_or_default();
        format!("{MARK}{}.{written}", check(self.offset, &written))
    }

    /// Whether a letter was sent.
    pub(super) fn has(&self, letter: &Letter) -> bool {
        let offset = letter.offset();
        offset < self.offset
            || self.singly.as_ref().is_some_and(|position| position.has_finished(offset))
            || self.runs.iter().any(|note| offset < note.before && note.choice.takes(letter))
    }

    /// A run begins, with this choice.
    pub(super) fn begin(&mut self, choice: &Choice) {
        if !self.runs.iter().any(|note| note.choice == *choice) {
            let note = Note { before: self.offset, choice: choice.clone(), is_over: false };
            self.runs.push(note);
        }
    }

    /// This letter is left. Letters come in rising order, and every one that was not sent is either left or sent now.
    pub(super) fn leave(&mut self, letter: &Letter) {
        for note in self.runs.iter_mut().filter(|note| !note.is_over && note.choice.takes(letter)) {
            // It has no such letter before that.
            note.before = note.before.max(letter.offset());
            note.is_over = true;
        }
    }

    /// The notes when all letters before `next` have been looked at, and nothing was left before `first_left`.
    pub(super) fn at(&self, next: i64, first_left: Option<i64>) -> Self {
        let offset = first_left.unwrap_or(next).max(self.offset);
        let mut runs = self.runs.clone();
        for note in runs.iter_mut().filter(|note| !note.is_over) {
            note.before = note.before.max(next);
        }
        runs.retain(|note| note.before > offset);
        let mut needed: Vec<Note> = Vec::new();
        for note in runs {
            let says_all_of = |one: &Note, other: &Note| one.before >= other.before && one.choice.covers(&other.choice);
            if !needed.iter().any(|known| says_all_of(known, &note)) {
                needed.retain(|known| !says_all_of(&note, known));
                needed.push(note);
            }
        }
        let ends = |position: &Position| position.offset + i64::try_from(position.finished.len()).unwrap_or(i64::MAX);
        let singly = self.singly.clone().filter(|position| ends(position) > offset);
        Self { offset, runs: needed, singly }
    }
}

/// Bound to the offset, so that metadata which somebody has put beside another one is not believed.
fn check(offset: i64, written: &str) -> String {
    format!("{:016x}", xxh3_64(&[&offset.to_be_bytes(), written.as_bytes()].concat()))
}

#[cfg(test)]
mod tests;
