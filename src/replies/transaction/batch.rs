//! The jobs of one transaction.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::debug;

use super::session::Session;
use crate::intake::Claim;
use crate::replies::address::AllowedTopics;
use crate::replies::counts::Counts;
use crate::replies::job::{Job, Part};
use crate::replies::outgoing::{Graveyard, Outgoing};

/// How long a full producer queue is left to drain.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(2);

/// Which record of a transaction: a job's index, and which of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) job: usize,
    pub(super) part: Part,
}

/// The jobs of one transaction, in the order of their sending.
#[derive(Default)]
pub(super) struct Batch {
    jobs: Vec<Job>,
    /// Records that librdkafka did not take.
    refused: Vec<(Slot, KafkaError)>,
}

impl Slot {
    /// What travels with the record through librdkafka.
    pub(super) fn opaque(self) -> usize {
        self.job << 1 | usize::from(self.part == Part::Letter)
    }

    pub(super) fn from_opaque(opaque: usize) -> Self {
        Self { job: opaque >> 1, part: if opaque & 1 == 1 { Part::Letter } else { Part::Reply } }
    }
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether somebody may wait for what it says. A caller who has his answer does not.
    pub(super) fn is_awaited(&self) -> bool {
        self.jobs.iter().any(|job| !job.answered)
    }

    /// Whether the transaction cannot be committed any more, since a record was refused.
    pub(super) fn is_spoilt(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Produces a job's records. A job whose partition has gone is dropped.
    pub(super) fn send(&mut self, session: &Session, graveyard: &Graveyard, mut job: Job) {
        if job.ending.ticket.is_revoked() {
            debug!(source = %job.ending.request.source, "a late result is dropped; its partition has a new owner");
            return;
        }
        job.sent = Instant::now();
        let index = self.jobs.len();
        if let Some(letter) = job.letter() {
            self.produce(session, Slot { job: index, part: Part::Letter }, || job.dead_letter(letter, graveyard));
        }
        self.produce(session, Slot { job: index, part: Part::Reply }, || job.reply());
        self.jobs.push(job);
    }

    fn produce(&mut self, session: &Session, slot: Slot, record: impl Fn() -> Outgoing) {
        while let Err((error, _)) = record().send(session.producer(), slot.opaque()) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) || session.has_refused() {
                self.refused.push((slot, error));
                return;
            }
            session.producer().poll(QUEUE_FULL_WAIT);
        }
        session.poll();
    }

    /// Which requests end by it.
    pub(super) fn claims(&self) -> Vec<Claim> {
        self.jobs.iter().map(|job| job.ending.ticket.claim()).collect()
    }

    /// The transaction is committed: these requests are finished.
    pub(super) fn finish(self, counts: &Counts) {
        for job in self.jobs {
            counts.ended(&job);
            job.ending.ticket.finish();
        }
    }

    /// The transaction came to nothing. The jobs for the next one in their order, with another way for each that was
    /// refused, and how long to wait before.
    pub(super) fn again(
        mut self,
        session: Option<&Session>,
        allowed: &AllowedTopics,
        counts: &Counts,
    ) -> (Vec<Job>, Duration) {
        let mut pause = Duration::ZERO;
        let mut refused = self.refused;
        refused.extend(session.map(Session::take_refused).unwrap_or_default());
        for (slot, error) in refused {
            let code = error.rdkafka_error_code();
            if is_of_the_transaction(code) {
                continue;
            }
            counts.refused(code);
            if let Some(job) = self.jobs.get_mut(slot.job) {
                pause = pause.max(job.reroute(slot.part, &error, allowed));
            }
        }
        self.jobs.retain(|job| !job.ending.ticket.is_revoked());
        (self.jobs, pause)
    }

    /// After a commit of which nobody knows whether it took place: those that it finished end, the others are left.
    pub(super) fn settle(&mut self, finished: &[bool], counts: &Counts) {
        let jobs = std::mem::take(&mut self.jobs);
        for (job, finished) in jobs.into_iter().zip(finished) {
            if *finished {
                counts.ended(&job);
                job.ending.ticket.finish();
            } else {
                self.jobs.push(job);
            }
        }
    }
}

/// Errors of a record that say nothing of the record itself: its transaction was broken off.
fn is_of_the_transaction(code: Option<RDKafkaErrorCode>) -> bool {
    matches!(
        code,
        Some(
            RDKafkaErrorCode::PurgeQueue
                | RDKafkaErrorCode::PurgeInflight
                | RDKafkaErrorCode::State
                | RDKafkaErrorCode::Fatal
                | RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
                | RDKafkaErrorCode::InvalidProducerIdMapping
                | RDKafkaErrorCode::InvalidTransactionalState
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_survives_its_way_through_librdkafka() {
        for slot in [Slot { job: 0, part: Part::Reply }, Slot { job: 7, part: Part::Letter }] {
            assert_eq!(Slot::from_opaque(slot.opaque()), slot);
        }
    }
}
