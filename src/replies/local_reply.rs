//! The short way of a reply: to the caller who waits for it at the HTTP door of this very process, at once.
//!
//! Its record is published all the same, and says what the caller was told; he waits neither for its turn, nor for the
//! broker, nor for a commit. So only what the broker is going to take goes this way, and nothing does that is another
//! owner's to answer, or that is put aside to be answered later. And the address of the reply has to be the door's own:
//! whoever writes to the requests topic reaches nobody in here whom he could not reach by a reply.

use prometheus::IntCounter;

use super::address::Address;
use super::publication::Publication;
use super::record::reply_for_caller;
use crate::callers::{Caller, Callers, ReplyRecord};
use crate::telemetry::Metrics;

/// What key and framing add to a record, roughly and rather too much.
const RECORD_OVERHEAD: usize = 512;

/// Hands replies to callers of this process. Cheap to clone.
#[derive(Clone)]
pub(super) struct LocalReply {
    callers: Callers,
    /// Larger records may be refused, and then the caller is told that.
    largest: usize,
    answered: IntCounter,
}

impl LocalReply {
    /// `largest` is what a record may have in bytes, so that it is taken for sure.
    pub(super) fn new(callers: Callers, largest: usize, metrics: &Metrics) -> Self {
        Self { callers, largest, answered: metrics.shim_replies.with_label_values(&["direct"]) }
    }

    /// Answers the caller of a request that has come to its end, if he waits here.
    pub(super) fn answer(&self, publication: &mut Publication) {
        let Some(caller) = self.caller(publication) else { return };
        let reply =
            reply_for_caller(&publication.ending.request, &publication.correlation, &publication.ending.outcome);
        if size(&reply) <= self.largest && caller.answer(reply) {
            self.answered.inc();
            publication.answered = true;
        }
    }

    /// For a request that came over Kafka this ends at the address.
    fn caller(&self, publication: &Publication) -> Option<Caller<'_>> {
        let Address { topic, partition } = &publication.address;
        let is_for_the_door = self.callers.read_replies_of(topic, *partition);
        let is_final = || publication.parking().is_none() && !publication.ending.ticket.is_revoked();
        if is_for_the_door && is_final() { self.callers.of(&publication.ending.request) } else { None }
    }
}

/// What the record takes on the broker, at most.
fn size(reply: &ReplyRecord) -> usize {
    reply.headers.bytes() + reply.body.len() + RECORD_OVERHEAD
}
