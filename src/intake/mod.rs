//! Requests in: one thread reads the requests topic, and remembers of each partition what is under way.
//!
//! The thread ([`Intake`]) owns the consumer and never stops polling, so no slow model costs the group membership. Each
//! partition it owns is a [`lane`](lanes), whose [`Window`] knows which offsets are finished. A request travels
//! with a [`Ticket`]; finishing the ticket is what lets the lane's commit move past the request, and nothing else does.

mod budget;
mod committer;
mod consumer;
mod context;
mod error;
mod error_streak;
mod handoff;
mod lanes;
mod measure;
mod memory;
mod offsets;
mod partition_start;
mod poison_pill;
mod poller;
mod position;
mod pressure;
mod record;
mod ticket;
mod topics;
mod window;

pub use budget::Budget;
pub use consumer::Intake;
pub use error::IntakeError;
pub use measure::Excess;
pub use memory::{Expected, Memory};
pub use offsets::{Offsets, PartitionGone, StagedOffsets};
pub use position::{MAX_WINDOW, Position, Unreadable};
pub(crate) use record::request_from;
pub use ticket::{LaneId, RequestPosition, Ticket};
pub use window::{Begun, Window};

use crate::message::Request;

/// What the intake hands requests to. It must not block: it is called by the polling thread.
pub trait Handler: Send + Sync + 'static {
    /// Takes a request over. It ends when the ticket is finished.
    fn accept(&self, request: Request, ticket: Ticket);

    /// Takes a request over that is not to be served, to answer it so.
    fn refuse(&self, request: Request, ticket: Ticket, refusal: Refusal);
}

/// Why a request is not to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The in-flight limit is reached, and the embedded broker would drop what waits.
    NoRoom,
    /// Its headers cannot be read, so nobody knows what it asks for.
    UnreadableHeaders,
    /// It is larger than `kafka.limits` allows. What is left of it is what its caller can be told by.
    TooLarge(Excess),
    /// It was the end of each process that ran it, alone at last.
    Deadly,
}
