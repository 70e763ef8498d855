//! The path of one request, from the record that was read to the reply or fault that is published.
//!
//! The files of this folder are the steps of one request; the folder `route` holds the live state of one route.

mod admission;
mod attempt;
mod cancellation;
mod dispatch;
mod explain;
mod headroom;
mod retry_topics;
mod route;
mod shadow;
mod snapshot;
mod trace;

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
use crate::evaluators::Evaluators;
use crate::intake::{Handler, Mark, Progress, RefusalReason, Ticket};
use crate::message::{Code, Correlation, Fault, Outcome, Request, Stage};
use crate::models::{ModelUriError, Models};
use crate::replies::{FinishedRequest, OrderPlace, Publisher};
use crate::routing::RoutingTable;
use crate::telemetry::Metrics;
use admission::AdmissionControl;
use cancellation::Cancellation;
use dispatch::RequestDispatch;
use headroom::Headroom;
use retry_topics::{Disposition, RetryTopics};
use shadow::ShadowCopy;
pub use shadow::ShadowSender;
use snapshot::Snapshot;
use trace::RequestTrace;

/// Requests that are begun in a row; after so many the tasks of others have their turn.
const AT_ONCE: usize = 32;

/// Takes requests from the intake and ends each one. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    shared: Arc<Shared>,
    accepted: UnboundedSender<Accepted>,
}

/// Holds a request that is about to be served. The intake bounds the requests in flight, so no channel of them has to be
/// bounded.
struct Accepted {
    request: Request,
    ticket: Ticket,
    place: Option<OrderPlace>,
}

/// Names the neighbours of a pipeline.
pub struct PipelineParts<'a> {
    /// Models that its routes point at.
    pub models: &'a Models,
    /// Evaluators of what conditions leave to Python.
    pub evaluators: Evaluators,
    /// Canaries, which are given the routes whose shares move.
    pub canaries: &'a Canaries,
    /// Publisher of replies and faults.
    pub publisher: Publisher,
    /// Sender of copies to shadow routes.
    pub shadows: ShadowSender,
    /// HTTP callers, each of which may hang up before its request has ended.
    pub callers: Callers,
}

struct Shared {
    snapshot: ArcSwap<Snapshot>,
    publisher: Publisher,
    shadows: ShadowSender,
    retry_topics: RetryTopics,
    admission: AdmissionControl,
    evaluators: Evaluators,
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
        let PipelineParts { models, evaluators, canaries, publisher, shadows, callers } = parts;
        let snapshot = Snapshot::new(config, table, models, metrics, None)?;
        canaries.set(snapshot.canaries());
        let shared = Shared {
            snapshot: ArcSwap::from_pointee(snapshot),
            publisher,
            shadows,
            retry_topics: RetryTopics::new(&config.kafka),
            admission: AdmissionControl::new(&config.kafka),
            evaluators,
            callers,
            metrics: metrics.clone(),
        };
        let (accepted, receiver) = unbounded_channel();
        let shared = Arc::new(shared);
        tokio::spawn(shared.clone().serve_all(receiver));
        Ok(Self { shared, accepted })
    }

    /// Serves by another configuration from now on. A request goes on with the snapshot that it began with.
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
        // The send fails only when the runtime is gone, and with it every task that could serve the request.
        let _ = self.accepted.send(Accepted { request, ticket, place });
    }

    fn refuse(&self, request: Request, ticket: Ticket, refusal: RefusalReason) {
        let fault = refused(refusal);
        let disposition =
            if refusal == RefusalReason::PoisonPill { Disposition::DeadLetter } else { Disposition::Reply };
        let place = self.shared.publisher.place(&request, &ticket);
        let (trace, request) = (RequestTrace::of(&request), Arc::new(request));
        let outcome = Outcome { served_by: trace.served_by, result: Err(fault) };
        let ending = FinishedRequest { request, outcome, ticket, metrics: None, place };
        self.shared.end(ending, disposition);
    }
}

impl Shared {
    /// Gives each request a task of its own. A task that is begun on one of the runtime's own threads costs a fraction
    /// of one that the intake's thread begins, whose every call goes through a lock that all threads share.
    async fn serve_all(self: Arc<Self>, mut accepted: UnboundedReceiver<Accepted>) {
        let mut received = Vec::with_capacity(AT_ONCE);
        while accepted.recv_many(&mut received, AT_ONCE).await > 0 {
            for accepted in received.drain(..) {
                // The future is boxed: it is large, and the runtime moves it several times.
                tokio::spawn(Box::pin(self.clone().serve(accepted)));
            }
        }
    }

    async fn serve(self: Arc<Self>, Accepted { request, mut ticket, place }: Accepted) {
        let request = Arc::new(request);
        let mut trace = RequestTrace::of(&request);
        let snapshot = self.snapshot.load_full();
        let mut dispatch = RequestDispatch {
            snapshot: &snapshot,
            metrics: &self.metrics,
            admission: &self.admission,
            evaluators: &self.evaluators,
            headroom: Headroom { ticket: &ticket, place: place.as_ref() },
            request: &request,
            cancellation: Cancellation(self.callers.of(&request)),
            trace: &mut trace,
        };
        // A defect met by one request must not leave it unanswered, nor take others down.
        let answer = AssertUnwindSafe(dispatch.answer()).catch_unwind().await;
        let result = answer.unwrap_or_else(|_| Err(defect(&request)));
        ticket.mark(Mark { progress: Progress::Publishing, place: trace.place });
        ticket.hold_answer(result.as_ref().map_or(0, |reply| reply.body.len()));
        let is_cancelled = result.as_ref().is_err_and(|fault| fault.code == Code::Cancelled);
        self.metrics.abandoned.inc_by(u64::from(is_cancelled));
        let disposition = match &result {
            Ok(_) => Disposition::Reply,
            Err(_) if trace.overflows => self.retry_topics.overflow(&request),
            Err(fault) => self.retry_topics.failed(&request, fault),
        };
        // A request that is put aside is copied when it comes back and has ended.
        let copy = match disposition {
            Disposition::Reply | Disposition::DeadLetter if !is_cancelled => {
                ShadowCopy::of(&snapshot, &request, &trace, &result)
            }
            Disposition::Reply | Disposition::DeadLetter | Disposition::Retry(_) => None,
        };
        let outcome = Outcome { served_by: trace.served_by, result };
        self.end(FinishedRequest { request, outcome, ticket, metrics: trace.metrics, place }, disposition);
        if let Some(copy) = copy {
            self.shadows.send(copy);
        }
    }

    /// Publishes the reply or fault of a request or puts the request aside, or makes a dead letter of it when its
    /// caller may not be answered at its address.
    fn end(&self, ending: FinishedRequest, disposition: Disposition) {
        let correlation = Correlation::of(&ending.request);
        let dead = match (&disposition, &ending.outcome.result) {
            (Disposition::DeadLetter, Err(fault)) => Some(fault.clone()),
            _ => None,
        };
        match (self.publisher.address(&correlation), dead, disposition) {
            (Err(fault), ..) | (_, Some(fault), _) => self.publisher.dead_letter(ending, correlation, fault),
            (Ok(address), None, Disposition::Retry(parking)) => {
                self.publisher.park(ending, correlation, parking, address);
            }
            (Ok(address), None, Disposition::Reply | Disposition::DeadLetter) => {
                self.publisher.publish(ending, correlation, address);
            }
        }
    }
}

fn refused(refusal: RefusalReason) -> Fault {
    match refusal {
        RefusalReason::NoRoom => Fault::passing(
            Code::ResourceExhausted,
            Stage::Route,
            "more requests are under way than kafka.max_in_flight allows, and the embedded broker keeps no backlog; \
             come back later, or use a real Kafka",
        )
        .with_retry_after(Duration::from_secs(1)),
        RefusalReason::PoisonPill => Fault::permanent(
            Code::InternalError,
            Stage::Invoke,
            "every process that ran this request has ended by it, the last ones while they ran nothing else",
        ),
        RefusalReason::TooLarge(excess) => Fault::permanent(
            Code::PayloadTooLarge,
            Stage::Route,
            format!("{excess}; send it in parts, or raise the limit"),
        ),
        RefusalReason::UnreadableHeaders => Fault::permanent(
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
