//! The checkpoint of a partition: which of its letters were sent back, as the group commits it.
//!
//! The letters that a filter leaves may lie anywhere and are as many as they like, while a broker keeps some 4,000
//! bytes of metadata. So a checkpoint does not list letters but the selectors of the runs, each with a watermark: *of
//! the letters before this offset, all that this selector selects were sent*. A selector says the same of a letter for
//! ever, and that is enough to tell of each letter whether it was sent.

use rdkafka::topic_partition_list::TopicPartitionListElem;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::dead_letter::DeadLetter;
use super::selector::Selector;
use crate::broker::read_foreign;
use crate::intake::{MetadataError, Position};

/// Prefix of the metadata that names its format and version; metadata with another one is read as an older format.
const FORMAT: &str = "sr1.";
/// Bytes of metadata that a broker keeps unless its `offset.metadata.max.bytes` says otherwise; a longer commit fails.
pub(super) const MAX_METADATA_BYTES: usize = 4096;

/// Tells which letters of a partition were sent back.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Checkpoint {
    /// The offset before which every letter was sent.
    pub(super) offset: i64,
    runs: Vec<Watermark>,
    /// The letters that an earlier version has noted one by one.
    singly: Option<Position>,
}

/// Says how far a selector's letters were sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Watermark {
    /// The offset before which every letter that the selector selects was sent.
    before: i64,
    #[serde(flatten)]
    selector: Selector,
    /// Tells whether a selected letter after that offset was left, so that the watermark cannot rise.
    #[serde(skip)]
    is_over: bool,
}

/// Serialises the commit's metadata, after its prefix and its checksum.
#[derive(Serialize, Deserialize)]
struct CheckpointMetadata {
    runs: Vec<Watermark>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    singly: Option<(i64, String)>,
}

impl Checkpoint {
    /// Begins at this offset, with no letter sent from there on.
    pub(super) fn new(offset: i64) -> Self {
        Self { offset, ..Self::default() }
    }

    /// Reads what was committed at this offset.
    ///
    /// # Errors
    /// When there is metadata that cannot be relied on.
    pub(super) fn of(offset: i64, element: &TopicPartitionListElem<'_>) -> Result<Self, MetadataError> {
        let read = read_foreign(|| Self::read(offset, element.metadata()));
        read.unwrap_or(Err(MetadataError::Foreign))
    }

    fn read(offset: i64, metadata: &str) -> Result<Self, MetadataError> {
        let Some(text) = metadata.strip_prefix(FORMAT) else {
            let position = Position::read(offset, metadata)?;
            let singly = Some(position).filter(|position| !position.finished.is_empty());
            return Ok(Self { offset, runs: Vec::new(), singly });
        };
        let (check, written) = text.split_once('.').ok_or(MetadataError::Damaged)?;
        if check != checksum(offset, written) {
            return Err(MetadataError::Damaged);
        }
        let CheckpointMetadata { runs, singly } = serde_json::from_str(written).map_err(|_| MetadataError::Damaged)?;
        let singly = singly.map(|(offset, metadata)| Position::read(offset, &metadata)).transpose()?;
        Ok(Self { offset, runs, singly })
    }

    /// Writes the commit's metadata.
    pub(super) fn metadata(&self) -> String {
        let singly = self.singly.as_ref().map(|position| (position.offset, position.metadata()));
        let written = CheckpointMetadata { runs: self.runs.clone(), singly };
        // Serialising text and numbers cannot fail.
        let written = serde_json::to_string(&written).unwrap_or_default();
        format!("{FORMAT}{}.{written}", checksum(self.offset, &written))
    }

    /// Tells whether a letter was sent.
    pub(super) fn was_sent(&self, letter: &DeadLetter) -> bool {
        let offset = letter.offset();
        offset < self.offset
            || self.singly.as_ref().is_some_and(|position| position.has_finished(offset))
            || self.runs.iter().any(|watermark| offset < watermark.before && watermark.selector.selects(letter))
    }

    /// Begins a run with this selector.
    pub(super) fn begin(&mut self, selector: &Selector) {
        if !self.runs.iter().any(|watermark| watermark.selector == *selector) {
            let watermark = Watermark { before: self.offset, selector: selector.clone(), is_over: false };
            self.runs.push(watermark);
        }
    }

    /// Notes a letter that this run leaves. Letters come in rising order, and each letter that was not sent before is
    /// either left or sent now.
    pub(super) fn skip(&mut self, letter: &DeadLetter) {
        for watermark in
            self.runs.iter_mut().filter(|watermark| !watermark.is_over && watermark.selector.selects(letter))
        {
            // The selector selects no unsent letter before this one.
            watermark.before = watermark.before.max(letter.offset());
            watermark.is_over = true;
        }
    }

    /// Builds the checkpoint for when all letters before `next` have been looked at, and no letter before
    /// `first_unsent` was left.
    pub(super) fn at(&self, next: i64, first_unsent: Option<i64>) -> Self {
        let offset = first_unsent.unwrap_or(next).max(self.offset);
        let mut runs = self.runs.clone();
        for watermark in runs.iter_mut().filter(|watermark| !watermark.is_over) {
            watermark.before = watermark.before.max(next);
        }
        // A watermark at or below the offset says nothing that the offset does not say.
        runs.retain(|watermark| watermark.before > offset);
        // Of two watermarks of which one implies the other, only that one is kept, so the metadata stays short.
        let mut needed: Vec<Watermark> = Vec::new();
        for watermark in runs {
            let implies =
                |one: &Watermark, other: &Watermark| one.before >= other.before && one.selector.covers(&other.selector);
            if !needed.iter().any(|known| implies(known, &watermark)) {
                needed.retain(|known| !implies(&watermark, known));
                needed.push(watermark);
            }
        }
        let ends = |position: &Position| position.offset + i64::try_from(position.finished.len()).unwrap_or(i64::MAX);
        let singly = self.singly.clone().filter(|position| ends(position) > offset);
        Self { offset, runs: needed, singly }
    }
}

/// Computes the checksum of the metadata. The offset is part of it, so that metadata which somebody has put beside
/// another offset is not believed.
fn checksum(offset: i64, written: &str) -> String {
    format!("{:016x}", xxh3_64(&[&offset.to_be_bytes(), written.as_bytes()].concat()))
}

#[cfg(test)]
mod tests;
