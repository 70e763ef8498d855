//! Handing a record over to the pipeline, once its lane may run it.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::context::IntakeContext;
use super::lanes::{Due, HeldRecord};
use super::poison_pill::IsolatedRun;
use super::ticket::{Completion, LaneId, Ticket};
use super::window::OffsetBegin;
use super::{Handler, RefusalReason};

/// Time for which an overflow lane rests while overflow requests have taken their whole share of the window.
const OVERFLOW_REST: Duration = Duration::from_millis(20);

/// Result of offering a record to the pipeline.
pub(super) enum Offer {
    /// The pipeline has the record, or it needs no run.
    Done,
    /// The record has to wait.
    Wait(HeldRecord),
    /// The record lies before what was read already.
    Back(HeldRecord),
    /// The record may run, but its value was not copied; its offset.
    Unread(i64),
}

/// Hands records over to the pipeline, each with the ticket that reports its end.
pub(super) struct Handoff {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) completions: Sender<Completion>,
    pub(super) embedded: bool,
}

impl Handoff {
    /// Offers a record to the pipeline. Returns the record when it has to wait.
    pub(super) fn offer(&self, context: &IntakeContext, id: LaneId, held: HeldRecord, now: Instant) -> Offer {
        if held.due.is_some_and(|due| due.at > now) {
            return Offer::Wait(held);
        }
        let offset = held.offset;
        let mut state = context.state();
        if id.is_overflow() && state.overflow.is_full() {
            // The route of an overflow request is overloaded anyway, so a short rest costs it nothing.
            return Offer::Wait(HeldRecord {
                due: Some(Due { at: now + OVERFLOW_REST, rest: Duration::ZERO }),
                ..held
            });
        }
        let Some(lane) = state.lanes.runnable(id, offset) else { return Offer::Wait(held) };
        if !held.is_whole {
            return Offer::Unread(offset);
        }
        match lane.window.begin(offset, now) {
            OffsetBegin::TooFar => return Offer::Wait(held),
            OffsetBegin::Back => return Offer::Back(held),
            OffsetBegin::Seen => return Offer::Done,
            OffsetBegin::New => {}
        }
        let assignment = lane.assignment.clone();
        // Fullness is read before this request is counted, or a single large request would refuse itself.
        let full = state.budget.is_full();
        let bytes = held.request.size();
        state.take(id, bytes);
        let memory = state.budget.memory().clone();
        drop(state);
        let ticket = Ticket::new(assignment, offset, bytes, now, self.completions.clone(), memory);
        let HeldRecord { request, refusal, .. } = held;
        match refusal.or((full && self.embedded).then_some(RefusalReason::NoRoom)) {
            Some(refusal) => self.handler.refuse(request, ticket, refusal),
            None => self.handler.accept(request, ticket),
        }
        Offer::Done
    }

    /// Runs a suspected request alone, or refuses it as a poison pill.
    pub(super) fn run_alone(&self, context: &IntakeContext, id: LaneId, held: HeldRecord, run: IsolatedRun) {
        let HeldRecord { request, offset, refusal, .. } = held;
        let (bytes, now) = (request.size(), Instant::now());
        let mut state = context.state();
        let Some(lane) = state.lanes.quarantined(id) else { return };
        if lane.window.begin(offset, now) != OffsetBegin::New {
            return state.lanes.release_if_cleared(id);
        }
        let assignment = lane.assignment.clone();
        state.take(id, bytes);
        let memory = state.budget.memory().clone();
        drop(state);
        let ticket = Ticket::new(assignment, offset, bytes, now, self.completions.clone(), memory);
        match run {
            IsolatedRun::Never => {
                error!(source = %request.source, "a request was the end of each process that ran it; it becomes a dead letter");
                self.handler.refuse(request, ticket, RefusalReason::PoisonPill);
            }
            IsolatedRun::Alone => {
                warn!(source = %request.source, "several processes have ended while this request was under way; it is run alone");
                match refusal {
                    Some(refusal) => self.handler.refuse(request, ticket, refusal),
                    None => self.handler.accept(request, ticket),
                }
            }
        }
    }
}
