//! What whoever waits for a model is told when there is no room for it.

use std::time::Duration;

use crate::invocation::in_words;
use crate::message::{Code, Fault, Stage};
use crate::models::residency::Refusal;

/// There was none for as long as a load waits.
pub(super) fn full(name: &str, patience: Duration) -> Fault {
    let message = format!(
        "there is no room for {name}: for {} every model that is loaded has been in use, being loaded, or too new to go; come back \
         later, or raise models.memory_limit",
        in_words(patience)
    );
    Fault::passing(Code::TemporarilyUnavailable, Stage::Load, message).with_retry_after(Duration::from_secs(2))
}

/// There will be none, or not soon.
pub(super) fn refused(name: &str, refusal: &Refusal) -> Fault {
    let message = format!("there is no room for {name}: {refusal}");
    match refusal {
        Refusal::TooLarge { .. } | Refusal::Pinned { .. } => {
            Fault::passing(Code::TemporarilyUnavailable, Stage::Load, format!("{message}; raise models.memory_limit"))
                .with_retry_after(Duration::from_secs(60))
        }
        Refusal::Thrash { retry_after } => {
            Fault::passing(Code::TemporarilyUnavailable, Stage::Load, format!("{message}; come back later"))
                .with_retry_after((*retry_after).max(Duration::from_secs(1)))
        }
    }
}
