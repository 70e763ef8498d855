//! The path of one request, from the record that was read to the ending that is published.

mod ask;
mod batch;
mod breaker;
mod call;
mod cause;
mod deadline;
mod fallback;
mod journey;
mod load;
mod retries;
mod shadow;
mod snapshot;
mod target;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use tokio::runtime::Handle;
use tracing::error;

use crate::canary::Canaries;
use crate::config::Config;
use crate::intake::{Handler, Refusal, Ticket};
use crate::message::{Code, Correlation, Fault, Outcome, Reply, Request, Stage};
use crate::models::{ModelUriError, Models};
use crate::replies::{Ending, Place, Publisher};
use crate::routing::RoutingTable;
use crate::telemetry::Metrics;
use journey::{Journey, Progress};
pub use shadow::Shadows;
use snapshot::Snapshot;

/// Takes requests from the intake and ends each one. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    shared: Arc<Shared>,
    runtime: Handle,
}

struct Shared {
    snapshot: ArcSwap<Snapshot>,
    publisher: Publisher,
    shadows: Shadows,
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
        models: &Models,
        canaries: &Canaries,
        publisher: Publisher,
        shadows: Shadows,
        metrics: &Metrics,
    ) -> Result<Self, ModelUriError> {
        let snapshot = Snapshot::new(config, table, models, metrics, None)?;
        canaries.set(snapshot.canaries());
        let shared = Shared { snapshot: ArcSwap::from_pointee(snapshot), publisher, shadows, metrics: metrics.clone() };
        Ok(Self { shared: Arc::new(shared), runtime: Handle::current() })
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
        let shared = self.shared.clone();
        let place = shared.publisher.place(&request, &ticket);
        self.runtime.spawn(async move { shared.serve(request, ticket, place).await });
    }

    fn refuse(&self, request: Request, ticket: Ticket, refusal: Refusal) {
        let fault = refused(refusal);
        let shared = self.shared.clone();
        let place = shared.publisher.place(&request, &ticket);
        let end = async move { shared.end(Arc::new(request), ticket, place, Progress::default(), Err(fault)).await };
        self.runtime.spawn(end);
    }
}

impl Shared {
    async fn serve(&self, request: Request, ticket: Ticket, place: Option<Place>) {
        let request = Arc::new(request);
        let mut progress = Progress::default();
        let snapshot = self.snapshot.load_full();
        let mut journey =
            Journey { snapshot: &snapshot, metrics: &self.metrics, request: &request, progress: &mut progress };
        // A defect met by one request must not leave it unanswered, nor take others down.
        let answer = AssertUnwindSafe(journey.answer()).catch_unwind().await;
        let result = answer.unwrap_or_else(|_| Err(defect(&request)));
        let copy = snapshot.copy(&request, &progress, &result);
        self.end(request, ticket, place, progress, result).await;
        if let Some(copy) = copy {
            self.shadows.send(copy);
        }
    }

    /// Publishes what a request ended in, or makes a dead letter of it when its caller may not be answered there.
    async fn end(
        &self,
        request: Arc<Request>,
        ticket: Ticket,
        place: Option<Place>,
        progress: Progress,
        result: Result<Reply, Fault>,
    ) {
        let correlation = Correlation::of(&request);
        let address = self.publisher.address(&correlation);
        let outcome = Outcome { served_by: progress.served_by, result };
        let ending = Ending { request, outcome, ticket, metrics: progress.metrics, place };
        match address {
            Ok(address) => self.publisher.publish(ending, correlation, address).await,
            Err(fault) => self.publisher.dead_letter(ending, correlation, fault).await,
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
