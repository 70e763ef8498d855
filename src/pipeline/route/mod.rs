//! One route at work: its model, its queues, its load, and the policies that guard it.

pub(super) mod batch;
pub(super) mod breaker;
pub(super) mod call;
pub(super) mod clock;
pub(super) mod failure;
pub(super) mod fallback;
mod load;
mod queue;
mod retries;
pub(super) mod shadow;
pub(super) mod share;

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;

use crate::canary::RouteStatistics;
use crate::config::{self, Batching};
use crate::invocation::too_large;
use crate::message::{Deadline, Fault, Reply};
use crate::models::{CallFailure, HandleOptions, ModelHandle, ModelUri, ModelUriError, Models};
use crate::routing::{LoadReading, Reason};
use crate::telemetry::{Metrics, RouteMetrics};
use batch::{BatchedRoute, Batcher};
use breaker::RouteBreaker;
use clock::now;
use fallback::Fallbacks;
use load::RouteLoad;
use queue::WaitQueue;
use retries::RouteRetries;
use shadow::RouteShadow;
use share::RouteShare;

/// Joins a route's model with its live state; a reload keeps it as long as the route's config stays the same.
pub(super) struct Route {
    pub(super) model: ModelHandle,
    pub(super) metrics: Arc<RouteMetrics>,
    pub(super) load: Arc<RouteLoad>,
    /// Queue of the requests that are called singly.
    pub(super) wait_queue: WaitQueue,
    /// Part that the route's requests have of all requests in flight.
    pub(super) share: RouteShare,
    /// Outcomes of the route's requests, where a canary is compared with others.
    pub(super) statistics: Option<Arc<RouteStatistics>>,
    /// Decisions for the route, by [`Reason`].
    pub(super) decisions: [IntCounter; Reason::ALL.len()],
    /// Shadow route that copies of the requests go to.
    pub(super) shadow: Option<RouteShadow>,
    /// Requests on which the route's condition failed, so that the route was skipped.
    pub(super) condition_skips: IntCounter,
    /// Requests for which the route was drawn by chance since `sticky_by` gave nothing.
    pub(super) sticky_failures: IntCounter,
    /// Batcher of the requests that wait at the same time, if they are joined.
    pub(super) batcher: Option<Batcher>,
    /// Bytes of the largest answer, which has to fit a record.
    pub(super) largest_answer: usize,
    /// Time that a request may take at this route.
    pub(super) timeout: Option<Duration>,
    pub(super) breaker: Option<RouteBreaker>,
    pub(super) retries: Option<RouteRetries>,
    pub(super) fallbacks: Option<Fallbacks>,
}

/// Keeps a request apart from others: another request may be the reason that it was not answered, or the request itself the
/// reason that others were not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Isolation {
    /// Called with other requests, where they can be joined.
    Shared,
    /// Called in a call of its own.
    OwnCall,
    /// Called in a process in which there is no other call.
    OwnProcess,
}

impl Route {
    /// Binds a route to its model and its metrics.
    ///
    /// # Errors
    /// When its model URI cannot be read, which a checked config rules out.
    pub(super) fn new(
        endpoint: &config::Endpoint,
        route: &config::Route,
        largest_answer: usize,
        models: &Models,
        metrics: &Metrics,
    ) -> Result<Self, ModelUriError> {
        let is_compared = endpoint.has_canary();
        let options = HandleOptions {
            python: route.python.clone(),
            runtime: route.runtime,
            env_manager: route.env_manager,
            workers: route.workers,
            threads: route.threads,
            max_concurrency: route.max_concurrency,
        };
        // A route with `batch:` says of its model that rows do not depend on each other.
        let vouches = matches!(route.batch, Some(Batching::On(_)));
        let model = models.handle(&ModelUri::parse(&route.model_uri)?, options);
        let model = if vouches { model.vouched_for() } else { model };
        let shadow = route.shadow.as_ref().and_then(|alias| {
            let index = endpoint.routes.iter().position(|route| route.alias == *alias)?;
            Some(RouteShadow::new(&endpoint.name, alias, index, metrics))
        });
        // A host of ours tells which requests of a batch it refuses, so batches are on by default there, and only there.
        let isolates_bad_rows = model.is_forked();
        let batch = match &route.batch {
            Some(Batching::Off) => None,
            Some(Batching::On(batch)) => Some(batch.clone()),
            None => isolates_bad_rows.then(config::Batch::default),
        };
        let (endpoint, alias) = (endpoint.name.as_str(), route.alias.as_str());
        let decided = |reason: Reason| metrics.route_decisions.with_label_values(&[endpoint, alias, reason.name()]);
        let load = Arc::<RouteLoad>::default();
        let route_metrics = Arc::new(metrics.route(endpoint, alias));
        let batcher = batch.map(|settings| {
            let batched = BatchedRoute {
                model_uri: Arc::clone(model.uri().text()),
                largest_answer,
                load: Arc::clone(&load),
                metrics: Arc::clone(&route_metrics),
                batch_metrics: metrics.batch(endpoint, alias),
            };
            Batcher::new(settings, vouches, isolates_bad_rows, batched)
        });
        Ok(Self {
            model,
            load,
            wait_queue: WaitQueue::default(),
            share: RouteShare::default(),
            statistics: is_compared.then(Arc::default),
            metrics: route_metrics,
            decisions: Reason::ALL.map(decided),
            shadow,
            condition_skips: metrics.condition_failures.with_label_values(&[endpoint, alias, "skipped"]),
            sticky_failures: metrics.condition_failures.with_label_values(&[endpoint, alias, "sticky"]),
            batcher,
            largest_answer,
            timeout: route.timeout,
            breaker: route.breaker.clone().map(|policy| RouteBreaker::new(policy, endpoint, alias, metrics)),
            retries: route.retries.clone().map(|policy| RouteRetries::new(policy, endpoint, alias, metrics)),
            fallbacks: Fallbacks::new(endpoint, route, metrics),
        })
    }

    /// Returns the answer, unless it is too large to be published.
    ///
    /// # Errors
    /// `PAYLOAD_TOO_LARGE`.
    pub(super) fn within_limit(&self, reply: Reply) -> Result<Reply, CallFailure> {
        if reply.body.len() <= self.largest_answer {
            return Ok(reply);
        }
        let fault = too_large(self.model.uri().text(), self.largest_answer);
        Err(CallFailure { fault, crashed: false, disconnected: false, in_company: false })
    }

    /// Sheds a request whose deadline comes before it can get a place at the model; none when it may be in time.
    pub(super) fn sheds(&self, deadline: Deadline) -> Option<Fault> {
        // A request that waits for ever is in time, whatever waits before it.
        if deadline == Deadline::NONE {
            return None;
        }
        let places = self.model.places();
        match self.active_batcher() {
            Some(batcher) => batcher.sheds(deadline, places),
            None => self.wait_queue.sheds(deadline, places),
        }
    }

    /// Returns the batcher, unless the model is known to be called singly.
    pub(super) fn active_batcher(&self) -> Option<&Batcher> {
        self.batcher.as_ref().filter(|batcher| !batcher.is_off_for(&self.model))
    }

    /// Reads the load, for routing by load.
    pub(super) fn load_reading(&self) -> LoadReading {
        let load = self.load.at(now());
        // A route whose breaker is open has nothing to do, and must not seem to be the best choice for that.
        match self.breaker.as_ref().is_some_and(RouteBreaker::refuses) {
            true => LoadReading { in_flight: usize::MAX / 2, ..load },
            false => load,
        }
    }
}
