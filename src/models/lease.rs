//! The right to call a model, which stays loaded while it is held.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::backend::ServerBackend;
use super::call::CallFailure;
use super::pool::PooledHost;
use super::residency::UseGuard;
use crate::invocation::body::Signature;
use crate::invocation::row_independence::RowIndependence;
use crate::invocation::{self, Answers, Call, LARGEST_REPLY, Several};
use crate::message::Reply;

/// Right to call a model, once at a time. While it is held the model stays loaded, and its place is taken by this
/// holder.
#[derive(Debug)]
pub struct Lease {
    version: Arc<str>,
    // Dropped before the guard: whoever waits for the end of all uses finds every host idle.
    backend: LeasedBackend,
    guard: Option<UseGuard>,
    row_independence: Arc<RowIndependence>,
    /// Bytes of the largest answer that is read.
    largest_answer: usize,
}

/// Backend that answers the calls of one lease.
#[derive(Debug)]
pub(super) enum LeasedBackend {
    Host(PooledHost),
    Server { backend: Arc<ServerBackend>, _permit: OwnedSemaphorePermit },
    Noop,
}

impl Lease {
    pub(super) fn new(
        version: &Arc<str>,
        backend: LeasedBackend,
        guard: Option<UseGuard>,
        row_independence: Arc<RowIndependence>,
    ) -> Self {
        Self { version: Arc::clone(version), backend, guard, row_independence, largest_answer: LARGEST_REPLY }
    }

    /// Limits the bytes that are read of an answer by HTTP.
    pub fn limit_answer(&mut self, bytes: usize) {
        self.largest_answer = bytes;
    }

    /// Returns the version of the model that answers.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// Tells whether the model is in a process of ours, which is ended when it does not answer in time.
    pub fn is_hosted(&self) -> bool {
        self.guard.is_some()
    }

    /// Tells whether the backend can be called once more.
    pub fn is_usable(&self) -> bool {
        !matches!(&self.backend, LeasedBackend::Host(host) if host.is_lost())
    }

    /// Returns the model's own description of its input, if that is known.
    pub fn signature(&self) -> Option<&Arc<Signature>> {
        self.guard.as_ref().and_then(|guard| guard.loaded().report.signature.as_ref())
    }

    /// Returns what is known about whether this version answers each row as if it were alone.
    pub fn row_independence(&self) -> &Arc<RowIndependence> {
        &self.row_independence
    }

    /// Calls the model, and waits for its answer.
    ///
    /// # Errors
    ///
    /// The failure of a call that got no prediction.
    pub async fn invoke(&mut self, call: &Call<'_>) -> Result<Reply, CallFailure> {
        self.invoke_for(call, Several::default()).await.map(|answers| answers.reply)
    }

    /// Calls the model for several requests. A host finds out which of them the model refuses, if any; any other
    /// backend refuses all of them or none.
    ///
    /// # Errors
    ///
    /// The failure of a call that got no prediction.
    pub async fn invoke_for(&mut self, call: &Call<'_>, several: Several<'_>) -> Result<Answers, CallFailure> {
        match &mut self.backend {
            // In boxes, so that requests which are not at a model, most of those under way, do not carry the room for
            // it.
            LeasedBackend::Host(host) => Box::pin(host.invoke(call, several)).await,
            LeasedBackend::Server { backend, .. } => {
                Box::pin(backend.invoke(call, self.largest_answer)).await.map(Answers::from)
            }
            LeasedBackend::Noop => Ok(invocation::noop().into()),
        }
    }
}
