//! The ways for a request to reach its model: a lease of its own, or a ticket of a batch.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::intake::ExpectedAnswers;
use crate::invocation::body::JoinKey;
use crate::message::Reply;
use crate::models::{CallFailure, Lease};

/// Gives a request its turn at the model.
pub(in crate::pipeline) enum ModelAccess {
    /// A lease for a call of the request's own, with the memory reserved for the answer, and with facts about the
    /// request if the batcher has read it.
    Single(Lease, ExpectedAnswers, Option<SingleCall>),
    /// A ticket of the batch that takes the request along.
    Batched(BatchTicket),
}

/// Entitles a request to its answer out of a batch.
#[derive(Debug)]
pub(in crate::pipeline) struct BatchTicket {
    /// Version of the model that answers.
    pub(in crate::pipeline) version: Arc<str>,
    /// Channel of the answer; closed without one when the task of the batch is lost.
    pub(in crate::pipeline) answer: oneshot::Receiver<BatchAnswer>,
}

/// Holds the outcome of one request of a batch.
#[derive(Debug)]
pub(in crate::pipeline) struct BatchAnswer {
    pub(in crate::pipeline) result: Result<Reply, CallFailure>,
    /// Number of calls that the request was part of.
    pub(in crate::pipeline) calls: u32,
    /// Duration of the last of them.
    pub(in crate::pipeline) took: Duration,
    /// Tells whether the failure may be another request's doing, so that this one has to be called alone.
    pub(in crate::pipeline) in_batch: bool,
}

/// Describes a request that is called by itself.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::pipeline) struct SingleCall {
    pub(super) rows: usize,
    /// Kind of the request, where most requests of that kind are refused.
    pub(super) suspected: Option<JoinKey>,
}
