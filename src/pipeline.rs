//! The path of one request, from the record that was read to the ending that is published.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt;
use prometheus::IntCounter;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tracing::error;

use crate::config::Config;
use crate::intake::{Handler, Refusal, Ticket};
use crate::invocation::Call;
use crate::message::{Code, Correlation, Fault, Outcome, Reply, Request, ServedBy, Stage, header};
use crate::models::{CallFailure, HandleOptions, Lease, ModelHandle, ModelUri, ModelUriError, Models};
use crate::replies::{Ending, Publisher};
use crate::routing::{Endpoint, Reason, RoutingTable};
use crate::telemetry::{Metrics, RouteMetrics};

/// How often a request is given to a model whose process crashes on the way.
const MAX_ATTEMPTS: u32 = 2;

/// Takes requests from the intake and ends each one. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    shared: Arc<Shared>,
    runtime: Handle,
}

struct Shared {
    table: RoutingTable,
    /// What stands behind each route, by endpoint and route, in the order of the table.
    targets: Vec<Vec<Target>>,
    publisher: Publisher,
    metrics: Metrics,
}

/// What stands behind a route.
struct Target {
    model: ModelHandle,
    metrics: Arc<RouteMetrics>,
    /// How often it was chosen, by [`Reason`].
    decisions: [IntCounter; Reason::ALL.len()],
    /// How often its condition failed on a request and was skipped.
    condition_skips: IntCounter,
}

/// How far a request has come, for the headers of its ending.
#[derive(Default)]
struct Progress {
    served_by: ServedBy,
    metrics: Option<Arc<RouteMetrics>>,
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
        publisher: Publisher,
        metrics: &Metrics,
    ) -> Result<Self, ModelUriError> {
        let target = |endpoint: &crate::config::Endpoint, route: &crate::config::Route| {
            let options = HandleOptions {
                python: route.python.clone(),
                runtime: route.runtime,
                env_manager: route.env_manager,
                workers: route.workers,
                max_concurrency: route.max_concurrency,
            };
            let model = models.handle(&ModelUri::parse(&route.model_uri)?, options);
            let (endpoint, alias) = (endpoint.name.as_str(), route.alias.as_str());
            let decided = |reason: Reason| metrics.route_decisions.with_label_values(&[endpoint, alias, reason.name()]);
            Ok(Target {
                model,
                metrics: Arc::new(metrics.route(endpoint, alias)),
                decisions: Reason::ALL.map(decided),
                condition_skips: metrics.condition_failures.with_label_values(&[endpoint, alias, "skipped"]),
            })
        };
        let targets = config
            .model_endpoints
            .iter()
            .map(|endpoint| endpoint.routes.iter().map(|route| target(endpoint, route)).collect())
            .collect::<Result<_, _>>()?;
        let shared = Shared { table, targets, publisher, metrics: metrics.clone() };
        Ok(Self { shared: Arc::new(shared), runtime: Handle::current() })
    }
}

impl Handler for Pipeline {
    fn accept(&self, request: Request, ticket: Ticket) {
        let shared = self.shared.clone();
        self.runtime.spawn(async move { shared.serve(request, ticket).await });
    }

    fn refuse(&self, request: Request, ticket: Ticket, refusal: Refusal) {
        let fault = refused(refusal);
        let shared = self.shared.clone();
        self.runtime.spawn(async move { shared.end(Arc::new(request), ticket, Progress::default(), Err(fault)).await });
    }
}

impl Shared {
    async fn serve(&self, request: Request, ticket: Ticket) {
        let request = Arc::new(request);
        let mut progress = Progress::default();
        // A defect met by one request must not leave it unanswered, nor take others down.
        let answer = AssertUnwindSafe(self.answer(&request, &mut progress)).catch_unwind().await;
        let result = answer.unwrap_or_else(|_| Err(defect(&request)));
        self.end(request, ticket, progress, result).await;
    }

    /// Which route, which model, and what the model says.
    async fn answer(&self, request: &Arc<Request>, progress: &mut Progress) -> Result<Reply, Fault> {
        let endpoint = self.table.endpoint(request)?;
        progress.served_by.endpoint = Some(endpoint.name.clone());
        let deadline = self.deadline(request)?;
        let target = self.decide(endpoint, request, progress)?;
        let payload = request.payload.clone().ok_or_else(no_payload)?;

        loop {
            let lease = target.model.lease(deadline).await?;
            progress.served_by.model_version = Some(lease.version().clone());
            progress.served_by.attempts += 1;
            let timer = target.metrics.invocation_duration.start_timer();
            let answer = call(lease, Arc::clone(request), payload.clone(), endpoint.timeout, deadline).await;
            drop(timer);
            match answer {
                Some(Ok(reply)) => return Ok(reply),
                None => return Err(late(target)),
                // It may be this request that its process does not survive: a third would be one too many.
                Some(Err(failure)) if failure.crashed && progress.served_by.attempts < MAX_ATTEMPTS => {}
                Some(Err(failure)) => return Err(failure.fault),
            }
        }
    }

    fn decide<'a>(
        &'a self,
        endpoint: &Endpoint,
        request: &Arc<Request>,
        progress: &mut Progress,
    ) -> Result<&'a Target, Fault> {
        let decision = endpoint.decide(request)?;
        let route = &endpoint.routes[decision.route];
        for skipped in &decision.skipped {
            self.targets[endpoint.index][*skipped].condition_skips.inc();
        }
        let target = &self.targets[endpoint.index][decision.route];
        progress.served_by.route = Some(route.alias.clone());
        progress.served_by.model_uri = Some(route.model_uri.clone());
        progress.metrics = Some(target.metrics.clone());
        target.decisions[decision.reason as usize].inc();
        Ok(target)
    }

    /// When nobody wants the answer any more.
    fn deadline(&self, request: &Request) -> Result<Option<Instant>, Fault> {
        let Some(value) = request.headers.get(header::DEADLINE) else { return Ok(None) };
        let deadline =
            std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<u64>().ok()).ok_or_else(|| {
                Fault::permanent(
                    Code::BadRequest,
                    Stage::Route,
                    "header 'deadline' must be a Unix time in milliseconds, as decimal text",
                )
            })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match Duration::from_millis(deadline).checked_sub(now) {
            Some(left) if !left.is_zero() => Ok(Some(Instant::now() + left)),
            _ => {
                self.metrics.expired.inc();
                Err(Fault::permanent(
                    Code::DeadlineExceeded,
                    Stage::Route,
                    "the request's deadline had passed when its turn came; no model was called",
                ))
            }
        }
    }

    /// Publishes what a request ended in, or makes a dead letter of it when its caller may not be answered there.
    async fn end(&self, request: Arc<Request>, ticket: Ticket, progress: Progress, result: Result<Reply, Fault>) {
        let correlation = Correlation::of(&request);
        let address = self.publisher.address(&correlation);
        let outcome = Outcome { served_by: progress.served_by, result };
        let ending = Ending { request, outcome, ticket, metrics: progress.metrics };
        match address {
            Ok(address) => self.publisher.publish(ending, correlation, address).await,
            Err(fault) => self.publisher.dead_letter(ending, correlation, fault).await,
        }
    }
}

/// Calls the model. A model that is hosted here has the whole of `timeout` for it and is ended when that is not enough,
/// so whose caller was in more of a hurry gets a fault while the call goes on: a host must not be taken for stuck because
/// its callers have waited before. None when the deadline came first.
async fn call(
    mut lease: Lease,
    request: Arc<Request>,
    payload: Bytes,
    timeout: Duration,
    deadline: Option<Instant>,
) -> Option<Result<Reply, CallFailure>> {
    let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
    if left.is_zero() {
        return None;
    }
    let goes_on = lease.is_hosted() && left < timeout;
    let limit = if goes_on { timeout } else { timeout.min(left) };
    let calling = async move {
        let (content_type, headers) = (request.content_type(), &request.headers);
        lease.invoke(&Call { content_type, payload, headers, timeout: limit }).await
    };
    if !goes_on {
        return Some(calling.await);
    }
    let mut calling = Box::pin(calling);
    let answer = timeout_at(Instant::now() + left, &mut calling).await.ok();
    if answer.is_none() {
        tokio::spawn(calling);
    }
    answer
}

fn late(target: &Target) -> Fault {
    let message = format!("{} had not answered when the request's time was up", target.model.uri());
    Fault::passing(Code::DeadlineExceeded, Stage::Invoke, message)
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
        Refusal::UnreadableHeaders => Fault::permanent(
            Code::BadRequest,
            Stage::Route,
            "the record's headers cannot be read: a header name is not UTF-8 text",
        ),
    }
}

fn no_payload() -> Fault {
    Fault::permanent(
        Code::BadRequest,
        Stage::Route,
        "the record has no value; a request's value is an MLflow scoring payload, such as {\"dataframe_split\": …}",
    )
}

fn defect(request: &Request) -> Fault {
    error!(source = %request.source, "a defect of signalbox was met by this request");
    Fault::permanent(Code::InternalError, Stage::Route, "signalbox itself failed on this request; see its log")
}
