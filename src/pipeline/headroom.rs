//! Memory headroom: a model is called only once there is memory for its answer.

use tokio::select;

use crate::intake::{ExpectedAnswers, Ticket};
use crate::message::{Deadline, Fault};
use crate::models::{Lease, ModelHandle};
use crate::replies::OrderPlace;

/// Claims memory for the answer of one request.
///
/// While answers take too much memory, no model is called (back-pressure), except for a request that earlier answers wait
/// for in the order of leaving: they are published only once its own answer has been.
#[derive(Clone, Copy)]
pub(super) struct Headroom<'a> {
    pub(super) ticket: &'a Ticket,
    pub(super) place: Option<&'a OrderPlace>,
}

impl Headroom<'_> {
    /// Takes a lease of the model for one call, once there is memory for the answer. No request holds a lease while there
    /// is none: a request that may go on could need that lease.
    pub(super) async fn lease(
        self,
        model: &ModelHandle,
        deadline: Deadline,
    ) -> Result<(Lease, ExpectedAnswers), Fault> {
        loop {
            deadline.until(self.wait()).await;
            let lease = model.lease(deadline).await?;
            // The memory may have been used up while the lease was waited for.
            if self.is_available() || deadline.is_over() {
                return Ok((lease, self.expect(1)));
            }
        }
    }

    /// Reserves memory for the answers of a number of calls.
    pub(super) fn expect(self, calls: usize) -> ExpectedAnswers {
        self.ticket.memory().expect(calls)
    }

    async fn wait(&self) {
        loop {
            // Both futures are made before the check, so that no change after it is missed.
            let (freed, moved) = (self.ticket.memory().freed(), self.place.map(OrderPlace::moved));
            if self.is_available() {
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

    fn is_available(&self) -> bool {
        !self.ticket.memory().is_crowded() || self.place.is_some_and(OrderPlace::is_waited_for)
    }
}
