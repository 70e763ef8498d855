//! Counters of endpoints and routes, as the metrics have them now.

use std::collections::{BTreeMap, HashMap};

use prometheus::core::Collector;
use prometheus::proto::Metric;

use super::series::Reading;
use crate::telemetry::Metrics;

/// Endpoint and route.
type Key = (String, String);

/// Present values of the metrics with a route.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Requests that have ended, by HTTP status.
    statuses: HashMap<Key, BTreeMap<String, u64>>,
    /// Requests' times: how many took no longer than each bound, and at last how many there are.
    times: HashMap<Key, Vec<u64>>,
    /// Upper bounds of the times' buckets, in seconds.
    pub(super) bounds: Vec<f64>,
    /// States of breakers, by the metric's numbers.
    breakers: HashMap<Key, f64>,
}

impl Counters {
    /// Reads the metrics of a process that serves requests.
    pub(super) fn of_routes(metrics: &Metrics) -> Self {
        let mut counters = Self::new(&metrics.requests, &metrics.request_duration);
        for metric in values(&metrics.breaker_state) {
            counters.breakers.insert(key(&metric), metric.get_gauge().get_value());
        }
        counters
    }

    /// Reads the metrics of a process that has the HTTP side alone, which knows no route.
    pub(super) fn of_calls(metrics: &Metrics) -> Self {
        Self::new(&metrics.shim_requests, &metrics.shim_duration)
    }

    fn new(requests: &impl Collector, times: &impl Collector) -> Self {
        let mut counters = Self::default();
        for metric in values(requests) {
            let count = metric.get_counter().get_value() as u64;
            if count > 0 {
                let statuses = counters.statuses.entry(key(&metric)).or_default();
                *statuses.entry(label(&metric, "status")).or_default() += count;
            }
        }
        for metric in values(times) {
            let histogram = metric.get_histogram();
            let buckets = histogram.get_bucket();
            counters.bounds = buckets.iter().map(|bucket| bucket.upper_bound()).collect();
            let counts = buckets.iter().map(|bucket| bucket.cumulative_count());
            counters.times.insert(key(&metric), counts.chain([histogram.get_sample_count()]).collect());
        }
        counters
    }

    /// Returns the requests of a route that have ended, by HTTP status. The route without a name has those that came to
    /// no route.
    pub(super) fn statuses(&self, endpoint: &str, route: &str) -> BTreeMap<String, u64> {
        self.statuses.get(&(endpoint.to_owned(), route.to_owned())).cloned().unwrap_or_default()
    }

    /// Returns the counters of a route.
    pub(super) fn reading(&self, endpoint: &str, route: &str) -> Reading {
        let statuses = self.statuses(endpoint, route);
        let faults = statuses.iter().filter(|(status, _)| *status != "200").map(|(_, count)| count).sum();
        let counts = self.times.get(&(endpoint.to_owned(), route.to_owned())).cloned();
        let counts = counts.unwrap_or_else(|| vec![0; self.bounds.len() + 1]);
        Reading { requests: statuses.values().sum(), faults, counts }
    }

    /// Returns the state of a route's breaker, if it has one.
    pub(super) fn breaker(&self, endpoint: &str, route: &str) -> Option<&'static str> {
        let state = self.breakers.get(&(endpoint.to_owned(), route.to_owned()))?;
        Some(match *state as i64 {
            0 => "closed",
            1 => "half_open",
            _ => "open",
        })
    }
}

/// Lists the present values of a metric.
pub(super) fn values(metric: &impl Collector) -> impl Iterator<Item = Metric> {
    metric.collect().into_iter().flat_map(|family| family.get_metric().to_vec())
}

/// Returns the value of a label; empty where the metric has no such label.
pub(super) fn label(metric: &Metric, name: &str) -> String {
    let found = metric.get_label().iter().find(|label| label.name() == name);
    found.map(|label| label.value().to_owned()).unwrap_or_default()
}

fn key(metric: &Metric) -> Key {
    (label(metric, "endpoint"), label(metric, "route"))
}
