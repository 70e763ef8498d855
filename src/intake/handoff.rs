//! Handing a record over to the pipeline, once its lane may run it.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use tracing::{error, warn};

use super::context::{IntakeContext, IntakeState};
use super::lane::{Due, HeldRecord};
use super::poison_pill::IsolatedRun;
use super::ticket::{Assignment, Completion, LaneId, Ticket};
use super::window::OffsetBegin;
use super::{Handler, RefusalReason};
use crate::message::Request;

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
        let no_room = (state.budget.is_full() && self.embedded).then_some(RefusalReason::NoRoom);
        let ticket = self.ticket(state, assignment, &held, now);
        self.hand_over(held.request, ticket, held.refusal.or(no_room));
        Offer::Done
    }

    /// Counts a request that has begun, and gives the lock back.
    fn ticket(
        &self,
        mut state: MutexGuard<'_, IntakeState>,
        assignment: Arc<Assignment>,
        held: &HeldRecord,
        now: Instant,
    ) -> Ticket {
        let bytes = held.request.size();
        state.take(assignment.lane, bytes);
        let memory = state.budget.memory().clone();
        drop(state);
        Ticket::new(assignment, held.offset, bytes, now, self.completions.clone(), memory)
    }

    /// Gives a request to the pipeline.
    fn hand_over(&self, request: Request, ticket: Ticket, refusal: Option<RefusalReason>) {
        match refusal {
            Some(refusal) => self.handler.refuse(request, ticket, refusal),
            None => self.handler.accept(request, ticket),
        }
    }

    /// Runs a suspected request alone, or refuses it as a poison pill.
    pub(super) fn run_alone(&self, context: &IntakeContext, id: LaneId, held: HeldRecord, run: IsolatedRun) {
        let now = Instant::now();
        let mut state = context.state();
        let Some(lane) = state.lanes.quarantined(id) else { return };
        if lane.window.begin(held.offset, now) != OffsetBegin::New {
            return state.lanes.release_if_cleared(id);
        }
        let assignment = lane.assignment.clone();
        let ticket = self.ticket(state, assignment, &held, now);
        let HeldRecord { request, refusal, .. } = held;
        // The line comes before the request, which may end this process as well.
        let refusal = match run {
            IsolatedRun::Never => {
                error!(source = %request.source, "a request was the end of each process that ran it; it becomes a dead letter");
                Some(RefusalReason::PoisonPill)
            }
            IsolatedRun::Alone => {
                warn!(source = %request.source, "several processes have ended while this request was under way; it is run alone");
                refusal
            }
        };
        self.hand_over(request, ticket, refusal);
    }
}
