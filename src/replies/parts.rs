//! Shared parts of the two delivery modes, and what can be known of a record before it is produced.

use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode;
use tokio_util::sync::CancellationToken;

use super::address::AllowedTopics;
use super::counts::Counts;
use super::directory::{TopicDirectory, WriteStatus};
use super::limits::TopicLimits;
use super::outgoing::DeadLetterTopic;
use super::publication::Publication;
use super::recourse::{Cause, RecordKind};
use super::throttle::Throttle;
use crate::broker::Cluster;
use crate::telemetry::ProgressWatch;

/// Parts that either delivery mode needs.
pub(super) struct Parts {
    pub(super) cluster: Arc<Cluster>,
    pub(super) allowed: AllowedTopics,
    pub(super) dead_letters: DeadLetterTopic,
    pub(super) counts: Counts,
    pub(super) limits: TopicLimits,
    pub(super) directory: TopicDirectory,
    pub(super) throttle: Throttle,
    /// True if any record gets through.
    pub(super) flow: ProgressWatch,
    /// Cancelled when the producer cannot go on, so that the process ends rather than stand still.
    pub(super) failed: CancellationToken,
}

/// Prospect of a record that is not known to be barred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prospect {
    /// The record can be written, as far as is known.
    Good,
    /// The record's topic is missing. It is one of our own, which is an operator's to mend, and librdkafka finds out
    /// when that is done.
    Doubtful,
    /// The record's topic is being looked up.
    Unknown,
    /// The record's partition has no leader.
    Away,
}

impl Parts {
    /// Returns the prospect of one record of a publication, or the reason why the record is barred and need not be
    /// produced.
    pub(super) fn prospect(
        &self,
        publication: &Publication,
        kind: RecordKind,
    ) -> Result<Prospect, (Cause, RDKafkaErrorCode)> {
        let Some(target) = publication.target(kind, &self.dead_letters) else { return Ok(Prospect::Good) };
        match self.directory.write_status(target.topic, target.partition, target.key.as_deref()) {
            WriteStatus::Writable => {}
            WriteStatus::Unknown => return Ok(Prospect::Unknown),
            WriteStatus::NoTopic(_) if self.directory.is_own(target.topic) => return Ok(Prospect::Doubtful),
            WriteStatus::NoTopic(code) => return Err((Cause::Topic, code)),
            WriteStatus::NoPartition => return Err((Cause::Partition, RDKafkaErrorCode::UnknownPartition)),
            WriteStatus::NoLeader(since) if kind == RecordKind::Reply && publication.waits_no_longer(since) => {
                return Err((Cause::Topic, RDKafkaErrorCode::LeaderNotAvailable));
            }
            WriteStatus::NoLeader(_) => return Ok(Prospect::Away),
        }
        // Building a record costs far more than estimating its size, so only large ones are built here.
        let largest = self.directory.largest_record(target.topic);
        match publication.bytes_at_most(kind, &self.dead_letters) > largest && !self.seems_to_fit(publication, kind) {
            true => Err((Cause::Size, RDKafkaErrorCode::MessageSizeTooLarge)),
            false => Ok(Prospect::Good),
        }
    }

    /// Returns whether a record is no larger than its topic and the producer say that it may be.
    pub(super) fn seems_to_fit(&self, publication: &Publication, kind: RecordKind) -> bool {
        let record = publication.record(kind, &self.dead_letters);
        record.is_some_and(|record| record.bytes <= self.directory.largest_record(&record.topic))
    }
}
