//! The jobs of one transaction.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::debug;

use super::admission::{Admission, Spot};
use super::session::Session;
use crate::intake::Claim;
use crate::replies::counts::Counts;
use crate::replies::job::Job;
use crate::replies::outgoing::{Graveyard, Outgoing};
use crate::replies::recourse::{Cause, Part, is_of_transaction};

/// How long a full producer queue is left to drain.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(2);

/// Which record of a transaction: a job's index, and which of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub(super) job: usize,
    pub(super) part: Part,
}

/// A record that was not taken, and why.
pub(super) type Refusal = (Slot, KafkaError);

/// The jobs of one transaction, in the order of their sending.
pub(super) struct Batch {
    jobs: Vec<Job>,
    /// Records that librdkafka did not take.
    refused: Vec<Refusal>,
    bytes: usize,
    began: Instant,
    /// Whether it has a single job, which is not to do others harm.
    is_apart: bool,
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
    pub(super) fn new(is_apart: bool) -> Self {
        Self { jobs: Vec::new(), refused: Vec::new(), bytes: 0, began: Instant::now(), is_apart }
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// What its records have.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When its first record may have been written.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn is_apart(&self) -> bool {
        self.is_apart
    }

    /// Whether somebody may wait for what it says. A caller who has his answer does not.
    pub(super) fn is_awaited(&self) -> bool {
        self.jobs.iter().any(|job| !job.answered)
    }

    /// Whether the transaction cannot be committed any more, since a record was refused.
    pub(super) fn is_spoilt(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Produces a job's records; none is left of what no topic takes. A job whose partition has gone is dropped.
    pub(super) fn send(&mut self, session: &Session, graveyard: &Graveyard, mut job: Job) {
        if job.ending.ticket.is_revoked() {
            debug!(source = %job.ending.request.source, "a late result is dropped; its partition has a new owner");
            return;
        }
        job.sent = Instant::now();
        let index = self.jobs.len();
        for part in [Part::Letter, Part::Reply] {
            self.produce(session, Slot { job: index, part }, || job.record(part, graveyard));
        }
        self.jobs.push(job);
    }

    fn produce(&mut self, session: &Session, slot: Slot, record: impl Fn() -> Option<Outgoing>) {
        while let Some(outgoing) = record() {
            let bytes = outgoing.bytes;
            let Err((error, _)) = outgoing.send(session.producer(), slot.opaque()) else {
                self.bytes += bytes;
                break;
            };
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) || session.has_refused() {
                self.refused.push((slot, error));
                return;
            }
            session.producer().poll(QUEUE_FULL_WAIT);
        }
        session.poll();
    }

    /// Where its records go.
    pub(super) fn spots(&self, admission: &Admission) -> Vec<Spot> {
        self.jobs.iter().flat_map(|job| admission.spots(job)).map(|(_, spot)| spot).collect()
    }

    /// Which requests end by it.
    pub(super) fn claims(&self) -> Vec<Claim> {
        self.jobs.iter().map(|job| job.ending.ticket.claim()).collect()
    }

    /// The transaction is committed: these requests are finished.
    pub(super) fn finish(self, counts: &Counts, admission: &mut Admission) {
        admission.committed(&self.jobs);
        for job in self.jobs {
            counts.ended(&job);
            job.ending.ticket.finish();
        }
    }

    /// The transaction came to nothing. The jobs for others in their order, with another way for each that was refused.
    /// `late`: for want of time, so that who is to blame may be among those that were not written.
    pub(super) fn again(
        mut self,
        mut refused: Vec<Refusal>,
        late: bool,
        admission: &mut Admission,
        counts: &Counts,
    ) -> Vec<Job> {
        refused.append(&mut self.refused);
        if late {
            self.blame(&refused, admission);
        }
        for (slot, error) in refused {
            let code = error.rdkafka_error_code();
            if code.is_some_and(is_of_transaction) {
                continue;
            }
            counts.refused(code);
            // Another record of the same batch is at fault, or all are late.
            if late || code == Some(RDKafkaErrorCode::InvalidDifferentRecord) {
                continue;
            }
            if let Some(job) = self.jobs.get_mut(slot.job) {
                admission.refused(job, slot.part, Cause::of(code), &error);
            }
        }
        self.jobs.retain(|job| !job.ending.ticket.is_revoked());
        self.jobs
    }

    /// Whether a record was refused for what it is, so that there is no need to wait before others go on.
    pub(super) fn has_met_a_refusal(&self, refused: &[Refusal]) -> bool {
        let is_of_record = |(_, error): &Refusal| Cause::of(error.rdkafka_error_code()) != Cause::Passing;
        self.refused.iter().chain(refused).any(is_of_record)
    }

    /// Doubts each partition that has taken nothing, if others have, or if there is but one job.
    fn blame(&self, refused: &[Refusal], admission: &mut Admission) {
        let unwritten: HashSet<Slot> = refused.iter().map(|(slot, _)| *slot).collect();
        let mut spots = [HashSet::<Spot>::new(), HashSet::new()];
        for (index, job) in self.jobs.iter().enumerate() {
            for (part, spot) in admission.spots(job) {
                spots[usize::from(unwritten.contains(&Slot { job: index, part }))].insert(spot);
            }
        }
        let [written, unwritten] = spots;
        if !written.is_empty() || self.is_apart {
            unwritten.difference(&written).for_each(|spot| admission.doubt(spot));
        }
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
