//! The memory there must be for an answer before a model is called for it.

use tokio::select;
use tokio::time::Instant;

use super::attempt::is_over;
use crate::intake::{Expected, Ticket};
use crate::message::Fault;
use crate::models::{Lease, ModelHandle, until};
use crate::replies::Place;

/// One request's claim to memory for its answer.
///
/// While answers take too much, no model is called, but for a request which earlier answers wait for in the order of
/// leaving: they go only once it has gone.
#[derive(Clone, Copy)]
pub(super) struct Headroom<'a> {
    pub(super) ticket: &'a Ticket,
    pub(super) place: Option<&'a Place>,
}

impl Headroom<'_> {
    /// A lease of the model for one call, once there is memory for what it will say. Nobody holds a lease while there is
    /// none: who may go on could need it.
    pub(super) async fn lease(
        self,
        model: &ModelHandle,
        deadline: Option<Instant>,
    ) -> Result<(Lease, Expected), Fault> {
        loop {
            until(deadline, self.wait()).await;
            let lease = model.lease(deadline).await?;
            if self.is_there() || is_over(deadline) {
                return Ok((lease, self.expect(1)));
            }
        }
    }

    /// Counts so many calls.
    pub(super) fn expect(self, calls: usize) -> Expected {
        self.ticket.memory().expect(calls)
    }

    async fn wait(&self) {
        loop {
            let (freed, moved) = (self.ticket.memory().freed(), self.place.map(Place::moved));
            if self.is_there() {
                return;
            }
            match moved {
                Some(moved) => select! {
                    () = freed => {}
                    () = moved => {}
                },
                None => freed.await,
            }
        }
    }

    fn is_there(&self) -> bool {
        !self.ticket.memory().is_crowded() || self.place.is_some_and(Place::is_waited_for)
    }
}
