//! Publications of one transaction.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use tracing::debug;

use super::admission::TransactionAdmission;
use super::session::{RecordId, RejectedRecord, Session};
use crate::intake::RequestPosition;
use crate::replies::counts::Counts;
use crate::replies::directory::Destination;
use crate::replies::outgoing::{DeadLetterTopic, OutgoingRecord};
use crate::replies::publication::Publication;
use crate::replies::recourse::{Cause, RecordKind, is_of_transaction};

/// Pause in which a full producer queue drains before the record is sent again.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(2);

/// Publications of one transaction, in the order of their sending.
pub(super) struct TransactionBatch {
    pub(super) publications: Vec<Publication>,
    /// Records that librdkafka did not take.
    refused: Vec<RejectedRecord>,
    bytes: usize,
    began: Instant,
    /// True if the transaction has a single publication, which is to do others no harm.
    is_alone: bool,
}

impl TransactionBatch {
    pub(super) fn new(is_alone: bool) -> Self {
        Self { publications: Vec::new(), refused: Vec::new(), bytes: 0, began: Instant::now(), is_alone }
    }

    pub(super) fn len(&self) -> usize {
        self.publications.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.publications.is_empty()
    }

    /// Returns the bytes of its records.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns when its first record may have been written.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Returns whether anybody may wait for its records. A caller who has his answer does not.
    pub(super) fn is_awaited(&self) -> bool {
        self.publications.iter().any(|publication| !publication.answered)
    }

    /// Returns whether the transaction cannot be committed any more, since a record was rejected.
    pub(super) fn is_spoilt(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Produces a publication's records. A publication that no topic takes has none left; one whose partition has gone
    /// is dropped.
    pub(super) fn send(&mut self, session: &Session, dead_letters: &DeadLetterTopic, mut publication: Publication) {
        if publication.ending.ticket.is_revoked() {
            debug!(source = %publication.ending.request.source, "a late result is dropped; its partition has a new owner");
            return;
        }
        publication.sent = Instant::now();
        let index = self.publications.len();
        for kind in RecordKind::ALL {
            self.produce(session, RecordId { publication: index, kind }, || publication.record(kind, dead_letters));
        }
        self.publications.push(publication);
    }

    fn produce(&mut self, session: &Session, id: RecordId, record: impl Fn() -> Option<OutgoingRecord>) {
        while let Some(outgoing) = record() {
            let bytes = outgoing.bytes;
            let Err(error) =
                outgoing.send(id.opaque(), |record| session.producer().send(record).map_err(|(error, _)| error))
            else {
                self.bytes += bytes;
                break;
            };
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) || session.has_refused() {
                self.refused.push((id, error));
                return;
            }
            session.producer().poll(QUEUE_FULL_WAIT);
        }
        session.poll();
    }

    /// Lists the requests that it ends.
    pub(super) fn requests(&self) -> Vec<RequestPosition> {
        self.publications.iter().map(|publication| publication.ending.ticket.position()).collect()
    }

    /// Finishes its requests: the transaction is committed.
    pub(super) fn finish(self, admission: &mut TransactionAdmission) {
        admission.committed(&self.publications);
        self.publications.into_iter().for_each(|publication| admission.parts.counts.end(publication));
    }

    /// Returns the publications of an aborted transaction for another one, in their order; those whose records were
    /// rejected go one rung down. `late`: the transaction was aborted for want of time, so the record to blame may be
    /// among those that were not written.
    pub(super) fn into_retries(
        mut self,
        mut refused: Vec<RejectedRecord>,
        late: bool,
        admission: &mut TransactionAdmission,
    ) -> Vec<Publication> {
        refused.append(&mut self.refused);
        if late {
            self.blame(&refused, admission);
        }
        for (id, error) in refused {
            let code = error.rdkafka_error_code();
            // The record was dropped with its transaction, and is not to blame.
            if code.is_some_and(is_of_transaction) {
                continue;
            }
            admission.parts.counts.refused(code);
            // Another record of the same batch is at fault, or all are late.
            if late || code == Some(RDKafkaErrorCode::InvalidDifferentRecord) {
                continue;
            }
            if let Some(publication) = self.publications.get_mut(id.publication) {
                admission.refused(publication, id.kind, Cause::of(code), &error);
            }
        }
        self.publications.retain(|publication| !publication.ending.ticket.is_revoked());
        self.publications
    }

    /// Returns whether a record was rejected for what it is, so that others need not wait before they go on.
    pub(super) fn has_rejected_record(&self, refused: &[RejectedRecord]) -> bool {
        let is_of_record = |(_, error): &RejectedRecord| Cause::of(error.rdkafka_error_code()) != Cause::Passing;
        self.refused.iter().chain(refused).any(is_of_record)
    }

    /// Marks each destination as stalled that has taken nothing, if others have, or if there is but one publication.
    fn blame(&self, refused: &[RejectedRecord], admission: &mut TransactionAdmission) {
        let unwritten: HashSet<RecordId> = refused.iter().map(|(id, _)| *id).collect();
        let mut destinations = [HashSet::<Destination>::new(), HashSet::new()];
        for (index, publication) in self.publications.iter().enumerate() {
            for kind in RecordKind::ALL {
                let is_unwritten = unwritten.contains(&RecordId { publication: index, kind });
                destinations[usize::from(is_unwritten)].extend(admission.destination(publication, kind));
            }
        }
        let [written, unwritten] = destinations;
        if !written.is_empty() || self.is_alone {
            unwritten.difference(&written).for_each(|destination| admission.stall(destination));
        }
    }

    /// Finishes the requests that a commit of unknown outcome turned out to have finished, and leaves the others.
    pub(super) fn finish_committed(&mut self, finished: &[bool], counts: &Counts) {
        let publications = std::mem::take(&mut self.publications);
        for (publication, finished) in publications.into_iter().zip(finished) {
            if *finished {
                counts.end(publication);
            } else {
                self.publications.push(publication);
            }
        }
    }
}
