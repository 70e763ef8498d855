//! Disturbs requests of Kafka's protocol: they are delayed, or their connection is cut.

use std::ops::Range;
use std::time::Duration;

use super::Dice;

/// Selects the requests of Kafka's protocol that a disturbance is for.
#[derive(Debug, Clone)]
pub(crate) struct Matching {
    /// The API key, such as [`OFFSET_COMMIT`].
    pub(crate) api: i16,
    /// The beginning of the client ids that match.
    pub(crate) client: &'static str,
}

/// Names the disturbance of a request that matches.
#[derive(Debug, Clone)]
pub(crate) enum Disturbance {
    /// The request waits for a time in this range, and so do those behind it on its connection.
    Delay(Range<Duration>),
    /// The request's connection is cut before it is forwarded, with this chance.
    Cut(f64),
}

/// The API key of OffsetCommit.
pub(crate) const OFFSET_COMMIT: i16 = 8;

/// Holds all disturbances, and the dice for their chances.
#[derive(Default)]
pub(super) struct Disturbances {
    list: Vec<(Matching, Disturbance)>,
    dice: Dice,
}

/// Describes the disturbance of one request.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fate {
    pub(super) delay: Duration,
    pub(super) cut: bool,
}

impl Disturbances {
    pub(super) fn add(&mut self, matching: Matching, disturbance: Disturbance) {
        self.list.push((matching, disturbance));
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// Decides the fate of the request in this frame.
    pub(super) fn fate(&mut self, frame: &[u8]) -> Fate {
        let mut fate = Fate::default();
        let dice = &mut self.dice;
        for (matching, disturbance) in &self.list {
            if !matching.is(frame) {
                continue;
            }
            match disturbance {
                Disturbance::Delay(range) => fate.delay += range.start + dice.moment(range.end - range.start),
                Disturbance::Cut(chance) => fate.cut |= dice.fraction() < *chance,
            }
        }
        fate
    }
}

impl Matching {
    /// Looks at a frame: its length, the API key, its version, a correlation id, and the client id after its own
    /// length.
    fn is(&self, frame: &[u8]) -> bool {
        let client = frame.get(14..).unwrap_or_default();
        frame.get(4..6) == Some(&self.api.to_be_bytes()) && client.starts_with(self.client.as_bytes())
    }
}
