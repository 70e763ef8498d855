//! Position of a partition, as commits carry it: an offset, and in the metadata which of the later offsets are finished
//! too.
//!
//! The metadata is `sb2.` and then, in base64, four bytes of XXH3-64 over the rest and the offset, the
//! [`crash_count`](Position::crash_count), the number of [`isolated_runs`](Position::isolated_runs), the
//! [`reach`](Position::reach) in two bytes, the [`topic`](Position::topic) in eight, and one bit for each offset from
//! the committed one on, lowest bit first, up to the last that is finished. A window of 16,384 offsets takes 2,756 of
//! the 4,096 bytes that a broker stores. `sb1.`, of earlier versions, had neither reach nor topic.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use xxhash_rust::xxh3::xxh3_64;

use crate::broker::{TopicId, read_foreign};

/// Name of the format, and its version.
const MARK: &str = "sb2.";
const CHECK: usize = 4;
/// Bytes before the bits: the check, the two counts, the reach and the topic.
const HEAD: usize = CHECK + 2 + 2 + 8;
/// Name of the format before, which is read and not written.
const OLD_MARK: &str = "sb1.";
const OLD_HEAD: usize = CHECK + 2;

/// Most offsets of a window: as many as a commit's metadata can describe. A request beyond them waits.
pub const MAX_WINDOW: usize = 16_384;

/// Longest reach: as many offsets as a window has room for.
#[expect(clippy::cast_possible_truncation, reason = "it is 16,384")]
pub(super) const MAX_REACH: u16 = MAX_WINDOW as u16;

/// Progress of a partition: how far it is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// Offset of the first request that is not finished.
    pub offset: i64,
    /// Topic that the offset is of, where the broker gives topics ids.
    pub topic: Option<TopicId>,
    /// Owners of the partition, one after the other, that have had it without giving it back, and may have had the same
    /// requests under way. The owner that commits counts itself: should it end now, the next one finds that many
    /// crashes.
    pub crash_count: u8,
    /// Owners among them that have run the request at `offset` alone.
    pub isolated_runs: u8,
    /// Offsets from `offset` on that may be under way: none after them begins before a later commit allows it.
    pub reach: u16,
    /// True if each offset is finished, from `offset` on up to the last that is.
    pub finished: Vec<bool>,
}

/// Reason why metadata is not to be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Another client has committed, or another version of Signalbox.
    #[error("it was not written by this version of signalbox")]
    Foreign,
    /// The metadata is not what was written, or belongs to another offset.
    #[error("it is damaged, or belongs to another offset")]
    Damaged,
}

impl Position {
    /// Returns whether a request is finished.
    pub fn has_finished(&self, offset: i64) -> bool {
        let index = offset.checked_sub(self.offset).map(usize::try_from);
        match index {
            Some(Ok(index)) => self.finished.get(index).copied().unwrap_or(false),
            Some(Err(_)) | None => offset < self.offset,
        }
    }

    /// Returns the offset from which on no request begins before a later commit allows it.
    pub fn until(&self) -> i64 {
        self.offset.saturating_add(i64::from(self.reach))
    }

    /// Encodes the commit's metadata.
    pub fn metadata(&self) -> String {
        let mut bytes = vec![0; HEAD + self.finished.len().div_ceil(8)];
        bytes[CHECK] = self.crash_count;
        bytes[CHECK + 1] = self.isolated_runs;
        bytes[CHECK + 2..CHECK + 4].copy_from_slice(&self.reach.to_be_bytes());
        bytes[CHECK + 4..HEAD].copy_from_slice(&self.topic.map_or(0, TopicId::number).to_be_bytes());
        for index in (0..self.finished.len()).filter(|index| self.finished[*index]) {
            bytes[HEAD + index / 8] |= 1 << (index % 8);
        }
        let check = check(self.offset, &bytes[CHECK..]);
        bytes[..CHECK].copy_from_slice(&check);
        format!("{MARK}{}", STANDARD_NO_PAD.encode(bytes))
    }

    /// Reads the commit of this offset, as the broker gives it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn of(offset: i64, element: &TopicPartitionListElem<'_>) -> Result<Self, MetadataError> {
        let read = read_foreign(|| Self::read(offset, element.metadata()));
        read.unwrap_or(Err(MetadataError::Foreign))
    }

    /// Reads a commit. Without metadata nothing but the offset is known.
    ///
    /// # Errors
    /// When there is metadata that cannot be relied on: then the offset alone holds, and requests after it that were
    /// finished are answered again.
    pub fn read(offset: i64, metadata: &str) -> Result<Self, MetadataError> {
        if metadata.is_empty() {
            return Ok(Self { offset, ..Self::default() });
        }
        let written = metadata.strip_prefix(MARK).map(|text| (text, HEAD));
        let before = || metadata.strip_prefix(OLD_MARK).map(|text| (text, OLD_HEAD));
        let (text, head) = written.or_else(before).ok_or(MetadataError::Foreign)?;
        let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| MetadataError::Damaged)?;
        if bytes.len() < head || bytes.len() > head + MAX_WINDOW / 8 || bytes[..CHECK] != check(offset, &bytes[CHECK..])
        {
            return Err(MetadataError::Damaged);
        }
        let (mut reach, mut topic) = (MAX_REACH, None);
        if let Some((noted, id)) = bytes[OLD_HEAD..head].split_first_chunk() {
            reach = u16::from_be_bytes(*noted);
            topic = id.first_chunk().and_then(|id| TopicId::of_number(u64::from_be_bytes(*id)));
        }
        let bits = bytes[head..].iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        let mut finished: Vec<bool> = bits.collect();
        finished.truncate(finished.iter().rposition(|finished| *finished).map_or(0, |last| last + 1));
        Ok(Self { offset, topic, crash_count: bytes[CHECK], isolated_runs: bytes[CHECK + 1], reach, finished })
    }
}

/// Hashes the bytes with their offset, so that metadata which another client has put beside another offset is not
/// believed.
fn check(offset: i64, bytes: &[u8]) -> [u8; CHECK] {
    let hash = xxh3_64(&[&offset.to_be_bytes(), bytes].concat()).to_be_bytes();
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(number: u64) -> Option<TopicId> {
        TopicId::of_number(number)
    }

    #[test]
    fn metadata_of_widest_window_fits_broker() {
        let widest = Position {
            offset: i64::MAX,
            topic: topic(u64::MAX),
            crash_count: 255,
            isolated_runs: 255,
            reach: u16::MAX,
            finished: vec![true; MAX_WINDOW],
        };
        assert_eq!(widest.metadata().len(), 2756);
        assert_eq!(Position::read(i64::MAX, &widest.metadata()), Ok(widest));
    }

    #[test]
    fn position_rejects_foreign_metadata() {
        let position = Position { offset: 7, crash_count: 1, finished: vec![false, true], ..Position::default() };
        let metadata = position.metadata();
        assert_eq!(Position::read(7, ""), Ok(Position { offset: 7, ..Position::default() }));
        assert_eq!(Position::read(7, "somebody's note"), Err(MetadataError::Foreign));
        assert_eq!(Position::read(7, "sb3.AAAA"), Err(MetadataError::Foreign));
        assert_eq!(Position::read(8, &metadata), Err(MetadataError::Damaged));
        assert_eq!(Position::read(7, &metadata[..metadata.len() - 1]), Err(MetadataError::Damaged));
        assert_eq!(Position::read(7, "sb2."), Err(MetadataError::Damaged));
        assert_eq!(Position::read(7, "sb2.\u{e9}"), Err(MetadataError::Damaged));
    }

    #[test]
    fn position_reads_metadata_of_earlier_version() {
        let mut bytes = vec![0; OLD_HEAD];
        (bytes[CHECK], bytes[CHECK + 1]) = (2, 1);
        bytes.push(0b110);
        let check = check(40, &bytes[CHECK..]);
        bytes[..CHECK].copy_from_slice(&check);
        let metadata = format!("{OLD_MARK}{}", STANDARD_NO_PAD.encode(&bytes));
        let finished = vec![false, true, true];
        let expected =
            Position { offset: 40, topic: None, crash_count: 2, isolated_runs: 1, reach: MAX_REACH, finished };
        assert_eq!(Position::read(40, &metadata), Ok(expected));
        assert_eq!(Position::read(41, &metadata), Err(MetadataError::Damaged));
    }

    proptest! {
        #[test]
        fn position_reads_what_it_wrote(
            offset in 0..i64::MAX,
            id in any::<u64>(),
            crash_count in any::<u8>(),
            isolated_runs in any::<u8>(),
            reach in any::<u16>(),
            mut finished in prop::collection::vec(any::<bool>(), 0..MAX_WINDOW),
        ) {
            if let Some(last) = finished.last_mut() {
                *last = true;
            }
            let position = Position { offset, topic: topic(id), crash_count, isolated_runs, reach, finished };
            let metadata = position.metadata();
            prop_assert!(metadata.len() <= 4096);
            prop_assert_eq!(Position::read(offset, &metadata), Ok(position));
        }

        #[test]
        fn position_detects_one_wrong_byte(
            finished in prop::collection::vec(any::<bool>(), 0..200),
            at in any::<prop::sample::Index>(),
            other in "[A-Za-z0-9+/]",
        ) {
            let position = Position { offset: 100, crash_count: 1, finished, ..Position::default() };
            let mut metadata = position.metadata();
            let written = Position::read(100, &metadata);
            let at = MARK.len() + at.index(metadata.len() - MARK.len());
            metadata.replace_range(at..=at, &other);
            if let Ok(read) = Position::read(100, &metadata) {
                prop_assert_eq!(Ok(read), written);
            }
        }
    }
}
