//! Cancellation of a request whose HTTP caller has disconnected.

use std::pin::Pin;

use tokio::select;

use crate::callers::Caller;
use crate::message::{Code, Fault, Stage};

/// Ends a request's work once its HTTP caller disconnects; a request without one is never cancelled.
#[derive(Clone, Copy)]
pub(super) struct Cancellation<'a>(pub(super) Option<Caller<'a>>);

impl Cancellation<'_> {
    /// Checks that the caller still waits.
    ///
    /// # Errors
    /// `CANCELLED`, when the caller has hung up.
    pub(super) fn check(&self, stage: Stage) -> Result<(), Fault> {
        match self.0.is_some_and(|caller| caller.has_hung_up()) {
            true => Err(cancelled(stage)),
            false => Ok(()),
        }
    }

    /// Runs `work` unless the caller disconnects first.
    ///
    /// # Errors
    /// `CANCELLED`, when the caller hangs up before `work` is done.
    pub(super) async fn unless_cancelled<T>(&self, work: Pin<&mut impl Future<Output = T>>) -> Result<T, Fault> {
        let Some(caller) = self.0 else { return Ok(work.await) };
        select! {
            biased;
            done = work => Ok(done),
            () = caller.hung_up() => Err(cancelled(Stage::Invoke)),
        }
    }
}

fn cancelled(stage: Stage) -> Fault {
    Fault::permanent(Code::Cancelled, stage, "the caller has hung up, so no model is called for this request any more")
}
