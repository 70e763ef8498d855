//! Report of the process, as `GET /status` answers with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::counters::{Counters, label, values};
use super::outline::RouteOutline;
use super::series::{INTERVAL, Reading, Recent, Sample, Series};
use super::traffic::NO_ROUTE;
use super::{RouterParts, Shared};
use crate::canary::CanaryReport;
use crate::intake::PartitionReport;
use crate::message::unix_milliseconds;
use crate::models::Report;
use crate::telemetry::RecentFault;

/// Body of `GET /status`.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    /// `all`, `router` or `shim`.
    role: &'static str,
    /// Unix time of the start in milliseconds: it tells one run of the process from the next.
    started: u64,
    /// Unix time of the report in milliseconds: the clock of whoever reads it may differ.
    now: u64,
    /// True if every part is ready.
    ready: bool,
    /// Parts that are not ready, with what each waits for.
    waits_for: BTreeMap<&'static str, String>,
    /// The samples of `history`.
    history: HistoryReport,
    load: LoadReport,
    endpoints: Vec<EndpointReport>,
    /// The same as `GET /models`; none where no models are.
    models: Option<Report>,
    /// The same as `GET /canaries`.
    canaries: Vec<CanaryReport>,
    partitions: Vec<PartitionStatus>,
    faults: Vec<FaultReport>,
}

#[derive(Debug, Serialize)]
struct HistoryReport {
    interval_seconds: u64,
    /// Number of the last sample. With `?after=` a number, only the samples after that one are there.
    last: u64,
}

/// Present load of the process.
#[derive(Debug, Serialize)]
struct LoadReport {
    in_flight: i64,
    in_flight_limit: usize,
    bytes: i64,
    bytes_limit: u64,
    /// True if partitions are paused since a limit is reached.
    paused: bool,
    oldest_seconds: f64,
    /// HTTP callers that wait.
    callers: i64,
    /// Requests that wait in retry topics, by topic.
    parked: BTreeMap<String, i64>,
}

#[derive(Debug, Serialize)]
struct EndpointReport {
    name: String,
    recent: RecentReport,
    history: Option<SamplesReport>,
    routes: Vec<RouteReport>,
}

#[derive(Debug, Serialize)]
struct RouteReport {
    #[serde(flatten)]
    outline: RouteOutline,
    /// Requests that have ended since the start, by HTTP status.
    requests: BTreeMap<String, u64>,
    /// Part of the endpoint's recent requests, from 0 to 1.
    share: Option<f64>,
    recent: RecentReport,
    /// `closed`, `half_open` or `open`; none without a breaker.
    breaker: Option<&'static str>,
    history: Option<SamplesReport>,
}

/// Traffic of the last half a minute.
#[derive(Debug, Serialize)]
struct RecentReport {
    seconds: f64,
    requests: u64,
    faults: u64,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
}

/// Samples in rising order.
#[derive(Debug, Default, Serialize)]
struct SamplesReport {
    requests: Vec<u64>,
    faults: Vec<u64>,
    p95_ms: Vec<Option<f64>>,
}

#[derive(Debug, Serialize)]
struct PartitionStatus {
    topic: Arc<str>,
    partition: i32,
    /// Requests in the topic that are not yet answered for good; none where that is not known.
    lag: Option<i64>,
    in_flight: usize,
    /// Records that were read and may not run yet.
    held: usize,
    /// The request that no commit can pass.
    oldest: Option<OldestReport>,
}

#[derive(Debug, Serialize)]
struct OldestReport {
    offset: i64,
    seconds: f64,
    /// `read`, `deciding`, `waiting` (for its model), `calling` or `publishing`.
    step: &'static str,
    endpoint: Option<Arc<str>>,
    route: Option<Arc<str>>,
}

#[derive(Debug, Serialize)]
struct FaultReport {
    endpoint: Arc<str>,
    route: Arc<str>,
    status: u16,
    error_code: &'static str,
    stage: &'static str,
    /// The reason of the last one, which repeats nothing of the request.
    reason: Arc<str>,
    times: u64,
    seconds_ago: f64,
}

impl Status {
    /// Gathers the report, with the samples after this one.
    pub(super) fn of(page: &Shared, after: u64) -> Self {
        let Shared { parts, limits, .. } = page;
        let (metrics, router) = (&parts.metrics, parts.router.as_ref());
        let waits_for: BTreeMap<_, _> =
            parts.readiness.report().into_iter().filter_map(|(part, why)| Some((part, why?))).collect();
        let counters = page.counters();
        let (endpoints, last) = endpoints(page, &counters, after);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            role: parts.role,
            started: page.started,
            now: unix_milliseconds(),
            ready: waits_for.is_empty(),
            waits_for,
            history: HistoryReport { interval_seconds: INTERVAL.as_secs(), last },
            load: LoadReport {
                in_flight: metrics.in_flight_requests.get(),
                in_flight_limit: limits.requests,
                bytes: metrics.in_flight_bytes.get(),
                bytes_limit: limits.bytes,
                paused: metrics.intake_paused.get() > 0,
                oldest_seconds: rounded(metrics.oldest_in_flight.get()),
                callers: metrics.shim_pending.get(),
                parked: values(&metrics.parked_requests)
                    .map(|metric| (label(&metric, "topic"), metric.get_gauge().get_value() as i64))
                    .collect(),
            },
            endpoints,
            models: router.map(|router| router.models.report()),
            canaries: router.map(|router| router.canaries.report()).unwrap_or_default(),
            partitions: router.map(|router| partitions(page, router)).unwrap_or_default(),
            faults: metrics.faults.report().into_iter().map(FaultReport::of).collect(),
        }
    }
}

fn endpoints(page: &Shared, counters: &Counters, after: u64) -> (Vec<EndpointReport>, u64) {
    let (outline, traffic, now) = (page.outline.load(), page.traffic.lock(), page.now());
    let new = usize::try_from(traffic.last().saturating_sub(after)).unwrap_or(usize::MAX);
    let recent = |series: Option<&Series>, reading: &Reading| {
        series.map_or_else(RecentReport::default, |series| {
            RecentReport::of(series.recent(&counters.bounds, reading, now))
        })
    };
    let reports = outline.iter().map(|outline| {
        let name = outline.name.as_str();
        let known = traffic.of(name);
        let total = known.map(|known| known.total(name, counters)).unwrap_or_default();
        let all = recent(known.map(|known| &known.all), &total);
        let unrouted = RouteOutline::of_no_route();
        let routes = outline.routes.iter().chain([&unrouted]).map(|route| {
            let series = known.and_then(|known| known.route(&route.alias));
            let recent = recent(series, &counters.reading(name, &route.alias));
            RouteReport {
                outline: route.clone(),
                requests: counters.statuses(name, &route.alias),
                share: (all.requests > 0).then(|| rounded(recent.requests as f64 / all.requests as f64)),
                recent,
                breaker: counters.breaker(name, &route.alias),
                history: series.map(|series| SamplesReport::of(series.last(new))),
            }
        });
        // What came to no route is there once anything has.
        let routes = routes.filter(|route| route.outline.alias != NO_ROUTE || !route.requests.is_empty()).collect();
        let history = known.map(|known| SamplesReport::of(known.all.last(new)));
        EndpointReport { name: name.to_owned(), recent: all, history, routes }
    });
    (reports.collect(), traffic.last())
}

fn partitions(page: &Shared, router: &RouterParts) -> Vec<PartitionStatus> {
    let lags: BTreeMap<String, i64> = values(&page.parts.metrics.consumer_lag)
        .map(|metric| (label(&metric, "partition"), metric.get_gauge().get_value() as i64))
        .collect();
    let status = |report: PartitionReport| PartitionStatus {
        lag: lags.get(&report.partition.to_string()).copied().filter(|_| report.is_of_requests),
        topic: report.topic,
        partition: report.partition,
        in_flight: report.in_flight,
        held: report.held,
        oldest: report.oldest.map(|oldest| {
            let (endpoint, route) = router.pipeline.route_at(oldest.mark.place).unzip();
            let (offset, seconds) = (oldest.offset, rounded(oldest.age.as_secs_f64()));
            OldestReport { offset, seconds, step: oldest.mark.progress.name(), endpoint, route }
        }),
    };
    router.partitions.report().into_iter().map(status).collect()
}

impl RecentReport {
    fn of(recent: Recent) -> Self {
        let [p50, p95] = recent.quantiles;
        Self {
            seconds: rounded(recent.elapsed.as_secs_f64()),
            requests: recent.requests,
            faults: recent.faults,
            p50_ms: p50.map(milliseconds),
            p95_ms: p95.map(milliseconds),
        }
    }
}

impl Default for RecentReport {
    fn default() -> Self {
        Self::of(Recent { elapsed: Duration::ZERO, requests: 0, faults: 0, quantiles: [None; 2] })
    }
}

impl SamplesReport {
    fn of<'a>(samples: impl Iterator<Item = &'a Sample>) -> Self {
        let mut report = Self::default();
        for sample in samples {
            report.requests.push(sample.requests);
            report.faults.push(sample.faults);
            report.p95_ms.push(sample.p95.map(milliseconds));
        }
        report
    }
}

impl FaultReport {
    fn of(fault: RecentFault) -> Self {
        let RecentFault { endpoint, route, code, status, stage, reason, times, ago } = fault;
        let seconds_ago = rounded(ago.as_secs_f64());
        Self { endpoint, route, status, error_code: code, stage, reason, times, seconds_ago }
    }
}

fn milliseconds(seconds: f64) -> f64 {
    rounded(seconds * 1000.0)
}

/// Rounds to a thousandth, so that the report has no digits that mean nothing.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
