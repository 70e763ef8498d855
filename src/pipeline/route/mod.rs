//! What stands behind a route.

pub(super) mod batch;
pub(super) mod breaker;
pub(super) mod call;
pub(super) mod failure;
pub(super) mod fallback;
pub(super) mod load;
pub(super) mod queue;
mod retries;

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::Instant;

use batch::Batcher;
use breaker::RouteBreaker;
use fallback::Fallbacks;
use queue::Line;
use load::Load;
use retries::RouteRetries;
use crate::pipeline::admission::Share;
use crate::pipeline::shadow::Shadow;
use crate::canary::Statistics;
use crate::config::{self, Batching};
use crate::invocation::too_large;
use crate::message::{Fault, Reply};
use crate::models::{CallFailure, HandleOptions, ModelHandle, ModelUri, ModelUriError, Models};
use crate::routing::Reason;
use crate::telemetry::{Metrics, RouteMetrics};

/// A route's model, and what is counted of it.
pub(in crate::pipeline) struct Target {
    pub(in crate::pipeline) model: ModelHandle,
    pub(in crate::pipeline) metrics: Arc<RouteMetrics>,
    /// What it has to do.
    pub(in crate::pipeline) load: Load,
    /// Those of its requests that wait for calls of their own.
    pub(in crate::pipeline) line: Line,
    /// What its requests take of the room for all.
    pub(in crate::pipeline) share: Share,
    /// What became of its requests, where a canary is compared with others.
    pub(in crate::pipeline) statistics: Option<Arc<Statistics>>,
    /// How often it was chosen, by [`Reason`].
    pub(in crate::pipeline) decisions: [IntCounter; Reason::ALL.len()],
    /// Where copies of its requests go.
    pub(in crate::pipeline) shadow: Option<Shadow>,
    /// How often its condition failed on a request and was skipped.
    pub(in crate::pipeline) condition_skips: IntCounter,
    /// How often it was drawn by chance since `sticky_by` gave nothing.
    pub(in crate::pipeline) sticky_failures: IntCounter,
    /// Those of its requests that wait at the same time, if they are joined.
    pub(in crate::pipeline) batcher: Option<Batcher>,
    /// Bytes of the largest answer, which has to fit a record.
    pub(in crate::pipeline) largest_answer: usize,
    /// How long a request may take here.
    pub(in crate::pipeline) timeout: Option<Duration>,
    pub(in crate::pipeline) breaker: Option<RouteBreaker>,
    pub(in crate::pipeline) retries: Option<RouteRetries>,
    pub(in crate::pipeline) fallbacks: Option<Fallbacks>,
}

impl Target {
    /// Binds a route to its model and its metrics.
    ///
    /// # Errors
    /// When its model URI cannot be read, which a checked config rules out.
    pub(in crate::pipeline) fn new(
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
        let vouches = matches!(route.batch, Some(Batching::On(_)));
        let model = models.handle(&ModelUri::parse(&route.model_uri)?, options);
        let model = if vouches { model.vouched_for() } else { model };
        let shadow = route.shadow.as_ref().and_then(|alias| {
            let index = endpoint.routes.iter().position(|route| route.alias == *alias)?;
            Some(Shadow::new(&endpoint.name, alias, index, metrics))
        });
        let tells = model.is_forked();
        let batch = match &route.batch {
            Some(Batching::Off) => None,
            Some(Batching::On(batch)) => Some(batch.clone()),
            None => tells.then(config::Batch::default),
        };
        let (endpoint, alias) = (endpoint.name.as_str(), route.alias.as_str());
        let decided = |reason: Reason| metrics.route_decisions.with_label_values(&[endpoint, alias, reason.name()]);
        Ok(Self {
            model,
            load: Load::default(),
            line: Line::default(),
            share: Share::default(),
            statistics: is_compared.then(Arc::default),
            metrics: Arc::new(metrics.route(endpoint, alias)),
            decisions: Reason::ALL.map(decided),
            shadow,
            condition_skips: metrics.condition_failures.with_label_values(&[endpoint, alias, "skipped"]),
            sticky_failures: metrics.condition_failures.with_label_values(&[endpoint, alias, "sticky"]),
            batcher: batch.map(|batch| Batcher::new(batch, vouches, tells, metrics.batch(endpoint, alias))),
            largest_answer,
            timeout: route.timeout,
            breaker: route.breaker.clone().map(|policy| RouteBreaker::new(policy, endpoint, alias, metrics)),
            retries: route.retries.clone().map(|policy| RouteRetries::new(policy, endpoint, alias, metrics)),
            fallbacks: Fallbacks::new(endpoint, route, metrics),
        })
    }

    /// The answer, unless it is too large to be published.
    ///
    /// # Errors
    /// `PAYLOAD_TOO_LARGE`.
    pub(in crate::pipeline) fn within_limit(&self, reply: Reply) -> Result<Reply, CallFailure> {
        if reply.body.len() <= self.largest_answer {
            return Ok(reply);
        }
        let fault = too_large(self.model.uri().text(), self.largest_answer);
        Err(CallFailure { fault, crashed: false, disconnected: false, in_company: false })
    }

    /// Why a request with this deadline need not wait for a place at the model, if that is so.
    pub(in crate::pipeline) fn hopeless(&self, deadline: Option<Instant>) -> Option<Fault> {
        let places = self.model.places();
        match self.batcher() {
            Some(batcher) => batcher.hopeless(deadline, places),
            None => self.line.hopeless(deadline, places),
        }
    }

    /// What joins its requests, unless its model is known to be called singly.
    pub(in crate::pipeline) fn batcher(&self) -> Option<&Batcher> {
        self.batcher.as_ref().filter(|batcher| !batcher.is_off_for(&self.model))
    }
}
