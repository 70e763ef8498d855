//! Local replies: the short way to a caller who waits for the reply at the HTTP door of this very process.
//!
//! The reply's record is published all the same, and says what the caller was told; he waits neither for the record's
//! turn, nor for the broker, nor for a commit. So only replies that the broker is going to take are delivered locally,
//! and none that is another owner's to give, or whose request is parked to be answered later. And the address of the
//! reply has to be the door's own: a client that writes to the requests topic reaches nobody in here whom it could not
//! reach by a reply.

use prometheus::IntCounter;

use super::address::ReplyAddress;
use super::publication::Publication;
use super::record::reply_for_caller;
use crate::callers::{Caller, Callers, ReplyRecord};
use crate::telemetry::Metrics;

/// Bytes that key and framing add to a record, estimated rather too high, so that no local reply is too large for the
/// broker.
const RECORD_OVERHEAD: usize = 512;

/// Hands replies to callers of this process. Cheap to clone.
#[derive(Clone)]
pub(super) struct LocalReply {
    callers: Callers,
    /// Bytes of the largest record that is taken for sure. A larger one may be refused, and then the caller is told
    /// that.
    largest: usize,
    answered: IntCounter,
}

impl LocalReply {
    /// Takes the size in bytes up to which a record is taken for sure.
    pub(super) fn new(callers: Callers, largest: usize, metrics: &Metrics) -> Self {
        Self { callers, largest, answered: metrics.shim_replies.with_label_values(&["direct"]) }
    }

    /// Answers the caller of a finished request, if he waits in this process.
    pub(super) fn answer(&self, publication: &mut Publication) {
        let Some(caller) = self.caller(publication) else { return };
        let reply =
            reply_for_caller(&publication.ending.request, &publication.correlation, &publication.ending.outcome);
        if size(&reply) <= self.largest && caller.answer(reply) {
            self.answered.inc();
            publication.answered = true;
        }
    }

    /// Finds the caller. For a request that came over Kafka the search ends at the address.
    fn caller(&self, publication: &Publication) -> Option<Caller<'_>> {
        let ReplyAddress { topic, partition } = &publication.address;
        let is_for_the_door = self.callers.read_replies_of(topic, *partition);
        let is_final = || publication.parking().is_none() && !publication.ending.ticket.is_revoked();
        if is_for_the_door && is_final() { self.callers.of(&publication.ending.request) } else { None }
    }
}

/// Estimates the most bytes that the record takes on the broker.
fn size(reply: &ReplyRecord) -> usize {
    reply.headers.bytes() + reply.body.len() + RECORD_OVERHEAD
}
