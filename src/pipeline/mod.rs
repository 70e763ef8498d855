//! The path of one request, from the record that was read to the ending that is published.

mod admission;
mod attempt;
mod deadline;
mod dispatch;
mod headroom;
mod retry_topics;
mod route;
mod shadow;
mod snapshot;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::error;

use crate::callers::Callers;
use crate::canary::Canaries;
use crate::config::Config;
use crate::intake::{Handler, Refusal, Ticket};
use crate::message::{Code, Correlation, Fault, Outcome, Request, Stage};
use crate::models::{ModelUriError, Models};
use crate::replies::{Ending, Place, Publisher};
use crate::routing::RoutingTable;
use crate::telemetry::Metrics;
use headroom::Headroom;
use dispatch::{Journey, Progress};
use retry_topics::{Next, RetryTopics};
use admission::Room;
pub use shadow::Shadows;
use snapshot::Snapshot;

/// How many requests are begun before those of other tasks have their turn.
const AT_ONCE: usize = 32;

/// Takes requests from the intake and ends each one. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    shared: Arc<Shared>,
    accepted: UnboundedSender<Accepted>,
}

/// A request that is about to be served. What is in flight is bounded by the intake, so no channel of them has to be.
struct Accepted {
    request: Request,
    ticket: Ticket,
    place: Option<Place>,
}

/// What a pipeline stands between.
pub struct PipelineParts<'a> {
    /// What its routes point at.
    pub models: &'a Models,
    /// Which of its routes have shares that move.
    pub canaries: &'a Canaries,
    /// Where requests end.
    pub publisher: Publisher,
    /// Where copies of them go.
    pub shadows: Shadows,
    /// Who does not wait for the end any more.
    pub callers: Callers,
}

struct Shared {
    snapshot: ArcSwap<Snapshot>,
    publisher: Publisher,
    shadows: Shadows,
    retry_topics: RetryTopics,
    room: Room,
    callers: Callers,
    metrics: Metrics,
}

impl Pipeline {
    /// Binds each route of the table to its model and its metrics.
    ///
    /// # Errors
    /// When a model URI cannot be read, which a checked config rules out.
    pub fn new(
        config: &Config,
        table: RoutingTable,
        parts: PipelineParts<'_>,
        metrics: &Metrics,
    ) -> Result<Self, ModelUriError> {
        let PipelineParts { models, canaries, publisher, shadows, callers } = parts;
        let snapshot = Snapshot::new(config, table, models, metrics, None)?;
        canaries.set(snapshot.canaries());
        let shared = Shared {
            snapshot: ArcSwap::from_pointee(snapshot),
            publisher,
            shadows,
            retry_topics: RetryTopics::new(&config.kafka),
            room: Room::new(&config.kafka),
            callers,
            metrics: metrics.clone(),
        };
        let (accepted, receiver) = unbounded_channel();
        let shared = Arc::new(shared);
        tokio::spawn(shared.clone().serve_all(receiver));
        Ok(Self { shared, accepted })
    }

    /// Serves by another configuration from now on. A request goes on with the one that it began with.
    ///
    /// # Errors
    /// When a model URI cannot be read, which a checked config rules out; then nothing changes.
    pub fn reload(
        &self,
        config: &Config,
        table: RoutingTable,
        models: &Models,
        canaries: &Canaries,
        metrics: &Metrics,
    ) -> Result<(), ModelUriError> {
        let before = self.shared.snapshot.load_full();
        let snapshot = Snapshot::new(config, table, models, metrics, Some(&before))?;
        canaries.set(snapshot.canaries());
        self.shared.snapshot.store(Arc::new(snapshot));
        Ok(())
    }
}

impl Handler for Pipeline {
    fn accept(&self, request: Request, ticket: Ticket) {
        let place = self.shared.publisher.place(&request, &ticket);
        // Nobody takes it only when the runtime is gone, and with it whatever could serve the request.
        let _ = self.accepted.send(Accepted { request, ticket, place });
    }

    fn refuse(&self, request: Request, ticket: Ticket, refusal: Refusal) {
        let fault = refused(refusal);
        let next = if refusal == Refusal::Deadly { Next::Bury } else { Next::Publish };
        let place = self.shared.publisher.place(&request, &ticket);
        let (progress, request) = (Progress::of(&request), Arc::new(request));
        let outcome = Outcome { served_by: progress.served_by, result: Err(fault) };
        let ending = Ending { request, outcome, ticket, metrics: None, place };
        self.shared.end(ending, next);
    }
}

impl Shared {
    /// Gives each request a task of its own. A task that is begun on one of the runtime's own threads costs a fraction of
    /// one that the intake's thread begins, whose every word goes through a lock that all of them share.
    async fn serve_all(self: Arc<Self>, mut accepted: UnboundedReceiver<Accepted>) {
        let mut some = Vec::with_capacity(AT_ONCE);
        while accepted.recv_many(&mut some, AT_ONCE).await > 0 {
            for accepted in some.drain(..) {
                // In a box: the runtime moves what it is given several times, and this is large.
                tokio::spawn(Box::pin(self.clone().serve(accepted)));
            }
        }
    }

    async fn serve(self: Arc<Self>, Accepted { request, mut ticket, place }: Accepted) {
        let request = Arc::new(request);
        let mut progress = Progress::of(&request);
        let snapshot = self.snapshot.load_full();
        let mut journey = Journey {
            snapshot: &snapshot,
            metrics: &self.metrics,
            room: &self.room,
            headroom: Headroom { ticket: &ticket, place: place.as_ref() },
            request: &request,
            caller: self.callers.of(&request),
            progress: &mut progress,
        };
        // A defect met by one request must not leave it unanswered, nor take others down.
        let answer = AssertUnwindSafe(journey.answer()).catch_unwind().await;
        let result = answer.unwrap_or_else(|_| Err(defect(&request)));
        ticket.hold_answer(result.as_ref().map_or(0, |reply| reply.body.len()));
        let is_abandoned = result.as_ref().is_err_and(|fault| fault.code == Code::Cancelled);
        self.metrics.abandoned.inc_by(u64::from(is_abandoned));
        let next = match &result {
            Ok(_) => Next::Publish,
            Err(_) if progress.is_behind => self.retry_topics.overflow(&request),
            Err(fault) => self.retry_topics.failed(&request, fault),
        };
        let copy = match next {
            Next::Publish | Next::Bury if !is_abandoned => snapshot.copy(&request, &progress, &result),
            Next::Publish | Next::Bury | Next::Park(_) => None,
        };
        let outcome = Outcome { served_by: progress.served_by, result };
        self.end(Ending { request, outcome, ticket, metrics: progress.metrics, place }, next);
        if let Some(copy) = copy {
            self.shadows.send(copy);
        }
    }

    /// Publishes what a request ended in or puts it aside, or makes a dead letter of it when its caller may not be answered
    /// there.
    fn end(&self, ending: Ending, next: Next) {
        let correlation = Correlation::of(&ending.request);
        let buried = match (&next, &ending.outcome.result) {
            (Next::Bury, Err(fault)) => Some(fault.clone()),
            _ => None,
        };
        match (self.publisher.address(&correlation), buried, next) {
            (Err(fault), ..) | (_, Some(fault), _) => self.publisher.dead_letter(ending, correlation, fault),
            (Ok(address), None, Next::Park(parking)) => {
                self.publisher.park(ending, correlation, parking, address);
            }
            (Ok(address), None, Next::Publish | Next::Bury) => {
                self.publisher.publish(ending, correlation, address);
            }
        }
    }
}

fn refused(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::NoRoom => Fault::passing(
            Code::ResourceExhausted,
            Stage::Route,
            "more requests are under way than kafka.max_in_flight allows, and the embedded broker keeps no backlog; \
             come back later, or use a real Kafka",
        )
        .with_retry_after(Duration::from_secs(1)),
        Refusal::Deadly => Fault::permanent(
            Code::InternalError,
            Stage::Invoke,
            "every process that ran this request has ended by it, the last ones while they ran nothing else",
        ),
        Refusal::TooLarge(excess) => Fault::permanent(
            Code::PayloadTooLarge,
            Stage::Route,
            format!("{excess}; send it in parts, or raise the limit"),
        ),
        Refusal::UnreadableHeaders => Fault::permanent(
            Code::BadRequest,
            Stage::Route,
            "the record's headers cannot be read: a header name is not UTF-8 text",
        ),
    }
}

fn defect(request: &Request) -> Fault {
    error!(source = %request.source, "a defect of signalbox was met by this request");
    Fault::permanent(Code::InternalError, Stage::Route, "signalbox itself failed on this request; see its log")
}
