//! The decision service: an HTTP service outside, such as Open Policy Agent, that is asked which route a request takes.
//!
//! The service gets a [`summary`] of the request and answers with a route's alias, or with no opinion. Requests with
//! the same summary share one call (single flight), and its answer for as long as the [`cache`] keeps it. A circuit
//! breaker leaves a service that keeps failing alone for a while.

mod answer;
mod cache;
mod summary;

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::{Histogram, IntCounter};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode, Url};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::cache::Cache;
pub(super) use self::summary::DecisionInput;
use super::condition::Answers;
use super::table::{Endpoint, RouteIndex};
use crate::config::{self, OnDecisionError};
use crate::invocation::breaker::{Breaker, BreakerOpen, CallOutcome, CallPass};
use crate::invocation::{http_client, in_words, read_body, root_cause};
use crate::message::{Code, Deadline, Fault, Request, Stage};
use crate::telemetry::{LogGate, Metrics};

/// Longest answer of the service, in bytes; a longer one is an error.
const MAX_ANSWER: usize = 64 << 10;

/// The client of the service that decides for an endpoint. All its requests share one cache and one circuit breaker.
#[derive(Debug)]
pub struct DecisionService {
    endpoint: Arc<str>,
    aliases: Vec<String>,
    client: Option<Client>,
    url: Url,
    timeout: Duration,
    on_error: OnDecisionError,
    state: Mutex<ServiceState>,
    started: Instant,
    metrics: DecisionMetrics,
    log: LogGate,
}

/// The answer of the service: the route that it names, or none when it has no opinion.
type ServiceAnswer = Result<Option<RouteIndex>, DecisionError>;

/// The reason for which the service gave no answer at all, not even that it has no opinion.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DecisionError {
    /// The circuit breaker is open, since the service has failed too often of late.
    #[error("it is not asked for another {}, since {why}", in_words(*left))]
    Open {
        /// Time until the service may be asked again.
        left: Duration,
        /// Cause of the open breaker, in words.
        why: Arc<str>,
    },
    /// The service did not answer, or not with anything usable.
    #[error("{0}")]
    Failed(Arc<str>),
}

#[derive(Debug)]
struct ServiceState {
    cache: Option<Cache>,
    in_flight: HashMap<Bytes, watch::Receiver<Option<ServiceAnswer>>>,
    breaker: Breaker,
}

/// The source of an answer (single flight).
enum AnswerSource {
    Cached(Option<RouteIndex>),
    Follow(watch::Receiver<Option<ServiceAnswer>>),
    Lead(CallPass, watch::Sender<Option<ServiceAnswer>>),
}

#[derive(Debug)]
struct DecisionMetrics {
    answered: IntCounter,
    cached: IntCounter,
    none: IntCounter,
    failed: IntCounter,
    open: IntCounter,
    duration: Histogram,
}

impl DecisionService {
    /// Makes the client of an endpoint's service, if it has one. No connection is made yet.
    pub fn new(endpoint: &config::Endpoint, metrics: &Metrics) -> Option<Arc<Self>> {
        let decision = endpoint.decision.as_ref()?;
        // A checked config has only URLs that parse.
        let url = Url::parse(&decision.url).ok()?;
        let client = http_client(&url).redirect(reqwest::redirect::Policy::none()).build().ok();
        let result = |result| metrics.decisions.with_label_values(&[endpoint.name.as_str(), result]);
        let counters = DecisionMetrics {
            answered: result("answered"),
            cached: result("cached"),
            none: result("none"),
            failed: result("failed"),
            open: result("open"),
            duration: metrics.decision_duration.with_label_values(&[&endpoint.name]),
        };
        let state = ServiceState {
            cache: decision.cache.map(Cache::new),
            in_flight: HashMap::new(),
            breaker: Breaker::new(breaker_policy()),
        };
        Some(Arc::new(Self {
            endpoint: endpoint.name.as_str().into(),
            aliases: endpoint.routes.iter().map(|route| route.alias.clone()).collect(),
            client,
            url,
            timeout: decision.timeout,
            on_error: decision.on_error,
            state: Mutex::new(state),
            started: Instant::now(),
            metrics: counters,
            log: LogGate::default(),
        }))
    }

    /// Returns the route that the service names for a request, of which CPython said `answers`; none when it has no
    /// opinion, or when it fails and `on_error` ignores that.
    ///
    /// # Errors
    /// Fails when the service fails and `on_error` does not ignore that.
    pub async fn decide(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        request: &Arc<Request>,
        answers: Option<&Arc<Answers>>,
        deadline: Deadline,
    ) -> Result<Option<usize>, Fault> {
        let error = match self.opinion(endpoint, request, answers, deadline).await {
            Ok(opinion) => return Ok(opinion),
            Err(error) => error,
        };
        if let Some(unlogged) = self.log.admit(LogGate::now()) {
            tracing::warn!(
                endpoint = %self.endpoint,
                service = self.service(),
                request = %request.source,
                unlogged,
                %error,
                "the decision service gave no decision"
            );
        }
        self.consequence(&error).map_or(Ok(None), Err)
    }

    /// Returns the answer of the service for a request, and counts failures.
    ///
    /// # Errors
    /// Fails when the service gives no usable answer.
    pub async fn opinion(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        request: &Arc<Request>,
        answers: Option<&Arc<Answers>>,
        deadline: Deadline,
    ) -> Result<Option<usize>, DecisionError> {
        let summary = endpoint.summary(request, &endpoint.conditions.evaluation(request, answers.cloned()));
        let opinion = match summary {
            Ok(summary) => self.shared_answer(summary, deadline).await,
            Err(error) => Err(error),
        };
        match &opinion {
            Ok(_) => {}
            Err(DecisionError::Open { .. }) => self.metrics.open.inc(),
            Err(DecisionError::Failed(_)) => self.metrics.failed.inc(),
        }
        opinion
    }

    /// Returns the fault that a request gets for an error of the service, if `on_error` asks for one.
    pub fn consequence(&self, error: &DecisionError) -> Option<Fault> {
        (self.on_error == OnDecisionError::Fail).then(|| {
            let message = format!(
                "the service at {} that decides the routes of endpoint `{}` gave no decision: {error}",
                self.service(),
                self.endpoint
            );
            let fault = Fault::passing(Code::TemporarilyUnavailable, Stage::Route, message);
            match error {
                DecisionError::Open { left, .. } => fault.with_retry_after(*left),
                DecisionError::Failed(_) => fault,
            }
        })
    }

    async fn shared_answer(self: &Arc<Self>, summary: Bytes, deadline: Deadline) -> ServiceAnswer {
        let mut answer = match self.join_or_lead(&summary)? {
            AnswerSource::Cached(opinion) => {
                self.metrics.cached.inc();
                return Ok(opinion);
            }
            AnswerSource::Follow(answer) => answer,
            AnswerSource::Lead(pass, sender) => {
                let answer = sender.subscribe();
                // The call runs in a task of its own: the request that asked first may be out of time before the
                // others, and before the breaker knows.
                tokio::spawn(Arc::clone(self).lead(summary, pass, sender));
                answer
            }
        };
        let said = deadline.until(answer.wait_for(Option::is_some)).await;
        let said = said.ok_or_else(|| failed("the request's time was up"))?;
        let opinion =
            said.ok().and_then(|said| said.clone()).unwrap_or_else(|| Err(failed("the question was lost")))?;
        if opinion.is_some() { &self.metrics.answered } else { &self.metrics.none }.inc();
        Ok(opinion)
    }

    fn join_or_lead(&self, summary: &Bytes) -> Result<AnswerSource, DecisionError> {
        let (now, mut state) = (self.started.elapsed(), self.state.lock());
        // Cache first: a known answer costs no call.
        if let Some(opinion) = state.cache.as_ref().and_then(|cache| cache.get(summary, now)) {
            return Ok(AnswerSource::Cached(opinion));
        }
        // Single flight: requests with the same summary wait for the call that is under way.
        if let Some(answer) = state.in_flight.get(summary) {
            return Ok(AnswerSource::Follow(answer.clone()));
        }
        // The breaker may refuse the call; else this request leads, and others follow.
        let pass = state.breaker.admit(now).map_err(DecisionError::from)?;
        let (sender, answer) = watch::channel(None);
        state.in_flight.insert(summary.clone(), answer);
        Ok(AnswerSource::Lead(pass, sender))
    }

    /// Calls the service once, and hands the answer to the cache, the breaker and all waiting requests.
    async fn lead(self: Arc<Self>, summary: Bytes, pass: CallPass, sender: watch::Sender<Option<ServiceAnswer>>) {
        let begun = Instant::now();
        let said = timeout(self.timeout, self.post(summary.clone()))
            .await
            .unwrap_or_else(|_| Err(failed(format!("it did not answer within {}", in_words(self.timeout)))));
        let took = begun.elapsed();
        self.metrics.duration.observe(took.as_secs_f64());
        // A service that answers counts as healthy, even if it names an unknown route.
        let ended = CallOutcome { failed: said.is_err(), took };
        let opinion = said.and_then(|alias| self.route_of(alias));
        let (now, mut state) = (self.started.elapsed(), self.state.lock());
        state.breaker.end(pass, now, Some(ended));
        state.in_flight.remove(&summary);
        if let (Ok(opinion), Some(cache)) = (&opinion, &mut state.cache) {
            cache.put(summary, *opinion, now);
        }
        drop(state);
        sender.send_replace(Some(opinion));
    }

    /// Posts the summary, and returns the alias that the service names.
    async fn post(&self, summary: Bytes) -> Result<Option<String>, DecisionError> {
        let client = self.client.as_ref().ok_or_else(|| failed("no HTTP client can be made"))?;
        let post = client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(summary);
        let broken = |error: &reqwest::Error| failed(format!("it cannot be reached: {}", root_cause(error)));
        let answer = post.send().await.map_err(|error| broken(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(failed(format!("it answered with status {}", answer.status().as_u16())));
        }
        let body = read_body(answer, MAX_ANSWER).await.map_err(|error| broken(&error))?;
        let too_long = || failed(format!("its answer is longer than {} KiB", MAX_ANSWER >> 10));
        answer::alias_in(&body.ok_or_else(too_long)?).map_err(failed)
    }

    fn route_of(&self, alias: Option<String>) -> ServiceAnswer {
        let Some(alias) = alias else { return Ok(None) };
        self.aliases
            .iter()
            .position(|known| *known == alias)
            .map(Some)
            .ok_or_else(|| failed(format!("it named the route {alias:?}; the routes are: {}", self.aliases.join(", "))))
    }

    /// Returns the address of the service, without what a URL may hold of secrets.
    fn service(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// Returns the policy of the breaker. A service that is down costs each request its timeout, so it is soon left alone,
/// and soon tried again.
fn breaker_policy() -> config::Breaker {
    config::Breaker { minimum_calls: 10, open_for: Duration::from_secs(2), probes: 1, ..config::Breaker::default() }
}

fn failed(words: impl Into<Arc<str>>) -> DecisionError {
    DecisionError::Failed(words.into())
}

impl From<BreakerOpen> for DecisionError {
    fn from(refusal: BreakerOpen) -> Self {
        Self::Open { left: refusal.left, why: refusal.trip.to_string().into() }
    }
}

#[cfg(test)]
mod tests;
