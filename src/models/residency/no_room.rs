//! Faults for the requests that wait for a model when there is no room for it.

use std::time::Duration;

use super::policy::RoomRefusal;
use crate::invocation::in_words;
use crate::message::Fault;
use crate::models::faults::unavailable;

/// Builds the fault of a load that found no room for as long as a load waits.
pub(super) fn full(name: &str, patience: Duration) -> Fault {
    unavailable(format!(
        "there is no room for {name}: for {} every model that is loaded has been in use, being loaded, or too new to go; come back \
         later, or raise models.memory_limit",
        in_words(patience)
    ))
    .with_retry_after(Duration::from_secs(2))
}

/// Builds the fault of a load for which there will be no room, or not soon.
pub(super) fn refused(name: &str, refusal: &RoomRefusal) -> Fault {
    let (advice, after) = match refusal {
        RoomRefusal::TooLarge { .. } | RoomRefusal::Pinned { .. } => {
            ("raise models.memory_limit", Duration::from_secs(60))
        }
        RoomRefusal::Thrash { retry_after } => ("come back later", (*retry_after).max(Duration::from_secs(1))),
    };
    unavailable(format!("there is no room for {name}: {refusal}; {advice}")).with_retry_after(after)
}
