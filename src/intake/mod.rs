//! Intake of requests: one thread reads the requests topic, and remembers of each partition which requests are under
//! way.
//!
//! The thread ([`Intake`]) owns the consumer and never stops polling, so no slow model costs the group membership. Each
//! partition that it owns is a [`lane`](lanes), whose [`Window`] knows which offsets are finished. A request travels
//! with a [`Ticket`]; only finishing the ticket lets the lane's commit move past the request.

mod budget;
mod committer;
mod consumer;
mod context;
mod error;
mod error_streak;
mod handoff;
mod lane;
mod lanes;
mod measure;
mod memory;
mod offsets;
mod partition_start;
mod partitions;
mod poison_pill;
mod poller;
mod position;
mod pressure;
mod record;
mod ticket;
mod topics;
mod whereabouts;
mod window;

pub use budget::Budget;
pub use consumer::Intake;
pub use error::IntakeError;
pub use measure::OversizedPart;
pub use memory::{ExpectedAnswers, Memory};
pub use offsets::{Offsets, StagedOffsets};
pub use partitions::{OldestRequest, PartitionReport, Partitions};
pub use position::{MAX_WINDOW, MetadataError, Position};
pub(crate) use record::copy_record;
pub use ticket::{LaneId, RequestPosition, Ticket};
pub use whereabouts::{Mark, Progress};
pub use window::{OffsetBegin, Window};

use crate::message::Request;

/// Consumer of requests, which the intake hands them to. Must not block: the polling thread calls it.
pub trait Handler: Send + Sync + 'static {
    /// Takes a request over. The request ends when the ticket is finished.
    fn accept(&self, request: Request, ticket: Ticket);

    /// Takes over a request that is not to be served, and answers it with the refusal.
    fn refuse(&self, request: Request, ticket: Ticket, refusal: RefusalReason);
}

/// Reason why a request is not to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// The in-flight limit is reached, and the embedded broker would drop a request that waits.
    NoRoom,
    /// The request's headers cannot be read, so its meaning is not known.
    UnreadableHeaders,
    /// The request is larger than `kafka.limits` allows. The headers that are left of it suffice to tell its caller so.
    TooLarge(OversizedPart),
    /// The request is a poison pill: it ended each process that ran it, alone at last.
    PoisonPill,
}
