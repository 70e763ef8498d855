//! The status page at `/`, and its data: what an operator wants to see of the process at a glance.
//!
//! `GET /status` gathers the metrics and the reports that there are already into one JSON. A sample of the counters
//! every few seconds, kept for a quarter of an hour, is all that is noted for it. The page itself is a few static files
//! in the binary. Both are one set of routes, so that one guard can stand before them.

mod counters;
mod explain;
mod files;
mod outline;
mod quantile;
mod report;
mod series;
#[cfg(test)]
mod tests;
mod traffic;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use self::counters::Counters;
use self::outline::EndpointOutline;
use self::report::Status;
use self::series::INTERVAL;
use self::traffic::Traffic;
use crate::canary::Canaries;
use crate::config::{self, Config};
use crate::intake::Partitions;
use crate::message::unix_milliseconds;
use crate::models::Models;
use crate::pipeline::Pipeline;
use crate::telemetry::{Metrics, Readiness};

/// The status page of a process. It takes samples until it is dropped.
pub struct StatusPage {
    shared: Arc<Shared>,
    sampler: JoinHandle<()>,
}

/// The parts of the process that the page shows.
pub struct PageParts {
    /// `all`, `router` or `shim`.
    pub role: &'static str,
    /// All metrics.
    pub metrics: Metrics,
    /// Readiness of each part.
    pub readiness: Readiness,
    /// The half that serves requests, where the process has it.
    pub router: Option<RouterParts>,
}

/// The parts of a process that serves requests.
pub struct RouterParts {
    /// The routes at work.
    pub pipeline: Pipeline,
    /// The partitions that are read.
    pub partitions: Partitions,
    /// The models.
    pub models: Models,
    /// The canaries.
    pub canaries: Canaries,
}

/// State of the page.
struct Shared {
    parts: PageParts,
    limits: InFlightLimits,
    outline: ArcSwap<Vec<EndpointOutline>>,
    traffic: Mutex<Traffic>,
    begun: Instant,
    /// Unix time in milliseconds.
    started: u64,
}

/// Limits of the requests in flight.
struct InFlightLimits {
    requests: usize,
    bytes: u64,
}

/// Query of `GET /status`.
#[derive(Deserialize)]
struct StatusQuery {
    /// Number of a sample; those until it are left out.
    #[serde(default)]
    after: u64,
}

impl StatusPage {
    /// Starts to take samples. Within the runtime.
    pub fn start(config: &Config, parts: PageParts) -> Self {
        let limits =
            InFlightLimits { requests: config.kafka.max_in_flight, bytes: config.kafka.max_in_flight_bytes.as_u64() };
        let shared = Arc::new(Shared {
            parts,
            limits,
            outline: ArcSwap::default(),
            traffic: Mutex::default(),
            begun: Instant::now(),
            started: unix_milliseconds(),
        });
        shared.set_endpoints(&config.model_endpoints);
        let sampler = tokio::spawn(sample(Arc::clone(&shared)));
        Self { shared, sampler }
    }

    /// Shows these endpoints from now on.
    pub fn set_endpoints(&self, endpoints: &[config::Endpoint]) {
        self.shared.set_endpoints(endpoints);
    }

    /// Serves the page at `/`, its files under `/page`, `GET /status`, and `POST /status/route` where there are routes.
    pub fn routes(&self) -> axum::Router {
        let mut data = axum::Router::new().route("/status", get(status));
        if self.shared.parts.router.is_some() {
            data = data.route("/status/route", post(explain::explain));
        }
        files::routes().merge(data.with_state(Arc::clone(&self.shared)))
    }
}

impl Drop for StatusPage {
    fn drop(&mut self) {
        self.sampler.abort();
    }
}

impl Shared {
    fn set_endpoints(&self, endpoints: &[config::Endpoint]) {
        let outline: Vec<_> = endpoints.iter().map(EndpointOutline::of).collect();
        self.traffic.lock().follow(&outline, &self.counters(), self.now());
        self.outline.store(Arc::new(outline));
    }

    fn counters(&self) -> Counters {
        match self.parts.router {
            Some(_) => Counters::of_routes(&self.parts.metrics),
            None => Counters::of_calls(&self.parts.metrics),
        }
    }

    /// Returns the time since the start.
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }
}

async fn sample(page: Arc<Shared>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        page.traffic.lock().sample(&page.outline.load(), &page.counters(), page.now());
    }
}

async fn status(State(page): State<Arc<Shared>>, Query(query): Query<StatusQuery>) -> Response {
    answer(StatusCode::OK, &Status::of(&page, query.after))
}

/// Answers with JSON that no cache keeps.
fn answer(status: StatusCode, body: &impl serde::Serialize) -> Response {
    (status, files::NOT_STORED, Json(body)).into_response()
}
